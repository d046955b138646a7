"""The trained trunk as a file and as a callable: uint8 images in, features out."""

import hashlib
import json
import os
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import simfle_jax
from simfle_jax import augment, compilation
from simfle_jax.config import Config, Model, digest
from simfle_jax.errors import UserError
from simfle_jax.models.resnet import ResNet, pool
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import check_names, check_shapes, check_values, read_arrays, write_safetensors
from simfle_jax.weights.trunk import BRANCHES, Arrays, architecture, find_trunk, infer_model, is_published

HASH_VERSION = "v2-"  # before every hash; those without it are of versions that hashed the numbers alone
PREPROCESSING = ("architecture", "size", "mean", "std")  # what the metadata tell of how an image becomes features
CHUNK = 64  # images that go through the trunk at once
LICENCE_NOTE = "Weights carry the conditions of the data they were trained on; research use of face data."


def export_encoder(path: Path, state: Any, config: Config, facts: dict[str, str], branch: str = "online") -> None:
    """Writes a trunk of a TrainState under torchvision's `resnet50` names, with running statistics and without fc.

    facts: what the settings do not tell: `step`, `data_fingerprint`. branch: 'online' (what is probed) or 'target'.
    Written whole or not at all.
    """
    params, stats = (state.params["online"], state.stats["online"])
    if branch == "target":
        params, stats = state.target_params, state.target_stats
    trees = jax.device_get({"params": params["encoder"], "stats": stats["encoder"]})
    arrays = torch_names.to_torch(torch_names.torchvision_trunk(config.model), trees)
    write_safetensors(path, arrays, describe(config, branch) | facts)


def describe(config: Config, branch: str = "online") -> dict[str, str]:
    """Metadata of weights that a run with these settings made."""
    return {
        "method": "SimFLE" if config.model.facemae else "BYOL",
        "branch": branch,
        "config": digest(config),
        "architecture": _architecture(config.model),
        "size": str(config.views.size),
        "mean": json.dumps(config.data.mean),
        "std": json.dumps(config.data.std),
        "written_by": f"simfle-jax {simfle_jax.__version__}",
        "versions": json.dumps({"jax": jax.__version__, "flax": flax.__version__, "numpy": np.__version__}),
        "licence_note": LICENCE_NOTE,
    }


def _architecture(model: Model) -> str:
    return json.dumps({"stage_sizes": model.stage_sizes, "width": model.width, "last_stride": model.last_stride})


class Encoder:
    """A frozen trunk in inference mode.

    encoder(images): uint8 [B, H, W, 3] RGB of any size to float32 features [B, dim]. The shorter side is resized to
    `size` (antialiased bilinear) and the centre cut out, as in evaluation. `apply` is the traceable core: normalised
    float images [B, S, S, 3] to features.
    """

    def __init__(self, trees: dict[str, Any], model: Model, metadata: dict[str, str]):
        self.model, self.metadata = model, metadata
        self.size = int(metadata["size"])
        self.mean = tuple(json.loads(metadata["mean"]))
        self.std = tuple(json.loads(metadata["std"]))
        self.dim = model.features
        self.arrays = jax.tree.map(jnp.asarray, trees)
        self.graph = _graph(model)

    @cached_property
    def hash(self) -> str:
        """Over all that decides the features of a uint8 image: arrays with names and shapes, strides, preprocessing."""
        return f"{HASH_VERSION}{_digest(self.torch_arrays(), self.model, (self.size, self.mean, self.std))}"

    @cached_property
    def legacy_hash(self) -> str:
        """What versions before 0.2 recorded as the hash: over the numbers of the arrays alone."""
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

    def apply(self, images: jax.Array, arrays: Any = None) -> jax.Array:
        """Normalised images [B, S, S, 3] to features [B, dim]; traceable. Pass `arrays` to keep them out of the program."""
        return _pooled(self.graph, self.arrays if arrays is None else arrays, images)

    def torch_arrays(self) -> Arrays:
        """The trunk under torchvision's names, in torch's layout, without `fc`."""
        return torch_names.to_torch(torch_names.torchvision_trunk(self.model), jax.device_get(self.arrays))

    def training_features(self, arrays: Any, images: jax.Array, statistics: Any) -> tuple[jax.Array, Any]:
        """Features in training mode, and the new BatchNorm statistics as `statistics(trunk)` gives them; traceable."""
        trunk = nnx.merge(self.graph, arrays["params"], arrays["stats"])
        return pool(trunk(images, train=True)), statistics(trunk)

    def _in_chunks(self, images: np.ndarray, spatial: bool) -> np.ndarray:
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise UserError(f"images must be uint8 [B, H, W, 3], not {images.dtype} {list(images.shape)}")
        found = []
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            rows = min(CHUNK, 1 << (len(images) - 1).bit_length())  # few shapes, so few compilations
            padded = np.pad(chunk, ((0, rows - len(chunk)), (0, 0), (0, 0), (0, 0)))
            output = _from_uint8(self.graph, self.arrays, padded, self.size, self.mean, self.std, spatial)
            found.append(np.asarray(output)[: len(chunk)])
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)


# Compiled once for all encoders of an architecture.


def _map(graph: Any, arrays: Any, images: jax.Array) -> jax.Array:
    return nnx.merge(graph, arrays["params"], arrays["stats"])(images, train=False)


@partial(jax.jit, static_argnames="graph")
def _pooled(graph: Any, arrays: Any, images: jax.Array) -> jax.Array:
    return pool(_map(graph, arrays, images)).astype(jnp.float32)


