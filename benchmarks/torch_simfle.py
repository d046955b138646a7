"""A whole training step in PyTorch's own layers, for timing only: the method's passes, shapes and update.

Views are made elsewhere, as the published program's workers make them, and parameters start as PyTorch's layers do.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simfle_jax.config import Config
from simfle_jax.weights.torch_resnet import BasicBlock, Bottleneck, ResNet

BLOCKS: dict[str, type[BasicBlock | Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def head(inputs: int, config: Config) -> nn.Sequential:
    m = config.heads
    return nn.Sequential(nn.Linear(inputs, m.hidden), nn.BatchNorm1d(m.hidden), nn.ReLU(), nn.Linear(m.hidden, m.out))


def transformer(width: int, depth: int, heads: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, depth, nn.LayerNorm(width, 1e-6), enable_nested_tensor=False)


class Network(nn.Module):
    """Trunk and projection."""

    def __init__(self, config: Config):
        super().__init__()
        m = config.trunk
        self.encoder = ResNet(m.stage_sizes, m.width, m.last_stride, block=BLOCKS[m.kind])
        self.projection = head(m.features, config)

    def features(self, x: Tensor) -> Tensor:
        """The feature map [B, C, h, w] of images [B, 3, H, W]."""
        x = self.encoder.maxpool(torch.relu(self.encoder.bn1(self.encoder.conv1(x))))
        for stage in self.encoder.stages:
            x = self.encoder.get_submodule(stage)(x)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.features(x).mean((2, 3))
        return y, self.projection(y)


class FaceMAE(nn.Module):
    """Channel grouping, semantic masking and the masked autoencoder."""

    def __init__(self, config: Config):
        super().__init__()
        m, channels = config.facemae, config.trunk.features
        self.m = m
        self.config = config
        pixels = 3 * m.patch**2
        self.grouping = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.embed, self.decoder_embed = nn.Linear(pixels, m.width), nn.Linear(m.width, m.decoder_width)
        self.tokens = nn.ParameterList(nn.Parameter(torch.zeros(1, 1, w)) for w in (m.width, m.decoder_width))
        self.encoder = transformer(m.width, m.depth, m.heads)
        self.decoder = transformer(m.decoder_width, m.decoder_depth, m.decoder_heads)
        self.predict = nn.Linear(m.decoder_width, pixels)

    def forward(self, features: Tensor, plain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the plain images' feature map and pixels: reconstruction loss, grouping loss, mean latent [B, width]."""
        groups, channels, batch = self.config.facemae.n_groups, self.config.trunk.features, len(plain)
        maps = self.grouping(features)
        unit = F.normalize(maps.float().flatten(2) + 1e-3, dim=2)
        matrix = torch.einsum("bcn,bdn->cd", unit, unit) / batch
        same = torch.block_diag(*[torch.ones(channels // groups, channels // groups, device=plain.device)] * groups)
        grouping = (1e-3 * (matrix - same).square().sum() / (channels / 512) ** 2) ** 2
        of_group = maps.detach().unflatten(1, (groups, -1)).sum(2)
        drawn = of_group[torch.arange(batch), torch.randint(groups, (batch,), device=plain.device)][:, None]
        scores = F.avg_pool2d(F.interpolate(drawn.float(), plain.shape[2:], mode="bilinear"), self.m.patch).flatten(1)
        order = scores.argsort(1, descending=True)
        kept = order[:, : self.config.kept_patches]
        patches = F.unfold(plain, self.m.patch, stride=self.m.patch).swapaxes(1, 2)
        embedded = self.embed(patches)
        chosen = embedded.gather(1, kept[..., None].expand(-1, -1, embedded.shape[2]))
        latent = self.encoder(torch.cat([self.tokens[0].to(chosen.dtype).expand(batch, -1, -1), chosen], 1))
        x = self.decoder_embed(latent)
        blanks = self.tokens[1].to(x.dtype).expand(batch, patches.shape[1] - kept.shape[1], -1)
        shuffled = torch.cat([x[:, 1:], blanks], 1)
        restored = shuffled.gather(1, order.argsort(1)[..., None].expand_as(shuffled))
        predicted = self.predict(self.decoder(torch.cat([x[:, :1], restored], 1)))[:, 1:].float()
        target = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()
        masked = torch.ones_like(scores).scatter(1, kept, 0)
        error = (predicted - target).square().mean(2)
        return (error * masked).sum() / masked.sum(), grouping, latent[:, 1:].mean(1)


class Step:
    """Call it with two views and the plain images [B, 3, size, size] to train by one step.

    layout: of the convolutions' kernels; give the images in the same.
    """

    def __init__(self, config: Config, device: torch.device, layout: torch.memory_format):
        m, features = config.facemae, config.trunk.features
        self.config, self.device = config, device
        parts = {"online": Network(config), "predictor": head(config.heads.out, config)}
        if config.method == "simfle":
            parts |= {"facemae": FaceMAE(config), "gfl": head(features, config), "ffl": head(m.width, config)}
        self.model = nn.ModuleDict(parts).to(device).to(memory_format=layout).train()  # type: ignore
        self.target = copy.deepcopy(self.model["online"]).requires_grad_(False)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 1e-3, config.optimizer.momentum, weight_decay=1e-4)

    def __call__(self, first: Tensor, second: Tensor, plain: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            loss = self.loss(first, second, plain)
        loss.backward()
        self.optimizer.step()
        online, target = (list(network.parameters()) for network in (self.model["online"], self.target))
        torch._foreach_lerp_(target, [x.detach() for x in online], 1 - self.config.optimizer.ema_decay)

    def loss(self, first: Tensor, second: Tensor, plain: Tensor) -> Tensor:
        model, temperature = self.model, self.config.facemae.temperature
        with torch.no_grad():
            targets = self.target(second)[1].float(), self.target(first)[1].float()
        seen = [model["online"](view) for view in (first, second)]
        pairs = [(model["predictor"](z).float(), q) for (_, z), q in zip(seen, targets)]
        loss = torch.stack([(2 - 2 * F.cosine_similarity(p, q)).mean() for p, q in pairs]).sum()
        if self.config.method != "simfle":
            return loss
        with torch.no_grad():
            features = model["online"].features(plain)
        reconstruction, grouping, latent = model["facemae"](features, plain)
        vectors = [*(model["gfl"](y).float() for y, _ in seen), model["ffl"](latent).float()]
        mean = torch.stack(vectors).mean(0).detach()
        teacher = F.softmax(mean / temperature, 1)
        terms = [F.kl_div(F.log_softmax(k / temperature, 1), teacher, reduction="batchmean") for k in vectors]
        distillation = temperature**2 * torch.stack(terms).sum()
        return loss + reconstruction + self.config.facemae.alpha * distillation + self.config.facemae.beta * grouping
