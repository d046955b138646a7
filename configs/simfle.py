"""SimFLE with the paper's sizes, a channel grouping that works and a tie that reaches the encoder; the default.

    python train.py --config=configs/simfle.py --config.data.path=FACES --workdir=RUN
    python train.py --config=configs/simfle.py:resnet18 --config.data.path=FACES --workdir=RUN

After the colon: a trunk (resnet18, resnet34, resnet50 (default), resnet101, vit_small_patch16_224,
vit_base_patch16_224). 197.6 M parameters with ResNet-50, 100 epochs at batch 256, float32. On GPUs and TPUs add
--config.dtype=bfloat16. The grouping starts from a seeded initialisation (the published constant one is a saddle that
only rounding errors leave: docs/grouping.md), and groups are the same on any number of devices.
"""

from ml_collections import ConfigDict

from simfle_jax.config import named_trunk


def get_config(trunk: str = "resnet50") -> ConfigDict:
    """The settings; what each means stands in simfle_jax/config/settings.py."""
    config = ConfigDict()
    config.method = "simfle"
    config.seed = 0
    config.epochs = 100
    config.batch_size = 256
    config.dtype = "float32"
    config.accumulate = 1
    config.remat = False
    config.shard_state = False
    config.log_steps = 10
    config.checkpoint_steps = 0
    config.keep_checkpoints = 2
    config.tensorboard = False
    config.wandb = False
    config.report_every = 0
    config.report_images = False
    config.trunk = ConfigDict(named_trunk(trunk) | {"init_from": ""})
    config.heads = ConfigDict({"hidden": 4096, "out": 256, "temperature": 0.2})
    config.facemae = _facemae()
    config.optimizer = _optimizer()
    config.views = _views()
    config.data = _data()
    config.monitor = ConfigDict({"path": "", "epochs": 1, "protocol": "knn"})
    return config


def _facemae() -> ConfigDict:
    facemae = ConfigDict()
    facemae.masking = "semantic"
    facemae.grouping_init = "grouped"
    facemae.mask_ratio = 0.75
    facemae.n_groups = 32
    facemae.alpha = 0.3
    facemae.beta = 0.03
    facemae.temperature = 4.0
    facemae.patch = 16
    facemae.width = 768
    facemae.depth = 12
    facemae.heads = 12
    facemae.decoder_width = 512
    facemae.decoder_depth = 8
    facemae.decoder_heads = 16
    facemae.tie = "patch"
    facemae.plain_in_averages = False
    return facemae


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.name = "sgd"
    optimizer.lr = 0.05
    optimizer.momentum = 0.9
    optimizer.weight_decay = 1e-4
    optimizer.ema_decay = 0.99
    optimizer.warmup_epochs = 0.0
    optimizer.schedule = "epoch"
    optimizer.ema_schedule = "constant"
    optimizer.decay = "all"
    optimizer.trust = 0.001
    optimizer.predictor_lr = 1.0
    optimizer.clip = 0.0
    return optimizer


def _views() -> ConfigDict:
    views = ConfigDict()
    views.size = 224
    views.plain_size = 112
    views.scale = (0.08, 1.0)
    views.ratio = (3 / 4, 4 / 3)
    views.flip = 0.5
    views.jitter = 0.8
    views.brightness = 0.8
    views.contrast = 0.8
    views.saturation = 0.8
    views.hue = 0.2
    views.gray = 0.2
    views.blur = (0.1, 2.0)
    views.light = 0.0
    views.standardise = "dataset"
    return views


def _data() -> ConfigDict:
    data = ConfigDict()
    data.path = ""
    data.source = "folder"
    data.sources = ()
    data.canvas = 0
    data.mean = (0.5795, 0.4522, 0.3957)
    data.std = (0.2769, 0.2473, 0.2412)
    data.threads = 0
    data.max_bad_fraction = 0.01
    data.cache = ""
    data.listing = ""
    return data
