"""One table between our arrays and the names that PyTorch programs give them.

Every entry ties a torch name to the place of the same array in our state and says how to turn one layout into the
other. The order of the entries is the order of the published checkpoint's state dict, which is part of that format.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from simfle_jax.config import Config, TrunkSettings
from simfle_jax.models.transformer import positions

Path = tuple[str | int, ...]


class Layout(NamedTuple):
    """How one kind of array is turned from torch's layout to ours and back."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
    """One array of a torch state dict.

    tree: 'params', 'stats', 'target_params' or 'target_stats' of a TrainState; '' for what we compute anew.
    path: keys into that tree. layout: the change of axes. value: what stands in a torch file where tree is ''.
    """

    name: str
    tree: str
    path: Path
    layout: Layout
    value: np.ndarray | None = None


def _same(x: np.ndarray) -> np.ndarray:
    return x


VECTOR = Layout(_same, _same)
POSITIONS = Layout(lambda x: x[0], lambda x: x[None])  # 1 x tokens x width <-> tokens x width
LINEAR = Layout(np.transpose, np.transpose)  # out x in <-> in x out
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW <-> HWIO
POINTWISE = Layout(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])  # O x I x 1 x 1 <-> in x out


def _patch_layout(patch: int) -> Layout:
    """O x 3 x P x P <-> (row, column, channel) x out."""
    return Layout(
        lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
        lambda x: x.reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1),
    )


def _affine(name: str, path: Path, layout: Layout = LINEAR) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", "params", (*path, "kernel"), layout)
    yield Entry(f"{name}.bias", "params", (*path, "bias"), VECTOR)


def _layer_norm(name: str, path: Path) -> Iterator[Entry]:
    yield Entry(f"{name}.weight", "params", (*path, "scale"), VECTOR)
    yield Entry(f"{name}.bias", "params", (*path, "bias"), VECTOR)


def _batch_norm(name: str, path: Path) -> Iterator[Entry]:
    yield from _layer_norm(name, path)
    yield Entry(f"{name}.running_mean", "stats", (*path, "mean"), VECTOR)
    yield Entry(f"{name}.running_var", "stats", (*path, "var"), VECTOR)
    yield Entry(f"{name}.num_batches_tracked", "", (), VECTOR, np.zeros((), np.int64))


def _resnet(trunk: TrunkSettings, path: Path, conv: str, bn: str, stage: Callable[[int], str]) -> Iterator[Entry]:
    yield Entry(f"{conv}.weight", "params", (*path, "conv1", "kernel"), CONV)
    yield from _batch_norm(bn, (*path, "bn1"))
    inputs = trunk.width
    for i, blocks in enumerate(trunk.stage_sizes):
        outputs = (4 if trunk.kind == "bottleneck" else 1) * trunk.width * 2**i
        for j in range(blocks):
            at, shortcut = (*path, "stages", i, j), j == 0 and _projects(trunk, i, inputs, outputs)
            yield from _block(f"{stage(i)}.{j}", at, 3 if trunk.kind == "bottleneck" else 2, shortcut)
            inputs = outputs


def _projects(trunk: TrunkSettings, stage: int, inputs: int, outputs: int) -> bool:
    strided = stage > 0 and not (stage == len(trunk.stage_sizes) - 1 and trunk.last_stride == 1)
    return strided or inputs != outputs


def _block(name: str, path: Path, convolutions: int, shortcut: bool) -> Iterator[Entry]:
    for i in range(1, convolutions + 1):
        yield Entry(f"{name}.conv{i}.weight", "params", (*path, f"conv{i}", "kernel"), CONV)
        yield from _batch_norm(f"{name}.bn{i}", (*path, f"bn{i}"))
    if shortcut:
        yield Entry(f"{name}.downsample.0.weight", "params", (*path, "downsample_conv", "kernel"), CONV)
        yield from _batch_norm(f"{name}.downsample.1", (*path, "downsample_bn"))


def _vit(trunk: TrunkSettings) -> Iterator[Entry]:
    yield Entry("cls_token", "params", ("cls_token",), VECTOR)
    yield Entry("pos_embed", "stats", ("positions",), POSITIONS)
    yield from _affine("patch_embed.proj", ("patch_embed",), _patch_layout(trunk.patch))
    yield from _transformer_blocks("blocks", trunk.stage_sizes[0], ("transformer",))
    yield from _layer_norm("norm", ("transformer", "norm"))


def trunk_entries(trunk: TrunkSettings) -> list[Entry]:
    """The trunk without its classifier; paths start at the trunk.

    A ResNet has the names of torchvision's (and timm's) `resnet50`, a ViT those of timm's `vit_small_patch16_224`.
    """
    if trunk.kind == "vit":
        return list(_vit(trunk))
    return list(_resnet(trunk, (), "conv1", "bn1", lambda i: f"layer{i + 1}"))


def _head(name: str, path: Path) -> Iterator[Entry]:
    yield from _affine(f"{name}.net.0", (*path, "hidden"))
    yield from _batch_norm(f"{name}.net.1", (*path, "bn"))
    yield from _affine(f"{name}.net.3", (*path, "out"))


