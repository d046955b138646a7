"""What a fitted probe is, whatever protocol fitted it: classes of features, and arrays that can be kept in a file."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from simfle_jax.evaluation.linear import Linear
from simfle_jax.evaluation.nearest import Neighbours

Arrays = dict[str, np.ndarray]

Predictor = Linear | Neighbours  # both have logits, probabilities [n, K] and predict [n] of features [n, D]


def to_arrays(predictor: Predictor) -> tuple[Arrays, dict[str, str]]:
    """A predictor as named arrays and metadata, for a safetensors file.

    A layer is fc.weight [K, D] and fc.bias [K], as torch.nn.Linear names and lays them out. Neighbours need all
    their images: bank [n, D], float32, and bank_labels [n].
    """
    if isinstance(predictor, Linear):
        weight = np.ascontiguousarray(np.asarray(predictor.kernel).T)
        return {"fc.weight": weight, "fc.bias": np.asarray(predictor.bias)}, {}
    facts = {"k": str(predictor.k), "temperature": repr(predictor.temperature)}
    arrays = {"bank": np.asarray(predictor.bank), "bank_labels": np.asarray(predictor.labels, np.int32)}
    return arrays, {"predictor": "neighbours", "n_classes": str(predictor.n_classes)} | facts


def from_arrays(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Predictor:
    """The inverse of `to_arrays`; raises KeyError where something is missing."""
    if metadata.get("predictor") != "neighbours":
        return Linear(jnp.asarray(arrays["fc.weight"].T), jnp.asarray(arrays["fc.bias"]))
    bank, labels = jnp.asarray(arrays["bank"]), jnp.asarray(arrays["bank_labels"])
    n_classes, k, temperature = int(metadata["n_classes"]), int(metadata["k"]), float(metadata["temperature"])
    return Neighbours(bank, labels, n_classes, k, temperature)
