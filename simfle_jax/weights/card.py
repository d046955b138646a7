"""A model card: what an encoder was trained on and how, what its probes gave, what it must not be used for."""

import json
from collections.abc import Iterable
from typing import Any

from simfle_jax.config import Config, flatten, upgrade, with_defaults
from simfle_jax.config.trunks import trunk_name
from simfle_jax.data.photographs.crop import DESCRIPTIONS
from simfle_jax.weights.trunk import architecture

SCORES = ("accuracy", "balanced_accuracy", "macro_f1")
SETTINGS = ("method", "epochs", "batch_size", "optimizer.name", "optimizer.lr", "optimizer.weight_decay",
            "optimizer.ema_decay", "dtype", "seed")  # fmt: skip
FACEMAE_SETTINGS = ("facemae.masking", "facemae.mask_ratio", "facemae.n_groups", "facemae.tie", "facemae.alpha", "facemae.beta",
                    "facemae.plain_in_averages")  # fmt: skip

USES = """## Use

For features of aligned or cropped face images, as a starting point for research on facial expression recognition:
linear probes, fine-tuning, comparison of pre-training methods.

It must not be used to

- infer a person's inner feelings, intentions, honesty, fitness or health: it sees facial configurations, and these are
  not reliable signs of what somebody feels;
- rate, select, monitor or police people (hiring, schooling, insurance, policing, borders, work places), or identify them;
- decide anything about a person without their informed consent and a human who answers for it.

Accuracy differs between groups of people (age, sex, skin, culture) and kinds of images when the training images do; it was
not measured here. Measure it on the people concerned before any use.

## Licence

The weights carry the conditions of the data they were trained on; many face data sets allow research only."""


def model_card(metadata: dict[str, str], config: dict[str, Any] | None, probes: list[dict[str, Any]]) -> str:
    """Markdown, from an encoder's metadata, its run's settings (None when unknown) and results of probes."""
    parts = [_title(metadata), _input(metadata), _training(metadata, config), _probes(probes), USES]
    return "\n\n".join(parts) + "\n"


def _title(metadata: dict[str, str]) -> str:
    name = trunk_name(architecture(json.loads(metadata["architecture"])))
    method = metadata.get("method", "unknown method")
    return f"# {name}, pre-trained by {method}\n\nA face encoder; the pre-training used no labels. Branch: {metadata.get('branch', 'online')}."


def _input(metadata: dict[str, str]) -> str:
    size, mean, std = (metadata[key] for key in ("size", "mean", "std"))
    scaled = f"minus mean {mean}, divided by standard deviation {std}"
    if metadata.get("standardise") == "image":
        scaled = "each image and channel minus its own mean, divided by its own standard deviation (of n, not n - 1) plus 0.02"
    crop = metadata.get("crop", "")
    faces = [f"the images of the pre-training were cropped to the face: {DESCRIPTIONS.get(crop, crop)}"] if crop else []
    return _section("Input", [
        *faces,
        f"RGB images, shorter side resized to {size} pixels (antialiased bilinear), centre {size} x {size} cut out",
        f"scaled to 0..1, {scaled}",
    ])  # fmt: skip


def _training(metadata: dict[str, str], config: dict[str, Any] | None) -> str:
    facts = [f"step {metadata.get('step', 'unknown')}", f"settings `{metadata.get('config', 'unknown')}` (digest)"]
    facts.append(
        f"listing of the images `{metadata.get('data_fingerprint', 'unknown')}` (SHA-256 over names and sizes)"
    )
    if "written_by" in metadata:
        facts.append(f"written by {metadata['written_by']}, versions {metadata.get('versions', 'unknown')}")
    if config:
        settings = flatten(with_defaults(Config, upgrade(config)))
        data, start = config["data"], settings["trunk.init_from"]
        images = ", ".join(data["sources"]) or f"{data['path']} ({data['source']})"
        facts.append(
            f"images: `{images}`, canvas {data['canvas'] or data.get('fitted')}, views {config['views']['size']}"
        )
        facts.append(f"started from {f'the weights in `{start}`' if start else 'random weights'}")
        facts += [f"{name.split('.')[-1]}: {settings[name]}" for name in SETTINGS]
        has_facemae = settings["method"] == "simfle"
        facts += [f"{name.split('.')[-1]}: {settings[name]}" for name in FACEMAE_SETTINGS] if has_facemae else []
    return _section("Training", facts)


def _probes(probes: list[dict[str, Any]]) -> str:
    if not probes:
        return "## Probes\n\nNone were given."
    parts = ["## Probes\n\nOn frozen features; `finetune` trains the trunk too."]
    classes, points = ([each for each in probes if tells_classes(each) == told] for told in (True, False))
    if classes:
        parts.append(
            _table(["data", "protocol", "images", *(name.replace("_", " ") for name in SCORES)], map(_row, classes))
        )
    if points:
        head = ["landmarks", "head", "images", "mean error, % of the distance of the outer eye corners"]
        parts.append(_table(head, map(_landmarks, points)))
    return "\n\n".join(parts)


def tells_classes(results: dict[str, Any]) -> bool:
    """Whether a probe's results are those of classes; else they are of landmarks."""
    return "classes" in results


def protocol_title(results: dict[str, Any]) -> str:
    """The protocol, and how few labels its scores are of."""
    shares = [row["share"] for row in results.get("shares") or ()]
    share = max(shares) if shares else results.get("share", 1.0)
    return results["protocol"] + (f", {100 * share:g} % of the labels" if share < 1 else "")


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _row(results: dict[str, Any]) -> list[str]:
    name = results.get("dataset") or f"{len(results['classes'])} classes"
    scores = [f"{results[score]:.4f}" for score in SCORES]
    return [name + _start(results), protocol_title(results), str(results["count"]), *scores]


def _landmarks(results: dict[str, Any]) -> list[str]:
    error = 100 * results["outer_eyes"]["nme"]
    return [f"{results['points']} points{_start(results)}", results["head"], str(results["count"]), f"{error:.2f}"]


def _start(results: dict[str, Any]) -> str:
    return " (untrained)" if results.get("untrained") else ""


def _section(title: str, facts: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {fact}" for fact in facts)
