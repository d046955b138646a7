"""A probe of landmark localisation from its settings to results.json: how far a head's points are from the true ones.

Points are in shares of the central square of an image while a head learns and is judged, and in pixels in files.
"""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from simfle_jax.data.opening import open_source
from simfle_jax.data.sources import Source, WithPoints
from simfle_jax.encoder import Encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import probe_folder, results
from simfle_jax.evaluation.landmarks import errors, frozen, pictures, tuning
from simfle_jax.evaluation.landmarks.data import Learned, Marked, marked
from simfle_jax.evaluation.landmarks.heads import Head, from_arrays, to_arrays
from simfle_jax.evaluation.landmarks.reading import NPZ, Table, check_apart, points_in, read_table
from simfle_jax.evaluation.landmarks.schemes import Scheme, scheme_of
from simfle_jax.evaluation.results import Results
from simfle_jax.evaluation.sets import refuse_overlap
from simfle_jax.evaluation.settings import Probe, trains_trunk, upgraded
from simfle_jax.runs import folder as folders
from simfle_jax.runs import peers
from simfle_jax.runs.at_hand import borrowed
from simfle_jax.runs.environment import environment
from simfle_jax.runs.mirror import shown
from simfle_jax.storage import is_bucket, joined
from simfle_jax.weights.files import save_arrays, write_safetensors
from simfle_jax.writing import writing_whole

FILE = "landmarks.safetensors"


class Points(NamedTuple):
    """Where the true points are, and their digest."""

    table: Table
    scheme: Scheme

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256("\n".join(self.table.names).encode(errors="surrogateescape"))
        digest.update(np.ascontiguousarray(self.table.points).data)
        return digest.hexdigest()


def open_marked(probe: Probe) -> tuple[dict[str, Source], Points]:
    """The images of train and val, and their true points; raises UserError."""
    sources = {name: open_source(probe.data.source, probe.data.path, split=name) for name in ("train", "val")}
    refuse_overlap(sources["train"], sources["val"])
    points = open_points(probe, sources)
    check_apart(points.table, {split: map(source.name, range(len(source))) for split, source in sources.items()})
    return sources, points


def open_points(probe: Probe, sources: dict[str, Source]) -> Points:
    """The file that the settings name, what the sources hold, or what lies in the data's folder; raises UserError."""
    holding = {split: source for split, source in sources.items() if isinstance(source, WithPoints)}
    if holding and not probe.landmarks.file:
        table = points_in(holding, probe.data.source)  # type: ignore[arg-type]
        return Points(table, scheme_of(table.points.shape[1], table.where))
    place = probe.landmarks.file or joined(probe.data.path, NPZ)
    if not probe.landmarks.file and not is_bucket(place) and not os.path.exists(place):
        place = probe.data.path
    with borrowed(place) as file:
        table = read_table(file)._replace(where=place)
    return Points(table, scheme_of(table.points.shape[1], table.where))


def train(probe: Probe, encoder: Encoder, folder: Path) -> Results:
    """Fits the head and reports on val; a finished folder is only read."""
    sources, points = peers.together(lambda: open_marked(probe))
    fingerprints = {name: source.fingerprint for name, source in sources.items()} | {"points": points.fingerprint}
    identity = probe_folder.identity(probe, encoder, fingerprints, folder)
    del identity["landmarks"]["file"]
    return probe_folder.once(
        folder, identity, lambda: _train(probe, encoder, folder, sources, points, fingerprints), summary, _upgraded
    )


def _train(
    probe: Probe,
    encoder: Encoder,
    folder: Path,
    sources: dict[str, Source],
    points: Points,
    fingerprints: dict[str, str],
) -> Results:
    learn = tuning.learn if trains_trunk(probe) else frozen.learn
    learned = learn(probe, encoder, sources["train"], points.table, points.scheme, folder)
    held = marked(sources["val"], "val", points.table, learned.encoder, probe, flip=False)
    told, bad = report(probe, learned.head, learned.shape, held, points.scheme), learned.bad | held.bad
    told |= learned.facts | _about(probe, encoder, bad)
    told |= {"train_count": learned.train_count, "data_fingerprint": fingerprints}
    tuned = learned.encoder if trains_trunk(probe) else None
    told |= {"tuned_encoder_hash": tuned.hash} if tuned else {}
    if jax.process_index() == 0:  # the others know the same
        if tuned:
            write_safetensors(folder / "encoder.safetensors", tuned.torch_arrays(), tuned.metadata)
        save(folder, learned, probe)
        _write(folder, "results", told, learned.head, held, points.scheme, bad)
    return told


