"""Probe of an encoder: by default the paper's linear one, with the paper's settings.

    python probe.py --config=configs/probe.py --config.encoder=RUN --config.data.path=DIR --workdir=PROBE

DIR holds train/CLASS/IMAGE and val/CLASS/IMAGE. Every epoch puts new random crops of all training images through the
trunk: 100 epochs of RAF-DB's 12,271 images are 1.2 million ResNet-50 forward passes, minutes on a GPU and a day on a CPU.
--config.protocol=cached computes the features once, without crops and flips, and takes a hundredth of that; so do
logistic, knn and lowlabel (docs/evaluation.md says which one is for what, and how finetune trains the trunk too).
--config.untrained=True probes a fresh network of the encoder's architecture: the number to compare with.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings; what each means stands in simfle_jax/evaluation/settings.py."""
    config = ConfigDict()
    config.encoder = ""
    config.untrained = False
    config.dataset = ""
    config.features = ""
    config.protocol = "linear"
    config.seed = 0
    config.seeds = ()
    config.epochs = 100
    config.batch_size = 1024
    config.lr = 0.5
    config.momentum = 0.9
    config.balance = "none"
    config.select_on = "val"
    config.holdout = 0.1
    config.eval_only = False
    config.cached = ConfigDict({"lrs": ()})
    config.knn = ConfigDict({"k": (20,), "temperature": (0.07,)})
    config.lowlabel = ConfigDict({"on": "logistic", "shares": (0.01, 0.05, 0.1, 0.25), "draws": 5})
    config.finetune = _finetune()
    config.landmarks = ConfigDict({"head": "linear", "file": "", "lr": 1e-3})
    config.data = _data()
    return config


def _finetune() -> ConfigDict:
    tune = ConfigDict()
    tune.optimizer = "adamw"
    tune.lr = 1e-3
    tune.weight_decay = 0.05
    tune.warmup_epochs = 5.0
    tune.layer_decay = 0.75
    tune.label_smoothing = 0.1
    tune.mixup = 0.0
    tune.share = 1.0
    return tune


def _data() -> ConfigDict:
    data = ConfigDict()
    data.path = ""
    data.source = "folder"
    data.val = ()
    data.canvas = 0
    data.threads = 0
    data.max_bad_fraction = 0.1
    data.train_list = ""
    data.val_list = ""
    data.classes = "same"
    data.votes = ""
    data.groups = ""
    return data
