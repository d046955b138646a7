"""SimFLE on one's own faces where there is no accelerator: a small network and 48-pixel views.

    python train.py --config=configs/small.py --config.data.path=FACES --workdir=RUN

6,500 faces took 17 minutes on one CPU core. What it reaches stands in docs/results.md; the published network and its
sizes are in simfle.py.
"""

from ml_collections import ConfigDict

from configs import demo


def get_config() -> ConfigDict:
    """The demo's network on larger views, whole faces and stronger crops."""
    config = demo.get_config()
    config.epochs = 40
    config.views.update(size=48, plain_size=48, scale=(0.4, 1.0), standardise="dataset")
    config.data.canvas = 0
    return config
