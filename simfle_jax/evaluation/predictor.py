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
    """The inverse of `to_arrays`; raises KeyError where something is missing, ValueError where it does not fit."""
    if metadata.get("predictor") != "neighbours":
        weight, bias = jnp.asarray(arrays["fc.weight"]), jnp.asarray(arrays["fc.bias"])
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ValueError(f"fc.weight is {weight.shape}, fc.bias {bias.shape}")
        return Linear(weight.T, bias)
    bank, labels = jnp.asarray(arrays["bank"]), jnp.asarray(arrays["bank_labels"])
    n_classes, k, temperature = int(metadata["n_classes"]), int(metadata["k"]), float(metadata["temperature"])
    if bank.ndim != 2 or not len(bank) or labels.shape != bank.shape[:1] or k < 1 or not temperature > 0:
        raise ValueError(f"bank is {bank.shape}, its labels {labels.shape}, k = {k}, temperature = {temperature}")
    return Neighbours(bank, labels, n_classes, k, temperature)
