"""The trained trunk as a file and as a callable: uint8 images in, features out."""

import contextlib
import hashlib
import json
import os
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from simfle_jax import augment, compilation
from simfle_jax.config import TrunkSettings
from simfle_jax.data.read_back import parse_json
from simfle_jax.errors import UserError
from simfle_jax.models.trunks import Features, fresh_trunk, make_trunk, trunk_shapes
from simfle_jax.runs.at_hand import ALL, borrowed
from simfle_jax.storage import is_bucket
from simfle_jax.training.restore import recorded_facts, run_state
from simfle_jax.training.state import trunk_of
from simfle_jax.weights import torch_names
from simfle_jax.weights.encoder_file import architecture_text, check_preprocessing, describe
from simfle_jax.weights.files import check_names, check_shapes, check_values, read_arrays
from simfle_jax.weights.hub import WEIGHTS, fetch, is_hub_name
from simfle_jax.weights.hub_form import read_folder
from simfle_jax.weights.trunk import (
    BRANCHES,
    Arrays,
    architecture,
    find_trunk,
    infer_image_size,
    infer_trunk,
    is_published,
    is_trunk,
    with_known_heads,
)

HASH_VERSION = "v2-"  # before every hash; those without it are of versions that hashed the numbers alone
PREPROCESSING = ("architecture", "size", "standardise", "mean", "std")  # what decides how an image becomes features
OF_CLASSIFIERS = ("classes", "encoder_hash", "canvas")  # metadata that say nothing of a trunk alone
CHUNK = 64  # images that go through the trunk at once


class Encoder:
    """A frozen trunk in inference mode; of a ViT the features are the class token, the map the patches' tokens.

    encoder(images): uint8 [B, H, W, 3] RGB of any size to float32 features [B, dim]. The shorter side is resized to
    `size` (antialiased bilinear) and the centre cut out, as in evaluation. `apply` is the traceable core: normalised
    float images [B, S, S, 3] to features.
    """

    def __init__(self, trees: dict[str, Any], trunk: TrunkSettings, metadata: dict[str, str]):
        self.trunk, self.metadata = trunk, metadata
        self.size = int(metadata["size"])
        self.mean = tuple(json.loads(metadata["mean"]))
        self.std = tuple(json.loads(metadata["std"]))
        self.standardise = metadata["standardise"]
        self.dim = trunk.features
        self.arrays = jax.tree.map(jnp.asarray, trees)
        self.graph = _graph(trunk, self.size)

    @cached_property
    def hash(self) -> str:
        """Over all that decides the features of a uint8 image: arrays with names and shapes, strides, preprocessing."""
        described = architecture_text(self.trunk), self.size, self.standardise, self.mean, self.std
        return f"{HASH_VERSION}{_digest(self.torch_arrays(), described)}"

    @cached_property
    def legacy_hash(self) -> str:
        """What the first versions recorded as the hash: over the numbers of the arrays alone."""
        return _legacy_digest(self.arrays)

    def is_called(self, hash_: str) -> bool:
        """Whether a recorded hash, of this version or of one before, is that of this encoder.

        A hash of before says nothing of strides and preprocessing; `records.check_encoder` looks at them, too.
        """
        return hash_ == (self.hash if hash_.startswith(HASH_VERSION) else self.legacy_hash)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.features(images)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Pooled features [B, dim], float32, of uint8 images [B, H, W, 3]."""
        return self._in_chunks(images, spatial=False)

    def feature_map(self, images: np.ndarray) -> np.ndarray:
        """The last feature map [B, h, w, dim], float32, of uint8 images [B, H, W, 3]."""
        return self._in_chunks(images, spatial=True)

    def preprocess(self, images: jax.Array) -> jax.Array:
        """float images [B, S, S, 3] in 0..1 as the trunk takes them; traceable."""
        return augment.preprocess(images, self.standardise, self.mean, self.std)

    def apply(self, images: jax.Array, arrays: Any = None) -> jax.Array:
        """Normalised images [B, S, S, 3] to features [B, dim]; traceable. Pass `arrays` to keep them out of the program."""
        return _pooled(self.graph, self.arrays if arrays is None else arrays, images)

    def apply_map(self, images: jax.Array, arrays: Any = None) -> jax.Array:
        """The same to the last feature map [B, h, w, dim]."""
        return _features(self.graph, self.arrays if arrays is None else arrays, images).map.astype(jnp.float32)

    def torch_arrays(self) -> Arrays:
        """The trunk under torchvision's (a ViT: timm's) names, in torch's layout, without classifier."""
        return torch_names.to_torch(torch_names.trunk_entries(self.trunk), jax.device_get(self.arrays))

    def training_features(self, arrays: Any, images: jax.Array, statistics: Any) -> tuple[Features, Any]:
        """Features in training mode, and the new BatchNorm statistics as `statistics(trunk)` gives them; traceable."""
        trunk = nnx.merge(self.graph, arrays["params"], arrays["stats"])
        return trunk(images, train=True), statistics(trunk)

    def retrained(self, trees: dict[str, Any]) -> "Encoder":
        """An encoder of these arrays, which fine-tuning made of this one's."""
        method = f"{self.metadata.get('method', 'unknown')}, fine-tuned"
        return Encoder(trees, self.trunk, self.metadata | {"method": method})

    def _in_chunks(self, images: np.ndarray, spatial: bool) -> np.ndarray:
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise UserError(f"images must be uint8 [B, H, W, 3], not {images.dtype} {list(images.shape)}")
        found = []
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            rows = min(CHUNK, 1 << (len(images) - 1).bit_length())  # few shapes, so few compilations
            padded = np.pad(chunk, ((0, rows - len(chunk)), (0, 0), (0, 0), (0, 0)))
            output = _from_uint8(
                self.graph, self.arrays, padded, self.size, self.standardise, self.mean, self.std, spatial
            )
            found.append(np.asarray(output)[: len(chunk)])
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)


