"""Residual networks in torchvision's v1.5 layout: of basic blocks (ResNet-18, 34) or of bottlenecks (50, 101)."""

from typing import Any

import jax
from flax import nnx

from simfle_jax.kernels.pooling import max_pool
from simfle_jax.kernels.residual import add_relu
from simfle_jax.models.layers import BatchNorm, Conv
from simfle_jax.models.trunks.features import Features


class BasicBlock(nnx.Module):
    """3x3 - 3x3 with a shortcut, stride on the first; the output has `width` channels."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs):
        self.conv1 = Conv(inputs, width, 3, stride, rngs)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv(width, width, 3, 1, rngs)
        self.bn2 = BatchNorm(width)
        self.project = stride != 1 or inputs != width
        if self.project:
            self.downsample_conv = Conv(inputs, width, 1, stride, rngs)
            self.downsample_bn = BatchNorm(width)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = jax.nn.relu(self.bn1(self.conv1(x), train))
        y = self.bn2(self.conv2(y), train)
        if self.project:
            x = self.downsample_bn(self.downsample_conv(x), train)
        return add_relu(x, y)


class Bottleneck(nnx.Module):
    """1x1 - 3x3 - 1x1 with a shortcut, stride on the 3x3; the output has four times `width` channels."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, rngs: nnx.Rngs):
        self.conv1 = Conv(inputs, width, 1, 1, rngs)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv(width, width, 3, stride, rngs)
        self.bn2 = BatchNorm(width)
        self.conv3 = Conv(width, 4 * width, 1, 1, rngs)
        self.bn3 = BatchNorm(4 * width)
        self.project = stride != 1 or inputs != 4 * width
        if self.project:
            self.downsample_conv = Conv(inputs, 4 * width, 1, stride, rngs)
            self.downsample_bn = BatchNorm(4 * width)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = jax.nn.relu(self.bn1(self.conv1(x), train))
        y = jax.nn.relu(self.bn2(self.conv2(y), train))
        y = self.bn3(self.conv3(y), train)
        if self.project:
            x = self.downsample_bn(self.downsample_conv(x), train)
        return add_relu(x, y)


class ResNet(nnx.Module):
    """Images [B, H, W, 3], normalised, to a feature map [B, H / 32, W / 32, 2048] and its mean (sizes of ResNet-50).

    `stage_sizes` counts the blocks of each stage; `last_stride` is the stride of the last one.
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], stage_sizes: tuple[int, ...], width: int, last_stride: int,
        remat: bool, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.block, self.remat = block, remat
        self.conv1 = Conv(3, width, 7, 2, rngs)
        self.bn1 = BatchNorm(width)
        stages = []
        inputs = width
        for i, size in enumerate(stage_sizes):
            planes = width * 2**i
            stride = 1 if i == 0 else last_stride if i == len(stage_sizes) - 1 else 2
            blocks = []
            for j in range(size):
                blocks.append(block(inputs, planes, stride if j == 0 else 1, rngs))
                inputs = block.expansion * planes
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def __call__(self, x: jax.Array, train: bool) -> Features:
        x = jax.nn.relu(self.bn1(self.conv1(x), train))
        x = max_pool(x)
        apply: Any = nnx.remat(self.block.__call__, static_argnums=2) if self.remat else self.block.__call__
        for stage in self.stages:
            for block in stage:
                x = apply(block, x, train)
        return Features(x, x.mean((1, 2)))