def _network(name: str, trunk: TrunkSettings, path: Path) -> Iterator[Entry]:
    encoder = f"{name}.encoder"
    yield from _resnet(trunk, (*path, "encoder"), f"{encoder}.0", f"{encoder}.1", lambda i: f"{encoder}.{i + 4}")
    yield from _head(f"{name}.projection", (*path, "projection"))


def _target(trunk: TrunkSettings) -> Iterator[Entry]:
    for entry in _network("target_network", trunk, ()):
        yield entry._replace(tree=f"target_{entry.tree}" if entry.tree else "")


def _transformer_blocks(name: str, depth: int, path: Path) -> Iterator[Entry]:
    for i in range(depth):
        block, at = f"{name}.{i}", (*path, "blocks", i)
        yield from _layer_norm(f"{block}.norm1", (*at, "norm1"))
        yield from _affine(f"{block}.attn.qkv", (*at, "attn", "qkv"))
        yield from _affine(f"{block}.attn.proj", (*at, "attn", "proj"))
        yield from _layer_norm(f"{block}.norm2", (*at, "norm2"))
        yield from _affine(f"{block}.mlp.fc1", (*at, "fc1"))
        yield from _affine(f"{block}.mlp.fc2", (*at, "fc2"))


def autoencoder(config: Config, name: str, path: Path) -> Iterator[Entry]:
    """The masked autoencoder under MAE's names."""
    m, grid = config.facemae, config.grid
    yield Entry(f"{name}.cls_token", "params", (*path, "cls_token"), VECTOR)
    yield Entry(f"{name}.pos_embed", "", (), VECTOR, positions(m.width, grid)[None])
    yield Entry(f"{name}.mask_token", "params", (*path, "mask_token"), VECTOR)
    yield Entry(f"{name}.decoder_pos_embed", "", (), VECTOR, positions(m.decoder_width, grid)[None])
    yield from _affine(f"{name}.patch_embed.proj", (*path, "patch_embed"), _patch_layout(m.patch))
    yield from _transformer_blocks(f"{name}.blocks", m.depth, (*path, "encoder"))
    yield from _layer_norm(f"{name}.norm", (*path, "encoder", "norm"))
    yield from _affine(f"{name}.decoder_embed", (*path, "decoder_embed"))
    yield from _transformer_blocks(f"{name}.decoder_blocks", m.decoder_depth, (*path, "decoder"))
    yield from _layer_norm(f"{name}.decoder_norm", (*path, "decoder", "norm"))
    yield from _affine(f"{name}.decoder_pred", (*path, "decoder_pred"))


def channel_grouping(name: str, path: Path) -> Iterator[Entry]:
    """The channel grouping under the published names."""
    yield from _affine(f"{name}.convolution.0", path, POINTWISE)
    yield from _batch_norm(f"{name}.convolution.1", (*path, "bn"))


def published(config: Config) -> list[Entry]:
    """The whole published checkpoint in its own order: 942 entries at paper size."""
    has_facemae = config.method == "simfle"
    entries = [*_network("online_network", config.trunk, ("online",)), *_target(config.trunk)]
    if has_facemae and config.facemae.masking == "semantic":
        entries += channel_grouping("facemae.semantic_masking.channel_grouping", ("facemae", "channel_grouping"))
    if has_facemae:
        entries += autoencoder(config, "facemae.autoencoder", ("facemae", "autoencoder"))
    entries += _head("predictor", ("predictor",))
    if has_facemae and config.facemae.alpha > 0:
        entries += [*_head("distil_GFL", ("distil_gfl",)), *_head("distil_FFL", ("distil_ffl",))]
    return entries


def get(tree: Any, path: Path) -> Any:
    """The leaf of nested dicts at a path."""
    for key in path:
        tree = tree[key]
    return tree


def put(tree: dict, path: Path, leaf: Any) -> None:
    """Sets the leaf of nested dicts at a path, making the dicts on the way."""
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def torch_shape(entry: Entry, shapes: dict[str, Any]) -> tuple[int, ...]:
    """The shape that an entry has in a torch file; `shapes` are our trees of arrays or of shapes."""
    if entry.value is not None:
        return entry.value.shape
    ours = np.broadcast_to(np.False_, get(shapes[entry.tree], entry.path).shape)  # takes no memory
    return entry.layout.to_torch(ours).shape


def to_ours(entries: list[Entry], arrays: dict[str, Any]) -> dict[str, dict]:
    """Our trees ('params', 'stats', ...) from a torch state dict of numpy arrays, keyed by torch names."""
    trees: dict[str, dict] = {}
    for entry in entries:
        if entry.tree:
            put(trees.setdefault(entry.tree, {}), entry.path, entry.layout.to_ours(arrays[entry.name]))
    return trees


def to_torch(entries: list[Entry], trees: dict[str, Any]) -> dict[str, np.ndarray]:
    """A torch state dict of numpy arrays, in the table's order, from our trees."""
    arrays = {}
    for entry in entries:
        ours = entry.value if entry.value is not None else np.asarray(get(trees[entry.tree], entry.path))
        arrays[entry.name] = np.asarray(entry.layout.to_torch(ours), order="C")  # which keeps the shape () of a count
    return arrays
