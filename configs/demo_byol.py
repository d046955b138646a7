"""The demo without FaceMAE: BYOL alone, the baseline that SimFLE is compared with.

    python train.py --config=configs/demo_byol.py --config.data.path=runs/faces/train --workdir=runs/byol

A step costs about 0.7 of SimFLE's and compiles sooner, so 21 epochs end a little before SimFLE's 16.
"""

from ml_collections import ConfigDict

from configs import demo


def get_config() -> ConfigDict:
    """The settings of demo.py without FaceMAE."""
    config = demo.get_config()
    config.method = "byol"
    config.epochs = 21
    return config
