"""A linear probe from its settings to results.json; the same call continues it."""

import errno
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from simfle_jax import compilation, config
from simfle_jax.data.bad_list import write_bad_list
from simfle_jax.encoder import Encoder, load_encoder, untrained_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import records, scores
from simfle_jax.evaluation.features import Extractor
from simfle_jax.evaluation.linear import Fit, History, Labelled, Sgd, fit_epochs, new_layer, start
from simfle_jax.evaluation.sets import Sets, check_dataset, open_sets, open_val
from simfle_jax.evaluation.settings import Probe
from simfle_jax.progress import Progress
from simfle_jax.runs import folder as folders
from simfle_jax.runs.environment import environment
from simfle_jax.runs.files import write_json

EPOCHS_AT_ONCE = 10  # of the cached protocol, between two looks at how far it is
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)  # what a folder answers that may only be read
SELECTED = {
    "val": "val: the best epoch on the very images that are reported, as published",
    "train-holdout": "train-holdout: the best epoch on a part of train that was not trained on",
}
Results = dict[str, Any]


def run_probe(probe: Probe, workdir: str) -> Results:
    """Trains and evaluates a probe (or, with eval_only, only evaluates) and writes its folder; returns the results.

    Raises:
        UserError: whatever the user can mend, before anything is overwritten.
    """
    compilation.use_cache()
    encoder = load_encoder(probe.encoder)
    if probe.untrained:
        encoder = untrained_encoder(encoder, probe.seed)
    if probe.eval_only:
        return evaluate(probe, encoder, Path(workdir))
    return train(probe, encoder, workdir)


def train(probe: Probe, encoder: Encoder, workdir: str) -> Results:
    """Trains the layer, or goes on with it, and reports on the best epoch; a finished folder is only read."""
    sets = open_sets(probe)
    upgraded = partial(config.with_defaults, Probe)
    with folders.take(workdir, identity(probe, encoder, sets, Path(workdir)), upgraded):
        return _train(probe, encoder, sets, Path(workdir))


def _train(probe: Probe, encoder: Encoder, sets: Sets, folder: Path) -> Results:
    finished = records.read_results(folder)
    if finished:
        logging.warning("%s is complete; nothing to do", folder)
        print(summary(finished))
        return finished

    extractor = make_extractor(probe, encoder, probe.data.canvas)
    extractor.bad_list = folder / "bad_images.txt"
    apart = {name: extractor.plain(source, name) for name, source in sets.apart.items()}
    fit, history = fit_layer(probe, extractor, sets, apart, folder)

    best = records.TrainedProbe(fit.best, sets.classes, encoder.hash, probe.data.canvas)
    reported = {name: labelled for name, labelled in apart.items() if name != "train-holdout"}
    results = about(probe, encoder, extractor) | training(config.as_dict(probe)) | report(best, reported, probe.seed)
    results |= {
        "best_epoch": int(fit.best_epoch),
        "last_epoch_accuracy": float(history.accuracy[-1, list(apart).index("val")]),
        "selected_on": SELECTED[probe.select_on],
        "train_count": len(sets.train),
    }
    records.save_probe(folder, best)
    write(folder, "results", results, extractor.bad)
    return results


def evaluate(probe: Probe, encoder: Encoder, folder: Path) -> Results:
    """The trained probe in `folder` on the val images; writes evaluation.json beside what training wrote.

    The scores are shown even where nothing can be written.
    """
    trained = records.load_probe(folder)
    records.check_encoder(folder, trained, encoder, probe.encoder)
    check_dataset(probe.dataset, trained.classes)
    extractor = make_extractor(probe, encoder, probe.data.canvas or trained.canvas)
    extractor.bad_list = folder / "bad_images_evaluation.txt"
    sources = open_val(probe, trained.classes)
    reported = {name: extractor.plain(source, name) for name, source in sources.items()}
    results = about(probe, encoder, extractor) | training(records.training_settings(folder))
    results |= report(trained, reported, probe.seed) | {"evaluated": evaluated(probe, extractor)}
    try:
        write(folder, "evaluation", results, extractor.bad)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise UserError(f"{folder / 'evaluation.json'} cannot be written: {error.strerror}; mend that") from None
        logging.warning("%s may only be read: evaluation.json was not written", folder)
    return results


def fit_layer(
    probe: Probe, extractor: Extractor, sets: Sets, apart: dict[str, Labelled], folder: Path
) -> tuple[Fit, History]:
    """All epochs that are not done yet; after each stretch progress.npz and metrics.jsonl are written anew."""
    count, held = len(sets.train), tuple(apart.values())
    sgd = Sgd(probe.batch_size, probe.lr, probe.momentum, probe.balance, probe.seed)
    fit = start(new_layer(probe.seed, extractor.encoder.dim, len(sets.classes)))
    history = History(np.zeros(0, np.float32), np.zeros((0, len(held)), np.float32))
    fit, history = records.load_progress(folder, (fit, history))
    cached = extractor.plain(sets.train, "train") if probe.protocol == "cached" else None

    done = int(fit.epoch)
    progress = Progress(probe.epochs * count, "probing, images", done * count)
    while done < probe.epochs:
        stretch = min(EPOCHS_AT_ONCE if cached else 1, probe.epochs - done)
        images = cached or extractor.augmented(sets.train, done, partial(_tell, progress, done * count))
        fit, fresh = fit_epochs(fit, images, held, sgd, stretch)
        history = history.followed_by(fresh)
        done += stretch
        records.save_progress(folder, fit, history)
        records.write_metrics(folder, history, tuple(apart), sgd.scaled_lr(len(images.labels)))
        progress.update(done * count, epoch=done, loss=history.loss[-1], accuracy=history.accuracy[-1, 0])
    _warn_of_divergence(history, len(sets.classes))
    return fit, history