@partial(jax.jit, static_argnames=("graph", "size", "mean", "std", "spatial"))
def _from_uint8(
    graph: Any, arrays: Any, images: jax.Array, size: int, mean: tuple[float, ...], std: tuple[float, ...],
    spatial: bool,
) -> jax.Array:  # fmt: skip
    views = augment.normalise(augment.resize(augment.to_float(images), size), mean, std)
    found = _map(graph, arrays, views)
    return found if spatial else pool(found)


def _graph(model: Model) -> Any:
    network = nnx.eval_shape(lambda: _trunk(model, 0))
    return nnx.split(network, nnx.Param, nnx.BatchStat)[0]


def _trunk(model: Model, seed: int) -> ResNet:
    return ResNet(model.stage_sizes, model.width, model.last_stride, False, nnx.Rngs(seed))


def _trees(model: Model, seed: int) -> dict[str, Any]:
    parts: Any = nnx.split(_trunk(model, seed), nnx.Param, nnx.BatchStat)
    return {"params": nnx.to_pure_dict(parts[1]), "stats": nnx.to_pure_dict(parts[2])}


def trunk_shapes(model: Model) -> dict[str, Any]:
    """'params' and 'stats' of a trunk as shapes; no array is made."""
    return jax.eval_shape(lambda: _trees(model, 0))


def _digest(arrays: Arrays, model: Model, preprocessing: Any) -> str:
    digests = hashlib.sha256(json.dumps([_architecture(model), preprocessing]).encode())
    for name, array in arrays.items():
        digests.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digests.update(array.tobytes())
    return digests.hexdigest()[:16]


def _legacy_digest(trees: Any) -> str:
    # Kept as it was: probes of before name their encoder by it, and they must go on working.
    digests = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        digests.update(np.ascontiguousarray(leaf).tobytes())
    return digests.hexdigest()[:16]


def load_encoder(path: str | os.PathLike, branch: str = "online", step: int | None = None, prefix: str = "") -> Encoder:
    """The encoder of a run's folder, or of a safetensors or torch file.

    path: a folder with encoder.safetensors (the folder of a run or of a probe); a file with torchvision's `resnet50`
        names, with or without heads, under whatever prefix; or a published checkpoint. A file without our metadata is
        taken for images of 224 pixels with SimFLE's mean and std.
    branch: 'online', which is what is probed, or 'target' (of a run's newest checkpoint, or a published checkpoint).
        A file of one trunk gives that one; `metadata['branch']` of the encoder says which it is.
    step: of an older checkpoint of a run, where it keeps them (`keep_checkpoints`).
    prefix: which trunk of a file that holds several, as in 'module.base_encoder'; '.' is the one without a prefix.

    Raises:
        UserError: nothing there, or not such a file; says which names are missing or surplus, which arrays are of
            another size or not finite, or that the file holds the other branch only.
    """
    path = Path(path)
    if branch not in BRANCHES:
        raise UserError(f"branch = {branch!r} must be one of {', '.join(BRANCHES)}")
    if step is not None and not path.is_dir():
        raise UserError(f"step = {step} is for the folder of a run; {path} is none")
    if path.is_dir() and (branch == "target" or step is not None):
        return _of_run(path, branch, step)
    file = path / "encoder.safetensors" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(f"{path} holds no encoder.safetensors: is it the --workdir of a pre-training run?")
    return from_arrays(*read_arrays(file), branch, file, prefix)


def from_arrays(arrays: Arrays, metadata: dict[str, str], branch: str, where: str | Path, prefix: str = "") -> Encoder:
    """The encoder in named arrays and their metadata, as `load_encoder` finds it; `where` is for messages."""
    held = metadata.get("branch", "online")
    trunk = find_trunk(arrays, branch, where, held, prefix)
    model = _recorded_model(metadata, where) or infer_model(trunk, where)
    entries = torch_names.torchvision_trunk(model)
    check_names(trunk, entries, where)
    check_shapes(trunk, entries, trunk_shapes(model), where)
    check_values(trunk, where)
    known = DEFAULT_METADATA | {"architecture": _architecture(model)}
    if is_published(arrays):
        known |= {"method": "SimFLE"} | metadata | {"branch": branch}
    else:
        known |= metadata | {"branch": held}
    return Encoder(torch_names.to_ours(entries, trunk), model, known)


def _recorded_model(metadata: dict[str, str], where: str | Path) -> Model | None:
    if "architecture" not in metadata:
        return None
    try:
        return architecture(json.loads(metadata["architecture"]))
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{where}: its metadata `architecture` is not one that this program writes") from None


def _of_run(folder: Path, branch: str, step: int | None) -> Encoder:
    # Imported here: only this needs a run's whole state, and all of training with it.
    from simfle_jax.training.restore import recorded_facts, run_state

    config, state = run_state(folder, step)
    if branch == "target":
        params, stats = state.target_params, state.target_stats
    else:
        params, stats = state.params["online"], state.stats["online"]
    trees = jax.device_get({"params": params["encoder"], "stats": stats["encoder"]})
    return Encoder(trees, config.model, describe(config, branch) | recorded_facts(folder, state))


DEFAULT_METADATA = {
    "architecture": '{"stage_sizes": [3, 4, 6, 3], "width": 64, "last_stride": 2}',
    "size": "224",
    "mean": "[0.5795, 0.4522, 0.3957]",
    "std": "[0.2769, 0.2473, 0.2412]",
}


def untrained_encoder(like: Encoder, seed: int) -> Encoder:
    """A fresh encoder of the same architecture with its initial BatchNorm statistics: the baseline of a probe."""
    kept = {name: like.metadata[name] for name in PREPROCESSING}
    trees = jax.jit(lambda: _trees(like.model, seed), compiler_options=compilation.once())()
    return Encoder(jax.device_get(trees), like.model, kept | {"method": "untrained", "seed": str(seed)})
