"""SimFLE exactly as published: float32, its tie, and the constant initialisation of the channel grouping.

    python train.py --config=configs/simfle_reference.py --config.data.path=FACES --workdir=RUN
    python train.py --config=configs/simfle_reference.py:resnet18 --config.data.path=FACES --workdir=RUN

For comparison with the paper. After the colon: a trunk, as in simfle.py. The grouping starts on a saddle
(grouping/separation 0, masking/agreement 1, loss/grouping 64,490 at paper size, 1934.7 of the total) that only rounding
errors leave, so its groups depend on the device, the batch split and the library: this config, alone among ours,
promises no independence of the number of devices.
"""

from ml_collections import ConfigDict

from configs import simfle


def get_config(trunk: str = "resnet50") -> ConfigDict:
    """The settings of simfle.py with the published tie, averages and initialisation of the grouping."""
    config = simfle.get_config(trunk)
    config.facemae.update(grouping_init="constant", tie="published", plain_in_averages=True)
    config.dtype = "float32"
    return config
