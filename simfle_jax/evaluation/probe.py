"""A probe from its settings to results.json; the same call continues it."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simfle_jax import compilation, config
from simfle_jax.encoder import Encoder, load_encoder, untrained_encoder
from simfle_jax.evaluation import probe_folder, records, results
from simfle_jax.evaluation.feature_table import FeatureTable
from simfle_jax.evaluation.features import Extractor
from simfle_jax.evaluation.few_labels import summary_scores
from simfle_jax.evaluation.linear import Labelled, Linear
from simfle_jax.evaluation.protocols import find_protocol, trained_protocol
from simfle_jax.evaluation.protocols.base import (
    ProbeProtocol,
    Protocol,
    TargetProtocol,
    TrainingSet,
    TrunkProtocol,
    TuningSet,
)
from simfle_jax.evaluation.results import Results
from simfle_jax.evaluation.sets import Sets, check_dataset, crop_of_sets, open_sets, open_val
from simfle_jax.evaluation.settings import Probe
from simfle_jax.evaluation.tuning import bad_before
from simfle_jax.runs import peers
from simfle_jax.runs.environment import environment
from simfle_jax.runs.together import opened_together
from simfle_jax.storage import joined
from simfle_jax.weights.files import write_safetensors


def run_probe(probe: Probe, workdir: str) -> Results:
    """Trains and evaluates a probe (or, with eval_only, only evaluates) and writes its folder; returns the results.

    With `seeds` the folder is that of the first one, the others are in SEEDn below it, and the results hold
    `over_seeds` as well.

    Raises:
        UserError: whatever the user can mend, before anything is overwritten.
    """
    if not probe.seeds:
        return run_one(probe, workdir)
    places = [workdir, *(joined(workdir, f"seed{seed}") for seed in probe.seeds[1:])]
    found = []
    for seed, place in zip(probe.seeds, places):
        if jax.process_index() == 0:
            print(f"seed {seed}", flush=True)
        found.append(run_one(dataclasses.replace(probe, seed=seed, seeds=()), place))
    with opened_together(workdir) as folder:
        return results.write_over_seeds(folder, probe, found)


def run_one(probe: Probe, workdir: str) -> Results:
    """The same of `probe.seed` alone."""
    asked = None if probe.eval_only else find_protocol(probe)  # tells of settings that do not go together at once
    compilation.use_cache()
    with opened_together(workdir) as folder:
        protocol = asked or trained_protocol(probe, records.training_settings(folder).get("protocol", ""))
        model = peers.together(
            lambda: (own_model(folder) if probe.eval_only else None) or open_model(as_begun(probe, folder))
        )
        if isinstance(protocol, TargetProtocol):
            assert isinstance(model, Encoder)  # features are refused above
            return (protocol.evaluate if probe.eval_only else protocol.train)(model, folder)
        return evaluate(probe, model, folder) if probe.eval_only else train(protocol, model, folder)


def own_model(folder: Path) -> Encoder | None:
    """The trunk that a probe trained itself and keeps in its folder; None where it took a frozen one."""
    return load_encoder(folder) if "tuned_encoder_hash" in (records.read_results(folder) or {}) else None


def as_begun(probe: Probe, folder: Path) -> Probe:
    """The settings of an evaluation, with the untrained network that the probe in the folder was fitted to, if it was one."""
    begun = records.read_results(folder) or {} if probe.eval_only else {}
    return dataclasses.replace(probe, untrained=True, seed=begun["seed"]) if begun.get("untrained") else probe


def open_model(probe: Probe) -> Encoder | FeatureTable:
    """What is probed: an encoder, a fresh one of its architecture, or features that were computed elsewhere."""
    if probe.features:
        return FeatureTable(probe.features)
    encoder = load_encoder(probe.encoder)
    return untrained_encoder(encoder, probe.seed) if probe.untrained else encoder


def train(protocol: Protocol, model: Encoder | FeatureTable, folder: Path) -> Results:
    """Fits the probe, or goes on with it, and reports on it; a finished folder is only read."""
    sets = peers.together(lambda: open_sets(protocol.probe))
    return probe_folder.once(
        folder,
        probe_folder.identity(protocol.probe, model, sets.fingerprints, folder),
        lambda: _train(protocol, model, sets, folder),
        results.summary,
    )


def _train(protocol: Protocol, model: Encoder | FeatureTable, sets: Sets, folder: Path) -> Results:
    probe = protocol.probe
    fit = _tuned if isinstance(protocol, TrunkProtocol) else _fitted
    trained, extractor, apart, facts = fit(protocol, model, sets, folder)  # type: ignore[arg-type]
    found = {name: results.predict(trained, labelled) for name, labelled in apart.items() if name != "train-holdout"}
    told = about(probe, model, extractor) | results.training(config.as_dict(probe))
    told |= results.report(found, sets.classes, probe.seed)
    told |= {"train_count": len(sets.train), "data_fingerprint": sets.fingerprints} | facts
    told |= results.told_apart(probe, found["val"], sets.apart, extractor.rows["val"], sets.classes)
    if jax.process_index() == 0:  # the others know the same
        records.save_probe(folder, trained)
        lines = results.prediction_lines(found["val"], sets.apart["val"], extractor.rows["val"], sets.classes)
        results.write(folder, "results", told, lines, extractor.bad)
    return told


Outcome = tuple[records.TrainedProbe, Extractor | FeatureTable, dict[str, Labelled], Results]  # facts are the last


def _fitted(protocol: ProbeProtocol, model: Encoder | FeatureTable, sets: Sets, folder: Path) -> Outcome:
    """A predictor on frozen features, and the features of all that is not trained on."""
    probe = protocol.probe
    extractor = make_extractor(probe, model, probe.data.canvas)
    extractor.bad_list = folder / "bad_images.txt"
    extractor.bad |= bad_before(folder)
    apart = {name: extractor.plain(source, name) for name, source in sets.apart.items()}
    votes = sets.votes
    learned_from = TrainingSet(
        plain=lambda: extractor.plain(sets.train, "train"),
        augmented=lambda epoch, tell: extractor.augmented(sets.train, epoch, tell),
        count=len(sets.train), dim=extractor.dim, n_classes=len(sets.classes), folder=folder,
        shares=None if votes is None else lambda: votes[extractor.rows["train"]],
    )  # fmt: skip
    fitted = protocol.fit(learned_from, apart)
    trained = records.TrainedProbe(fitted.predictor, sets.classes, model.hash, probe.data.canvas)
    return trained, extractor, apart, fitted.facts


def _tuned(protocol: TrunkProtocol, model: Encoder, sets: Sets, folder: Path) -> Outcome:
    """The same of a protocol that trains the trunk, which is then kept beside the probe."""
    probe = protocol.probe
    canvas = probe.data.canvas or model.size

    def score(encoder: Encoder, predictor: Linear) -> dict[str, float]:
        val = make_extractor(probe, encoder, canvas).plain(sets.apart["val"], "val")
        return summary_scores(np.asarray(val.labels), np.asarray(predictor.predict(val.features)), len(sets.classes))

    tuned = protocol.tune(model, TuningSet(sets.train, len(sets.classes), canvas, folder, score))
    extractor = make_extractor(probe, tuned.encoder, canvas)
    extractor.bad_list = folder / "bad_images.txt"
    extractor.bad |= {f"train/{name}": reason for name, reason in tuned.bad.items()}
    apart = {name: extractor.plain(source, name) for name, source in sets.apart.items()}
    if jax.process_index() == 0:
        write_safetensors(folder / "encoder.safetensors", tuned.encoder.torch_arrays(), tuned.encoder.metadata)
    trained = records.TrainedProbe(tuned.predictor, sets.classes, tuned.encoder.hash, probe.data.canvas)
    return trained, extractor, apart, tuned.facts | {"tuned_encoder_hash": tuned.encoder.hash}


def evaluate(probe: Probe, model: Encoder | FeatureTable, folder: Path) -> Results:
    """The trained probe in `folder` on the val images; writes evaluation.json beside what training wrote.

    The scores are shown even where nothing can be written.
    """
    trained = records.load_probe(folder)
    if isinstance(model, FeatureTable):
        model.check_probe(folder, trained)
    else:
        records.check_encoder(folder, trained, model, probe.encoder)
    check_dataset(probe.dataset, trained.classes)
    extractor = make_extractor(probe, model, probe.data.canvas or trained.canvas)
    extractor.bad_list = folder / "bad_images_evaluation.txt"
    sources = open_val(probe, trained.classes)
    found = {name: results.predict(trained, extractor.plain(source, name)) for name, source in sources.items()}
    told = about(probe, model, extractor) | results.training(records.training_settings(folder))
    told |= results.report(found, trained.classes, probe.seed)
    told |= {"evaluated": results.evaluated(probe, extractor.canvas)}
    told |= {"data_fingerprint": {name: source.fingerprint for name, source in sources.items()}}
    told |= results.told_apart(probe, found["val"], sources, extractor.rows["val"], trained.classes)
    lines = results.prediction_lines(found["val"], sources["val"], extractor.rows["val"], trained.classes)
    results.write_evaluation(folder, lambda: results.write(folder, "evaluation", told, lines, extractor.bad))
    return told


def make_extractor(probe: Probe, model: Encoder | FeatureTable, canvas: int) -> Extractor | FeatureTable:
    """What gives the features of these settings' images; of this canvas where it reads them."""
    if isinstance(model, FeatureTable):
        return model
    data = probe.data
    return Extractor(
        model, canvas=canvas, seed=probe.seed, threads=data.threads, max_bad_fraction=data.max_bad_fraction
    )


def about(probe: Probe, model: Encoder | FeatureTable, extractor: Extractor | FeatureTable) -> dict[str, Any]:
    """What was probed, and where."""
    return {
        "encoder": probe.encoder,
        "features": probe.features,
        "encoder_hash": model.hash,
        "encoder_metadata": model.metadata,
        "crop": crop_of_sets(probe),
        "untrained": probe.untrained,
        "skipped": len(extractor.bad),
        "environment": environment(),
    }
