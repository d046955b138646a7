"""A run, a probe or a file with a trunk as the folder that model hubs know, and what its card tells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simfle_jax.encoder import Encoder, load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.classifier import holds_classes, load_classifier
from simfle_jax.evaluation.landmarks.probe import FILE as LANDMARKS
from simfle_jax.evaluation.records import read_results
from simfle_jax.training.restore import recorded
from simfle_jax.weights.hub import WEIGHTS
from simfle_jax.weights.hub_form import write_folder


def write_hub_folder(
    source: Path, target: Path, branch: str = "online", probes: Sequence[Path] = (), encoder: str = ""
) -> str:
    """Writes `target` in the hub's form and says in a line what is in it.

    source: the folder of a run; that of a probe, or a file with one, which give the whole classifier; or a file with a
        trunk.
    probes: folders of probes of this encoder, for the card. encoder: where a probe's is now, when it was moved.

    Raises:
        UserError: `target` holds something, or a probe is of another encoder.
    """
    if (source / "probe.safetensors").is_file() or holds_classes(source):
        classifier = load_classifier(source, encoder)
        arrays, metadata, model = classifier.torch_arrays(), classifier.metadata(), classifier.encoder
        what = f"classifier of {', '.join(classifier.classes)}"
    else:
        model = load_encoder(source, branch)
        arrays, metadata = model.torch_arrays(), model.metadata
        what = f"{metadata.get('branch', 'online')} trunk, {model.dim} features"
    config, results = card_facts(source, model, [*probes, *_own_results(source)])
    metadata = {"data_fingerprint": (config or {}).get("data_fingerprint", "unknown")} | metadata
    write_folder(target, arrays, metadata, config, results)
    return f"{target}: {what}, {len(results)} probes on its card"


def card_facts(
    source: Path, encoder: Encoder, probes: Sequence[Path]
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The recorded settings of a run, None where `source` is none, and the results of probes of this encoder.

    Raises:
        UserError: a probe is not finished, or is of another encoder.
    """
    found = []
    for place in probes:
        results = read_results(place)
        if results is None:
            raise UserError(f"{place} holds no results.json: is it the --workdir of a finished probe?")
        probed = results["encoder_hash"], results.get("tuned_encoder_hash", results["encoder_hash"])
        if not any(map(encoder.is_called, probed)) and not results["untrained"]:
            raise UserError(f"{place} probed encoder {results['encoder_hash']}, the card is about {encoder.hash}")
        found.append(results)
    return (recorded(source) if _is_run(source) else None), found


def _is_run(source: Path) -> bool:
    others = (WEIGHTS, "probe.safetensors", LANDMARKS)  # their config.json is another one
    return (source / "config.json").exists() and not any((source / name).exists() for name in others)


def _own_results(source: Path) -> list[Path]:
    is_probe = any((source / name).is_file() for name in ("probe.safetensors", LANDMARKS))
    return [source] if is_probe and read_results(source) else []
