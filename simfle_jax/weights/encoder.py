"""The trained trunk as a file and as a callable: uint8 images in, features out."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

import simfle_jax
from simfle_jax import augment
from simfle_jax.config import Config, Model, digest
from simfle_jax.errors import UserError
from simfle_jax.models.resnet import ResNet, pool
from simfle_jax.weights import torch_names
from simfle_jax.weights.files import check_names, check_shapes, read_arrays

CHUNK = 64  # images that go through the trunk at once
LICENCE_NOTE = "Weights carry the conditions of the data they were trained on; research use of face data."


def export_encoder(path: Path, state: Any, config: Config, metadata: dict[str, str], branch: str = "online") -> None:
    """Writes a trunk of a TrainState under torchvision's `resnet50` names, with running statistics and without fc.

    branch: 'online' (what is probed) or 'target'. Written whole or not at all.
    """
    params, stats = (state.params["online"], state.stats["online"])
    if branch == "target":
        params, stats = state.target_params, state.target_stats
    trees = jax.device_get({"params": params["encoder"], "stats": stats["encoder"]})
    arrays = torch_names.to_torch(torch_names.torchvision_trunk(config.model), trees)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(arrays, temporary, metadata=_metadata(config, branch) | metadata)
    os.replace(temporary, path)


def _metadata(config: Config, branch: str) -> dict[str, str]:
    model = config.model
    architecture = {"stage_sizes": model.stage_sizes, "width": model.width, "last_stride": model.last_stride}
    return {
        "method": "SimFLE" if model.facemae else "BYOL",
        "branch": branch,
        "config": digest(config),
        "architecture": json.dumps(architecture),
        "size": str(config.views.size),
        "mean": json.dumps(config.data.mean),
        "std": json.dumps(config.data.std),
        "written_by": f"simfle-jax {simfle_jax.__version__}",
        "licence_note": LICENCE_NOTE,
    }


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
        self.hash = _hash(trees)
        self._features = jax.jit(self._from_uint8, static_argnames="spatial")

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
        return pool(self._map(images, arrays if arrays is not None else self.arrays)).astype(jnp.float32)

    def training_features(self, arrays: Any, images: jax.Array, statistics: Any) -> tuple[jax.Array, Any]:
        """Features in training mode, and the new BatchNorm statistics as `statistics(trunk)` gives them; traceable."""
        trunk = nnx.merge(self.graph, arrays["params"], arrays["stats"])
        return pool(trunk(images, train=True)), statistics(trunk)

    def _map(self, images: jax.Array, arrays: Any) -> jax.Array:
        return nnx.merge(self.graph, arrays["params"], arrays["stats"])(images, train=False)

    def _from_uint8(self, arrays: Any, images: jax.Array, spatial: bool) -> jax.Array:
        views = augment.normalise(augment.resize(augment.to_float(images), self.size), self.mean, self.std)
        found = self._map(views, arrays)
        return found if spatial else pool(found)

    def _in_chunks(self, images: np.ndarray, spatial: bool) -> np.ndarray:
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise UserError(f"images must be uint8 [B, H, W, 3], not {images.dtype} {list(images.shape)}")
        found = []
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            rows = min(CHUNK, 1 << (len(images) - 1).bit_length())  # few shapes, so few compilations
            padded = np.pad(chunk, ((0, rows - len(chunk)), (0, 0), (0, 0), (0, 0)))
            found.append(np.asarray(self._features(self.arrays, padded, spatial=spatial))[: len(chunk)])
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)


def _graph(model: Model) -> Any:
    network = nnx.eval_shape(lambda: _trunk(model, 0))
    return nnx.split(network, nnx.Param, nnx.BatchStat)[0]


def _trunk(model: Model, seed: int) -> ResNet:
    return ResNet(model.stage_sizes, model.width, model.last_stride, False, nnx.Rngs(seed))


def _trees(model: Model, seed: int) -> dict[str, Any]:
    parts: Any = nnx.split(_trunk(model, seed), nnx.Param, nnx.BatchStat)
    return {"params": nnx.to_pure_dict(parts[1]), "stats": nnx.to_pure_dict(parts[2])}


def _hash(trees: Any) -> str:
    digests = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        digests.update(np.ascontiguousarray(leaf).tobytes())
    return digests.hexdigest()[:16]


def load_encoder(path: str | os.PathLike) -> Encoder:
    """The encoder of a run's folder, or of a safetensors or torch file with torchvision's `resnet50` names.

    A file without our metadata is taken for a ResNet-50 at 224 pixels with SimFLE's mean and std.

    Raises:
        UserError: nothing there, or not such a file; says which names are missing or surplus.
    """
    path = Path(path)
    file = path / "encoder.safetensors" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(f"{path} holds no encoder.safetensors: is it the --workdir of a pre-training run?")
    arrays, metadata = read_arrays(file)
    metadata = DEFAULT_METADATA | metadata
    arrays = {name: array for name, array in arrays.items() if not name.startswith("fc.")}
    model = architecture(json.loads(metadata["architecture"]))
    entries = torch_names.torchvision_trunk(model)
    check_names(arrays, entries, file)
    trees = torch_names.to_ours(entries, arrays)
    check_shapes(trees, jax.eval_shape(lambda: _trees(model, 0)), file)
    return Encoder(trees, model, metadata)


DEFAULT_METADATA = {
    "architecture": '{"stage_sizes": [3, 4, 6, 3], "width": 64, "last_stride": 2}',
    "size": "224",
    "mean": "[0.5795, 0.4522, 0.3957]",
    "std": "[0.2769, 0.2473, 0.2412]",
}


def architecture(sizes: dict[str, Any]) -> Model:
    """A Model that describes a trunk alone; what concerns FaceMAE and the heads is empty."""
    return Model(
        stage_sizes=tuple(sizes["stage_sizes"]), width=sizes["width"], last_stride=sizes["last_stride"], head_hidden=0,
        head_out=0, facemae=False, masking="random", grouping_init="he", patch=0, vit_width=0, vit_depth=0, vit_heads=0,
        decoder_width=0, decoder_depth=0, decoder_heads=0, init_from="",
    )  # fmt: skip


def untrained_encoder(like: Encoder, seed: int) -> Encoder:
    """A fresh encoder of the same architecture with its initial BatchNorm statistics: the baseline of a probe."""
    metadata = {"architecture": "", "size": "", "mean": "", "std": ""}
    kept = {name: like.metadata[name] for name in metadata}
    return Encoder(jax.device_get(_trees(like.model, seed)), like.model, kept | {"method": "untrained", "seed": str(seed)})
