"""What a probe tells of itself: results.json or evaluation.json, predictions.csv, the picture, and the lines printed."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from simfle_jax.data.bad_list import write_bad_list
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError
from simfle_jax.evaluation import records, scores
from simfle_jax.evaluation.image_table import read_groups
from simfle_jax.evaluation.linear import Labelled
from simfle_jax.evaluation.records import TrainedProbe
from simfle_jax.evaluation.sets import SharedClasses
from simfle_jax.evaluation.settings import Probe
from simfle_jax.runs import folder as folders
from simfle_jax.runs.mirror import shown

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)  # what a folder answers that may only be read
Results = dict[str, Any]
Line = tuple[str, str, str, float]


class Predicted(NamedTuple):
    """The classes of a set's images, and what a probe makes of them."""

    labels: np.ndarray  # [n]
    predictions: np.ndarray  # [n]
    confidences: np.ndarray  # [n], the probability of the predicted class


def predict(trained: TrainedProbe, labelled: Labelled) -> Predicted:
    """The predictions for features and labels."""
    shares = np.asarray(trained.predictor.probabilities(jnp.asarray(labelled.features)))
    predictions = np.asarray(trained.predictor.predict(jnp.asarray(labelled.features)))
    return Predicted(np.asarray(labelled.labels), predictions, shares[np.arange(len(shares)), predictions])


def training(settings: Results) -> Results:
    """How the probe was trained, from the settings of then; None for what is not known."""
    return {name: settings.get(name) for name in ("protocol", "balance", "epochs", "seed", "dataset")}


def evaluated(probe: Probe, canvas: int) -> Results:
    """What an evaluation itself used: images, canvas, and the seed of the intervals."""
    data = probe.data
    return {"dataset": probe.dataset, "path": data.path, "source": data.source, "val": list(data.val),
            "canvas": canvas, "seed": probe.seed}  # fmt: skip


def report(sets: Mapping[str, Predicted], classes: tuple[str, ...], seed: int) -> Results:
    """Scores on val, and below `further` those on the other sets."""
    reports = {name: _scores(found, classes, seed) for name, found in sets.items()}
    first = reports.pop("val")
    return first | {"further": reports}


def _scores(found: Predicted, classes: tuple[str, ...], seed: int) -> Results:
    matrix = scores.confusion(found.labels, found.predictions, len(classes))
    calibration = scores.calibration_error(found.confidences, found.predictions == found.labels)
    return scores.report(matrix, classes, seed) | {"calibration_error": calibration}


def told_apart(
    probe: Probe, val: Predicted, sources: Mapping[str, Source], rows: np.ndarray, classes: tuple[str, ...]
) -> Results:
    """What the settings ask for besides: `subgroups` of val, and `class_mapping` of sets with other classes.

    rows: which images of val were predicted. A subgroup is a value of a column of `data.groups`.
    """
    told: Results = {}
    mapping = {name: source.mapping for name, source in sources.items() if isinstance(source, SharedClasses)}
    if mapping:
        told["class_mapping"] = mapping
    if probe.data.groups:
        names = [sources["val"].name(int(row)) for row in rows]
        columns = read_groups(probe.data.groups, names, "val")
        told["subgroups"] = {column: _by_value(values, val, classes) for column, values in columns.items()}
    return told


def _by_value(values: list[str], val: Predicted, classes: tuple[str, ...]) -> Results:
    found = {}
    for value in sorted(set(values)):
        of_it = np.array(values) == value
        matrix = scores.confusion(val.labels[of_it], val.predictions[of_it], len(classes))
        summary = {name: float(score(matrix)) for name, score in scores.SUMMARY.items()}
        found[value] = summary | {"intervals_95": scores.intervals(matrix, 0), "count": int(of_it.sum())}
    return found


def write(folder: Path, name: str, results: Results, lines: Iterable[Line], bad: dict[str, str]) -> None:
    """Shows the scores, then writes the files: NAME.json last, because its presence says that all is done.

    lines: those of predictions.csv, which tells the images that the probe gets wrong; `simfle_jax.compare` reads it.
    """
    print(summary(results))
    suffix = "" if name == "results" else f"_{name}"
    matrix, classes = np.array(results["confusion"]), tuple(results["classes"])
    title = f"accuracy {results['accuracy']:.3f}, macro-F1 {results['macro_f1']:.3f}"
    records.draw_confusion(folder / f"confusion{suffix}.png", matrix, classes, title)
    records.write_predictions(folder / f"predictions{suffix}.csv", lines)
    tell_bad(folder, suffix, bad, "could not be read")
    folders.write_json(folder / f"{name}.json", results)
    print(f"{shown(folder)}/{name}.json")


def tell_bad(folder: Path, suffix: str, bad: dict[str, str], why: str) -> None:
    """Lists images that were left out in bad_images{suffix}.txt, and says so."""
    if bad:
        path = folder / f"bad_images{suffix}.txt"
        write_bad_list(path, bad)
        logging.warning("%d images %s and were left out; see %s/%s", len(bad), why, shown(folder), path.name)


