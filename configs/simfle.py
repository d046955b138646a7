"""SimFLE with the paper's settings and a channel grouping that works; the default.

    python train.py --config=configs/simfle.py --config.data.path=FACES --workdir=RUN

197.6 M parameters, 100 epochs at batch 256, float32. On GPUs and TPUs add --config.dtype=bfloat16. The grouping starts
from a seeded initialisation (the published constant one is a saddle that only rounding errors leave: see README), and
groups are the same on any number of devices. Every metric to expect is described in README.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings; what each means stands in simfle_jax/config.py."""
    config = ConfigDict()
    config.seed = 0
    config.epochs = 100
    config.batch_size = 256
    config.optimizer = "sgd"
    config.lr = 0.05
    config.momentum = 0.9
    config.weight_decay = 1e-4
    config.ema_decay = 0.99
    config.mask_ratio = 0.75
    config.n_groups = 32
    config.alpha = 0.3
    config.beta = 0.03
    config.temperature = 4.0
    config.dtype = "float32"
    config.accumulate = 1
    config.remat = False
    config.shard_state = False
    config.log_steps = 10
    config.checkpoint_steps = 0
    config.keep_checkpoints = 2
    config.tensorboard = False
    config.wandb = False
    config.model = _model()
    config.views = _views()
    config.data = _data()
    return config


def _model() -> ConfigDict:
    model = ConfigDict()
    model.stage_sizes = (3, 4, 6, 3)
    model.width = 64
    model.last_stride = 2
    model.head_hidden = 4096
    model.head_out = 256
    model.facemae = True
    model.masking = "semantic"
    model.grouping_init = "grouped"
    model.patch = 16
    model.vit_width = 768
    model.vit_depth = 12
    model.vit_heads = 12
    model.decoder_width = 512
    model.decoder_depth = 8
    model.decoder_heads = 16
    model.init_from = ""
    return model


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
    return views


def _data() -> ConfigDict:
    data = ConfigDict()
    data.path = ""
    data.source = "folder"
    data.sources = ()
    data.canvas = 224
    data.mean = (0.5795, 0.4522, 0.3957)
    data.std = (0.2769, 0.2473, 0.2412)
    data.threads = 0
    data.max_bad_fraction = 0.01
    data.cache = ""
    return data