# Compiled once for all encoders of an architecture.


def _features(graph: Any, arrays: Any, images: jax.Array) -> Features:
    # Accelerators would round the factors of products, and one encoder would have other features on each kind of them.
    with jax.default_matmul_precision("float32"):
        return nnx.merge(graph, arrays["params"], arrays["stats"])(images, train=False)


@partial(jax.jit, static_argnames="graph")
def _pooled(graph: Any, arrays: Any, images: jax.Array) -> jax.Array:
    return _features(graph, arrays, images).pooled.astype(jnp.float32)


@partial(jax.jit, static_argnames=("graph", "size", "standardise", "mean", "std", "spatial"))
def _from_uint8(
    graph: Any, arrays: Any, images: jax.Array, size: int, standardise: str, mean: tuple[float, ...],
    std: tuple[float, ...], spatial: bool,
) -> jax.Array:  # fmt: skip
    views = augment.preprocess(augment.resize(augment.to_float(images), size), standardise, mean, std)
    found = _features(graph, arrays, views)
    return found.map if spatial else found.pooled


def _graph(trunk: TrunkSettings, size: int) -> Any:
    network = nnx.eval_shape(lambda: make_trunk(trunk, size, False, nnx.Rngs(0)))
    return nnx.split(network, nnx.Param, nnx.BatchStat)[0]


def _digest(arrays: Arrays, described: Any) -> str:
    digests = hashlib.sha256(json.dumps(described).encode())
    for name, array in arrays.items():
        shape = array.shape or (1,)  # of a count, as it was written when the first of these hashes were recorded
        digests.update(f"{name} {array.dtype} {shape}\n".encode())
        digests.update(array.tobytes())
    return digests.hexdigest()[:16]


def _legacy_digest(trees: Any) -> str:
    # Kept as it was: probes of before name their encoder by it, and they must go on working.
    digests = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        digests.update(np.ascontiguousarray(leaf).tobytes())
    return digests.hexdigest()[:16]


