"""The demo's settings for a little longer, and the methods that SimFLE is compared with.

    python -m simfle_jax.study configs/studies/demo_long.py --workdir runs/long     # all, three seeds, a table, curves
    python train.py --config=configs/demo_long.py:random --config.data.path=runs/faces/train --workdir=runs/random

After the colon: simfle (default); random, the same with random instead of semantic masking; byol, the same number of
updates without FaceMAE; byol_longer, as many updates without FaceMAE as fit into SimFLE's time.
"""

from ml_collections import ConfigDict

from configs import demo
from simfle_jax.errors import UserError

EPOCHS = 24
LONGER = 33  # a step without FaceMAE takes 0.73 of SimFLE's time on a CPU (benchmarks/train_step.py)
METHODS = ("simfle", "random", "byol", "byol_longer")


def get_config(method: str = "simfle") -> ConfigDict:
    """The settings of demo.py with more epochs, every checkpoint of which is kept for the curve."""
    if method not in METHODS:
        raise UserError(f"configs/demo_long.py:{method} does not exist; give one of {', '.join(METHODS)}")
    config = demo.get_config()
    config.epochs = LONGER if method == "byol_longer" else EPOCHS
    config.checkpoint_steps = 1000
    config.keep_checkpoints = 100
    config.method = "byol" if method.startswith("byol") else "simfle"
    config.facemae.masking = "random" if method == "random" else "semantic"
    return config