def write_evaluation(folder: Path, write: Callable[[], None]) -> None:
    """Does `write`, which shows the scores before it writes; that a folder may only be read is then no error."""
    try:
        write()
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise UserError(f"{shown(folder)}/evaluation.json cannot be written: {error.strerror}; mend that") from None
        logging.warning("%s may only be read: evaluation.json was not written", shown(folder))


def write_over_seeds(folder: Path, probe: Probe, found: list[Results]) -> Results:
    """The results of the first seed with `over_seeds`: of each score every seed's value, their mean and its interval."""
    told = found[0] | {"over_seeds": {"seeds": list(probe.seeds)} | over_seeds(found)}
    if jax.process_index() == 0:
        name = "evaluation" if probe.eval_only else "results"
        folders.write_json(folder / f"{name}.json", told)
        print("\n".join(_told_over_seeds(told["over_seeds"])))
    return told


def over_seeds(found: list[Results]) -> Results:
    """Of the summary scores of several seeds; with few labels, of the mean over the draws of each share; of landmarks
    errors by the outer eye corners, and below `box` those by the box.
    """
    if "outer_eyes" in found[0]:
        return _errors_over_seeds(found, "outer_eyes") | {"box": _errors_over_seeds(found, "box")}
    if "shares" not in found[0]:
        return {name: _spread([results[name] for results in found]) for name in scores.SUMMARY if name in found[0]}
    return {"shares": [
        {"share": rows[0]["share"]} | {name: _spread([row[name]["mean"] for row in rows]) for name in scores.SUMMARY}
        for rows in zip(*(results["shares"] for results in found), strict=True)
    ]}  # fmt: skip


def _errors_over_seeds(found: list[Results], length: str) -> Results:
    numbers = [name for name, value in found[0][length].items() if isinstance(value, float)]
    return {name: _spread([results[length][name] for results in found]) for name in numbers}


def _spread(values: list[float]) -> Results:
    return {"values": values, "mean": float(np.mean(values)), "interval_95": scores.over_seeds(values)}


def _told_over_seeds(found: Results) -> list[str]:
    lines = [f"over the seeds {' '.join(map(str, found['seeds']))}:"]
    for row in found.get("shares", [found]):
        share = f"{100 * row['share']:g} % of the labels, " if "share" in row else ""
        for name in filter(row.__contains__, (*scores.SUMMARY, "nme")):
            bounds = row[name]["interval_95"]
            told = f"  (95 % {bounds[0]:.4f} to {bounds[1]:.4f})" if bounds else ""
            lines.append(f"{share}{name.replace('_', ' '):18}{row[name]['mean']:.4f}{told}")
    return lines


def prediction_lines(found: Predicted, source: Source, rows: np.ndarray, classes: tuple[str, ...]) -> Iterator[Line]:
    """Name, class, predicted class and its probability of the images `rows` of a source."""
    names = (source.name(int(row)) for row in rows)
    label, predicted = ([classes[number] for number in numbers] for numbers in found[:2])
    return zip(names, label, predicted, found.confidences.tolist(), strict=True)


def summary(results: Results) -> str:
    """The scores with their intervals as a few lines of text."""
    lines = [
        f"{results['count']} images, {len(results['classes'])} classes, protocol {results['protocol'] or 'unknown'}"
    ]
    for name in scores.SUMMARY:
        low, high = results["intervals_95"][name]
        lines.append(f"{name.replace('_', ' '):18}{results[name]:.4f}  (95 % {low:.4f} to {high:.4f})")
    lines += _chosen(results)
    lines += [f"{name}: accuracy {further['accuracy']:.4f}" for name, further in results["further"].items()]
    for column, groups in results.get("subgroups", {}).items():
        lines += [f"{column} {value or '(not listed)'}: balanced accuracy {group['balanced_accuracy']:.4f} of "
                  f"{group['count']} images" for value, group in groups.items()]  # fmt: skip
    return "\n".join(lines)


def _chosen(results: Results) -> list[str]:
    """What the protocol chose, where it chose something."""
    lines = []
    if "sweep" in results:
        lines.append(f"learning rate {results['lr']:g} of {len(results['sweep'])}")
    if "best_epoch" in results:
        lines.append(f"best epoch {results['best_epoch']} of {results['epochs']}, chosen on {results['selected_on']}")
        lines.append(f"accuracy after the last epoch {results['last_epoch_accuracy']:.4f}")
    if "l2" in results:
        lines.append(f"strength {results['l2']:g}, chosen on a fifth of train")
    if "temperature" in results:
        lines.append(f"{results['k']} neighbours, temperature {results['temperature']:g}")
    if "kept" in results:
        lines.append(results["kept"])
    for row in results.get("shares", []):
        found = row["balanced_accuracy"]
        lines.append(
            f"{100 * row['share']:g} % of the labels ({row['train_count']} images, {row['draws']} draws): balanced accuracy "
            f"{found['mean']:.4f} ({found['range'][0]:.4f} to {found['range'][1]:.4f})"
        )
    return lines