def load_encoder(path: str | os.PathLike, branch: str = "online", step: int | None = None, prefix: str = "") -> Encoder:
    """The encoder of a run's folder, of a safetensors or torch file, or of a model hub.

    path: a folder with encoder.safetensors (the folder of a run or of a probe) or with model.safetensors (the form of
        hubs), also in a bucket; hf://OWNER/NAME@REVISION, which huggingface_hub fetches or has in its cache; a file with torchvision's `resnet50`
        or timm's `vit_small_patch16_224` names, with or without heads, under whatever prefix; or a published
        checkpoint. A file without our metadata is taken for images of 224 pixels (a ViT: those of its positions) with
        SimFLE's mean and std.
    branch: 'online', which is what is probed, or 'target' (of a run's newest checkpoint, or a published checkpoint).
        A file of one trunk gives that one; `metadata['branch']` of the encoder says which it is.
    step: of an older checkpoint of a run, where it keeps them (`keep_checkpoints`).
    prefix: which trunk of a file that holds several, as in 'module.base_encoder'; '.' is the one without a prefix.

    Raises:
        UserError: nothing there, or not such a file; says which names are missing or surplus, which arrays are of
            another size or not finite, or that the file holds the other branch only.
    """
    if branch not in BRANCHES:
        raise UserError(f"branch = {branch!r} must be one of {', '.join(BRANCHES)}")
    if is_hub_name(str(path)):
        path = fetch(str(path))
    if is_bucket(path):
        with borrowed(os.fspath(path), ALL if step is not None else int(branch == "target")) as place:
            return load_encoder(place, branch, step, prefix)
    path = Path(path)
    in_hub_form = (path / WEIGHTS).is_file()
    if step is not None and (not path.is_dir() or in_hub_form):
        raise UserError(f"step = {step} is for the folder of a run; {path} is none")
    if in_hub_form:
        return from_arrays(*read_folder(path), branch, path / WEIGHTS, prefix)
    if path.is_dir() and (branch == "target" or step is not None):
        return _of_run(path, branch, step)
    file = path / "encoder.safetensors" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(f"{path} holds no encoder.safetensors: is it the --workdir of a pre-training run?")
    return from_arrays(*read_arrays(file), branch, file, prefix)


def from_arrays(arrays: Arrays, metadata: dict[str, str], branch: str, where: str | Path, prefix: str = "") -> Encoder:
    """The encoder in named arrays and their metadata, as `load_encoder` finds it; `where` is for messages."""
    metadata = {key: value for key, value in metadata.items() if key not in OF_CLASSIFIERS}
    held = metadata.get("branch", "online")
    found = find_trunk(arrays, branch, where, held, prefix)
    trunk = _recorded_trunk(metadata, len(found), where)
    trunk = trunk or with_known_heads(infer_trunk(found, where), arrays, where)
    entries = torch_names.trunk_entries(trunk)
    check_names(found, entries, where)
    known = DEFAULT_METADATA | {"architecture": architecture_text(trunk), "size": str(infer_image_size(trunk, found))}
    check_preprocessing(known | metadata, where)
    size = int(metadata.get("size") or known["size"])
    if trunk.kind == "vit" and size > 16 * infer_image_size(trunk, found):  # making so many would take all memory
        raise UserError(f"{where}: its metadata say images of {size} pixels, its positions are of another number")
    check_shapes(found, entries, trunk_shapes(trunk, size), where)
    check_values(found, where)
    if is_published(arrays):
        known |= {"method": "SimFLE"} | metadata | {"branch": branch}
    else:
        known |= metadata | {"branch": held}
    return Encoder(torch_names.to_ours(entries, found), trunk, known)


def _recorded_trunk(metadata: dict[str, str], most_blocks: int, where: str | Path) -> TrunkSettings | None:
    if "architecture" not in metadata:
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        trunk = architecture(parse_json(metadata["architecture"]))
        if is_trunk(trunk, most_blocks):
            return trunk
    raise UserError(f"{where}: its metadata `architecture` is not one that this program writes")


def _of_run(folder: Path, branch: str, step: int | None) -> Encoder:
    config, state = run_state(folder, step)
    return Encoder(
        jax.device_get(trunk_of(state, branch)), config.trunk, describe(config, branch) | recorded_facts(folder, state)
    )


DEFAULT_METADATA = {
    "architecture": '{"stage_sizes": [3, 4, 6, 3], "width": 64, "last_stride": 2}',
    "size": "224",
    "mean": "[0.5795, 0.4522, 0.3957]",
    "std": "[0.2769, 0.2473, 0.2412]",
    "standardise": "dataset",
}


def untrained_encoder(like: Encoder, seed: int) -> Encoder:
    """A fresh encoder of the same architecture with its initial statistics: the baseline of a probe."""
    kept = {name: like.metadata[name] for name in PREPROCESSING}
    trees = jax.jit(lambda: fresh_trunk(like.trunk, seed, like.size), compiler_options=compilation.once())()
    return Encoder(jax.device_get(trees), like.trunk, kept | {"method": "untrained", "seed": str(seed)})