def _warn_of_divergence(history: History, n_classes: int) -> None:
    """The published rate fits the features of a ResNet-50; larger features make the layer jump about."""
    if history.loss[-1] > np.log(n_classes):
        logging.warning(
            "the loss after the last epoch, %.3g, is above that of guessing, %.3g: the learning rate is too high for "
            "these features, try a tenth of it (--config.lr, in another --workdir)", history.loss[-1], np.log(n_classes),
        )  # fmt: skip


def _tell(progress: Progress, before: int, images: int) -> None:
    progress.update(before + images)


def make_extractor(probe: Probe, encoder: Encoder, canvas: int) -> Extractor:
    """The one that these settings describe, for images of this canvas."""
    data = probe.data
    return Extractor(
        encoder, canvas=canvas, seed=probe.seed, threads=data.threads, max_bad_fraction=data.max_bad_fraction
    )


def identity(probe: Probe, encoder: Encoder, sets: Sets, folder: Path) -> Results:
    """What makes two probes the same: the settings, with encoder and data by their content instead of their place."""
    settings = config.as_dict(probe)
    del settings["eval_only"], settings["encoder"]
    # A version before this one may have begun the folder, with the hash of its time.
    recorded = records.training_settings(folder).get("encoder_hash", "")
    hash_ = recorded if encoder.is_called(recorded) else encoder.hash
    return settings | {"encoder_hash": hash_, "data_fingerprint": sets.fingerprints}


def about(probe: Probe, encoder: Encoder, extractor: Extractor) -> Results:
    """What was probed, and where."""
    return {
        "encoder": probe.encoder,
        "encoder_hash": encoder.hash,
        "encoder_metadata": encoder.metadata,
        "untrained": probe.untrained,
        "skipped": len(extractor.bad),
        "environment": environment(),
    }


def training(settings: Results) -> Results:
    """How the layer was trained, from the settings of then; None for what is not known."""
    return {name: settings.get(name) for name in ("protocol", "balance", "epochs", "seed", "dataset")}


def evaluated(probe: Probe, extractor: Extractor) -> Results:
    """What an evaluation itself used: images, canvas, and the seed of the intervals."""
    data = probe.data
    return {"dataset": probe.dataset, "path": data.path, "source": data.source, "val": list(data.val),
            "canvas": extractor.canvas, "seed": probe.seed}  # fmt: skip


def report(trained: records.TrainedProbe, sets: dict[str, Labelled], seed: int) -> Results:
    """Scores on val, and below `further` those on the other sets."""
    reports = {
        name: scores.report(confusion(trained, labelled), trained.classes, seed) for name, labelled in sets.items()
    }
    first = reports.pop("val")
    return first | {"further": reports}


def confusion(trained: records.TrainedProbe, labelled: Labelled) -> np.ndarray:
    """The confusion matrix [K, K] of a layer on features and labels."""
    predictions = np.asarray(trained.layer.predict(jnp.asarray(labelled.features)))
    return scores.confusion(np.asarray(labelled.labels), predictions, len(trained.classes))


def write(folder: Path, name: str, results: Results, bad: dict[str, str]) -> None:
    """Shows the scores, then writes the files: NAME.json last, because its presence says that all is done."""
    print(summary(results))
    suffix = "" if name == "results" else f"_{name}"
    matrix, classes = np.array(results["confusion"]), tuple(results["classes"])
    title = f"accuracy {results['accuracy']:.3f}, macro-F1 {results['macro_f1']:.3f}"
    records.draw_confusion(folder / f"confusion{suffix}.png", matrix, classes, title)
    if bad:
        path = folder / f"bad_images{suffix}.txt"
        write_bad_list(path, bad)
        logging.warning("%d images could not be read and were left out; see %s", len(bad), path)
    write_json(folder / f"{name}.json", results)
    print(folder / f"{name}.json")


def summary(results: Results) -> str:
    """The scores with their intervals as a few lines of text."""
    lines = [
        f"{results['count']} images, {len(results['classes'])} classes, protocol {results['protocol'] or 'unknown'}"
    ]
    for name in scores.SUMMARY:
        low, high = results["intervals_95"][name]
        lines.append(f"{name.replace('_', ' '):18}{results[name]:.4f}  (95 % {low:.4f} to {high:.4f})")
    if "best_epoch" in results:
        lines.append(f"best epoch {results['best_epoch']} of {results['epochs']}, chosen on {results['selected_on']}")
        lines.append(f"accuracy after the last epoch {results['last_epoch_accuracy']:.4f}")
    lines += [f"{name}: accuracy {further['accuracy']:.4f}" for name, further in results["further"].items()]
    return "\n".join(lines)
