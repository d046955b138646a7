"""The settings of a pre-training run as frozen, typed dataclasses, a room each.

The files in configs/ hold the values, these classes their types and meaning. A field that came later than its
neighbours has a default, which means "as before": runs that an earlier version recorded go on.
"""

import dataclasses

WITHOUT_FACEMAE = ("byol", "moco_v3", "simsiam")  # methods for which its settings mean nothing


@dataclasses.dataclass(frozen=True)
class TrunkSettings:
    """Sizes of the backbone; `simfle_jax.config.trunks` names the usual ones."""

    kind: str  # 'bottleneck' (ResNet-50, 101), 'basic' (ResNet-18, 34) or 'vit'
    stage_sizes: tuple[int, ...]  # blocks per stage; (3, 4, 6, 3) is ResNet-50; a ViT has one stage
    width: int  # channels of a ResNet's stem, or of a ViT's tokens
    last_stride: int  # stride of a ResNet's last stage, 2 as in torchvision
    patch: int  # side of a ViT's patch in pixels
    heads: int  # attention heads of a ViT's block
    init_from: str  # '' or a file with trunk weights under torchvision's or timm's names to start from

    @property
    def features(self) -> int:
        """Channels of the last feature map, 2048 in ResNet-50."""
        if self.kind == "vit":
            return self.width
        return self.width * (4 if self.kind == "bottleneck" else 1) * 2 ** (len(self.stage_sizes) - 1)

    @property
    def stride(self) -> int:
        """Pixels per cell of the last feature map, 32 in ResNet-50."""
        return self.patch if self.kind == "vit" else 4 * 2 ** (len(self.stage_sizes) - 2) * self.last_stride


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """Sizes of the MLP heads: projector, predictor and distillation heads."""

    hidden: int  # width inside of every head
    out: int  # width of projections and distilled vectors
    temperature: float = 0.2  # of MoCo v3's softmax


