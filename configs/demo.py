"""A small SimFLE on small generated faces, for two CPU cores and a few minutes; `make demo` runs it.

    python -m simfle_jax.faces --out runs/faces --count 8000 --seed 1 --size 40
    python train.py --config=configs/demo.py --config.data.path=runs/faces/train --workdir=runs/demo

One bottleneck a stage, 8 to 64 channels wide, FaceMAE on 32-pixel faces. What it reaches stands in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import simfle


def get_config() -> ConfigDict:
    """The settings of simfle.py, made small; Adam instead of SGD because the run is short."""
    config = simfle.get_config()
    config.epochs = 16  # 4,000 updates: with 3,000 one seed of ten was still on a plateau
    config.batch_size = 32
    config.log_steps = 50
    config.checkpoint_steps = 2000
    config.optimizer.update(name="adam", lr=0.016, weight_decay=0.0)  # 2e-3 at batch 32
    config.trunk.update(stage_sizes=(1, 1, 1, 1), width=8, last_stride=1)
    config.heads.update(hidden=256, out=64)
    config.facemae.update(
        n_groups=8, patch=8, width=64, depth=2, heads=4, decoder_width=32, decoder_depth=1, decoder_heads=4
    )
    config.views.update(size=40, plain_size=32, scale=(0.6, 1.0), hue=0.3, gray=0.4, blur=(0.0, 0.0))
    config.views.standardise = "image"  # else brightness and colour cast are what the views share most
    config.data.canvas = 40
    return config