def evaluate(probe: Probe, encoder: Encoder, folder: Path) -> Results:
    """The head in `folder` on the val images: writes evaluation.json beside what training wrote."""
    head, shape, facts = load(folder)
    hash_ = facts["encoder_hash"]
    probe = dataclasses.replace(
        probe, data=dataclasses.replace(probe.data, canvas=probe.data.canvas or int(facts["canvas"]))
    )
    if not encoder.is_called(hash_):
        raise UserError(
            f"the head in {folder} belongs to encoder {hash_}, {probe.encoder} is {encoder.hash}: give its own"
        )
    source = open_source(probe.data.source, probe.data.path, split="val")
    points = open_points(probe, {"val": source})
    if len(points.scheme.mirrored) != len(shape):
        raise UserError(f"the head in {folder} gives {len(shape)} points, {points.table.where} has "
                        f"{len(points.scheme.mirrored)} of an image")  # fmt: skip
    held = marked(source, "val", points.table, encoder, probe, flip=False)
    told = report(probe, head, shape, held, points.scheme) | _about(probe, encoder, held.bad)
    told |= {"head": facts["head"]}
    told |= {"data_fingerprint": {"val": source.fingerprint, "points": points.fingerprint}}
    results.write_evaluation(folder, lambda: _write(folder, "evaluation", told, head, held, points.scheme, held.bad))
    return told


def report(probe: Probe, head: Head, shape: np.ndarray, held: Marked, scheme: Scheme) -> Results:
    """Scores of the head and of the mean shape, of the owners' subsets and of the parts of the face."""
    flat = np.flatnonzero((errors.eye_distance(held.points, scheme) == 0) | (errors.box_size(held.points) == 0))
    if len(flat):
        raise UserError(
            f"landmarks: both outer eye corners of {held.names[flat[0]]} lie at one point: no error can be told"
        )
    predicted = head.points(held.maps)
    found = errors.image_errors(predicted, held.points, scheme)
    told = errors.scores(found, probe.seed)
    told["parts"] = errors.part_errors(predicted, held.points, scheme)
    told["subsets"] = {
        name: errors.scores({key: value[rows] for key, value in found.items()}, probe.seed)
        for name, rows in held.subsets.items()
    }
    mean = np.broadcast_to(shape, held.points.shape)
    told["mean_shape"] = errors.scores(errors.image_errors(mean, held.points, scheme), probe.seed)
    return told | {"points": len(shape)}


def summary(told: Results) -> str:
    """The scores as a few lines of text."""
    lines = [f"{told['count']} images, {told['points']} points, protocol landmarks, head {told['head']}"]
    for name, row in (("mean shape", told["mean_shape"]), ("val", told), *told["subsets"].items()):
        eyes, box = row["outer_eyes"], row["box"]
        low, high = eyes["nme_interval_95"]
        lines.append(f"{name:12}NME {100 * eyes['nme']:.2f} % of the outer eye distance (95 % {100 * low:.2f} to {100 * high:.2f}), "
                     f"{100 * box['nme']:.2f} % of the box; above 10 %: {eyes['failure_rate_10']:.3f}, "
                     f"area to 10 %: {eyes['auc_10']:.3f}")  # fmt: skip
    return "\n".join(lines)


def _write(
    folder: Path, name: str, told: Results, head: Head, held: Marked, scheme: Scheme, bad: dict[str, str]
) -> None:
    """Shows the scores, then writes the files, NAME.json last, because its presence says that all is done."""
    print(summary(told))
    suffix = "" if name == "results" else f"_{name}"
    predicted = head.points(held.maps)
    np.savez_compressed(
        folder / f"predicted_landmarks{suffix}.npz", name=np.array([f"val/{each}" for each in held.names]),
        points=held.pixels(predicted).astype(np.float32),
    )  # fmt: skip
    found = errors.image_errors(predicted, held.points, scheme)
    pictures.draw_curve(folder / f"curve{suffix}.png", found["outer_eyes"])
    chosen = held.shown
    pictures.draw_faces(folder / f"faces{suffix}.png", held.thumbs, held.points[chosen], predicted[chosen])
    results.tell_bad(folder, suffix, bad, "could not be read, or have no points,")
    folders.write_json(folder / f"{name}.json", told)
    print(f"{shown(folder)}/{name}.json")


def _about(probe: Probe, encoder: Encoder, bad: dict[str, str]) -> Results:
    return {
        "protocol": "landmarks", "head": probe.landmarks.head, "encoder": probe.encoder, "encoder_hash": encoder.hash,
        "encoder_metadata": encoder.metadata, "untrained": probe.untrained, "seed": probe.seed, "epochs": probe.epochs,
        "skipped": len(bad), "environment": environment(),
    }  # fmt: skip


def _upgraded(recorded: dict[str, Any]) -> dict[str, Any]:
    found = upgraded(recorded)
    found["landmarks"].pop("file", None)  # recorded by its content
    return found


# ---------------------------------------------------------------- the head's file


def save(folder: Path, learned: Learned, probe: Probe) -> None:
    """Writes landmarks.safetensors: the head's arrays, and the mean shape [P, 2]."""
    facts = {"encoder_hash": learned.encoder.hash, "canvas": str(probe.data.canvas), "head": probe.landmarks.head}
    with writing_whole(folder / FILE) as temporary:
        save_arrays(temporary, to_arrays(learned.head) | {"mean_shape": np.ascontiguousarray(learned.shape)}, facts)


def load(folder: Path) -> tuple[Head, np.ndarray, dict[str, str]]:
    """Head, mean shape, and `encoder_hash`, `canvas` and `head`; raises UserError when they are not there or not whole."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no trained head: train one there first, without --config.eval_only")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            shape = arrays.pop("mean_shape")
            return from_arrays(arrays), shape, file.metadata()
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from None