@dataclasses.dataclass(frozen=True)
class FaceMAESettings:
    """The masked autoencoder on the plain face, and how its patches are chosen."""

    masking: str  # 'semantic', or as its baselines 'random', and 'block': patches around a random point stay
    grouping_init: str  # start of the channel grouping: 'grouped', 'he', or 'constant' as published
    mask_ratio: float  # share of the patches that are hidden
    n_groups: int  # of channels
    alpha: float  # weight of the distillation loss, whatever the tie; 0 turns it off
    beta: float  # weight of the grouping loss
    temperature: float  # of the distillation
    patch: int  # side of a patch in pixels
    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    tie: str = "published"  # between FaceMAE and the encoder, or 'variance', 'target' or 'patch' (docs/learning.md)
    plain_in_averages: bool = True  # whether BatchNorm's running averages take the plain images too, as published


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How parameters move, the target network's included."""

    name: str  # 'sgd' as published, 'adam', 'adamw' or 'lars'
    lr: float  # for a batch of 256; scaled linearly with the batch
    momentum: float  # of sgd and lars
    weight_decay: float
    ema_decay: float  # share that the target network keeps at each step
    warmup_epochs: float = 0.0  # the rate rises linearly from 0 over them, then falls by its schedule
    schedule: str = "epoch"  # half a cosine to 0: 'epoch', constant within each as published, or 'step'
    ema_schedule: str = "constant"  # as published, or 'cosine': ema_decay rises to 1 at the end
    decay: str = "all"  # what weight decay and LARS's scaling act on: 'all' as published, or 'kernels' alone
    trust: float = 0.001  # LARS's trust coefficient
    predictor_lr: float = 1.0  # the predictor's rate over the others'
    clip: float = 0.0  # largest norm of the gradient; 0: no clipping


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """How the two augmented views and the plain image are made, on the device."""

    size: int  # side of the augmented views in pixels
    plain_size: int  # side of the plain image that FaceMAE masks and restores
    scale: tuple[float, float]  # share of the image's area that a random crop keeps
    ratio: tuple[float, float]  # aspect of a random crop, width / height
    flip: float  # probability
    jitter: float  # probability of the colour jitter
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray: float  # probability
    blur: tuple[float, float]  # sigma of the Gaussian blur in pixels, drawn uniformly; (0, 0) turns it off
    light: float = 0.0  # deviation of the slopes of a random lighting field, in logarithms from middle to edge; 0: none
    standardise: str = "dataset"  # by data.mean and data.std as published, or by each 'image' and channel's own


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where images come from and what the host does with them."""

    path: str
    source: str  # 'folder', 'array_record', or 'tfds:NAME[/CONFIG][:SPLIT]...' (docs/data.md)
    sources: tuple[str, ...]  # several mixed, each 'SOURCE@PATH=WEIGHT', in place of source and path; () for one
    canvas: int  # side of the uint8 squares for the device, which images are resized to; 0: one that fits the data
    mean: tuple[float, float, float]  # RGB in [0, 1]
    std: tuple[float, float, float]
    threads: int  # decoding threads per process; 0: one per core
    max_bad_fraction: float  # share of unreadable images above which a run stops
    cache: str  # '' or a file to keep decoded canvases in
    listing: str = ""  # '' or a file to keep the names of a folder's images in, for data sets of millions
    fitted: int = 0  # the side that a run with canvas 0 found for its data; recorded and not to be set


@dataclasses.dataclass(frozen=True)
class MonitorSettings:
    """A probe of the encoder during training, on labelled images; its score is a metric."""

    path: str = ""  # '' for none, or a folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE
    epochs: int = 1  # between two probes
    protocol: str = "knn"  # or 'logistic'


@dataclasses.dataclass(frozen=True)
class Config:
    """One pre-training run."""

    seed: int
    epochs: int
    batch_size: int  # of the whole job, whatever the number of devices
    dtype: str  # compute type, 'float32' or 'bfloat16'; parameters, statistics and losses stay float32
    accumulate: int  # micro-batches per step; BatchNorm, grouping, MoCo's negatives and ties see one at a time
    remat: bool  # recompute activations in the backward pass: less memory, about a third more compute
    shard_state: bool  # spread parameters and optimizer state over the devices; the numbers are the same
    log_steps: int
    checkpoint_steps: int  # 0: at the end of every epoch
    keep_checkpoints: int
    tensorboard: bool
    wandb: bool
    trunk: TrunkSettings
    heads: HeadSettings
    facemae: FaceMAESettings
    optimizer: OptimizerSettings
    views: ViewSettings
    data: DataSettings
    report_every: int = 0  # steps between two refreshes of RUN/report.html while training goes on; 0: never
    report_images: bool = False  # in it, TensorBoard and W&B images of other sources than generated faces, too
    method: str = "simfle"  # or 'byol', 'simsiam', 'moco_v3', 'mae'
    monitor: MonitorSettings = MonitorSettings()

    @property
    def canvas(self) -> int:
        """Side of the squares that the device gets; before a run has seen its data, that of the views."""
        return self.data.canvas or self.data.fitted or self.largest_view

    @property
    def own_sizes(self) -> bool:
        """Whether images lie in their squares at their own size; otherwise each is resized to fill its square."""
        return self.data.canvas == 0

    @property
    def least_side(self) -> int:
        """Pixels that an image keeps which is too large for its square and halved; 0: images fill their squares."""
        return self.largest_view if self.own_sizes else 0

    @property
    def largest_view(self) -> int:
        """Side of the largest image that the networks see."""
        return max(self.views.size, self.views.plain_size)

    @property
    def image_size(self) -> int:
        """Side of the images that the exported trunk is made for: of the views, or of the plain image in MAE."""
        return self.views.plain_size if self.method == "mae" else self.views.size

    @property
    def grid(self) -> int:
        """Patches along one side of the plain image, 7 in the paper."""
        return self.views.plain_size // self.facemae.patch

    @property
    def kept_patches(self) -> int:
        """Patches that the encoder of FaceMAE sees, 12 of 49 in the paper."""
        return int(self.grid**2 * (1 - self.facemae.mask_ratio))

    @property
    def feature_grid(self) -> int:
        """Cells along one side of the trunk's map of the plain image, 4 in the paper."""
        return -(-self.views.plain_size // self.trunk.stride)
