"""From folders to the page: reads, looks, and puts the sections one after another."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.reporting import page, sections
from simfle_jax.reporting.collect import Answers, Material, Seen, answer, attempt, material_of, see
from simfle_jax.reporting.feature_section import feature_map
from simfle_jax.reporting.features import POINTS
from simfle_jax.reporting.images import LIMIT, Album
from simfle_jax.reporting.page import Section
from simfle_jax.reporting.read import ProbeRecord, RunRecord, names_of, read_probe, read_run
from simfle_jax.runs.mirror import shown
from simfle_jax.training.restore import checkpoint_steps


class Gathered(NamedTuple):
    """All that a report shows; dictionaries go by the name of a run."""

    runs: list[RunRecord]
    probes: list[ProbeRecord]
    material: Material | None
    seen: dict[str, Seen]
    answers: dict[str, Answers]
    notes: list[str]


def gather(runs: Sequence[Path], probes: Sequence[Path], data: str | Path | None, points: int = POINTS) -> Gathered:
    """Reads all folders, and runs the networks on images; raises UserError where a folder is no run or no probe.

    points: images at most whose features are shown.
    """
    read = [read_run(folder, name, steps_of(folder)) for folder, name in zip(runs, names_of(list(runs)))]
    told = [read_probe(folder, name) for folder, name in zip(probes, names_of(list(probes)))]
    notes: list[str] = []
    first = next((probe for probe in told if probe.tells_classes), None)
    material = attempt("What the networks see", lambda: material_of(read[0], first, data), notes)
    if material is None and first is not None and data is None:  # the images of the run at least
        material = attempt("What the run sees", lambda: material_of(read[0], None, None), notes)
    seen: dict[str, Seen] = {}
    answers: dict[str, Answers] = {}
    if material is not None:
        for run in read:
            _look_and_ask(run, probe_of(run, told), material, points, seen, answers, notes)
    for probe in filter(_has_encoder, told):
        if not any(_is_of(probe, run) for run in read):
            notes.append(f"{probe.name} probed the encoder of none of these runs: of its mistakes nothing is shown")
    return Gathered(read, told, material, seen, answers, notes)


def _look_and_ask(
    run: RunRecord, probe: ProbeRecord | None, material: Material, points: int,
    seen: dict[str, Seen], answers: dict[str, Answers], notes: list[str],
) -> None:  # fmt: skip
    found = attempt(f"What {run.name} looks at", lambda: see(run, material, notes), notes)
    if found is not None:
        seen[run.name] = found
    answered = attempt(f"The map of {run.name}", lambda: answer(run, probe, material, notes, points), notes)
    if answered is not None:
        answers[run.name] = answered


def steps_of(folder: Path) -> list[int]:
    """Steps of the checkpoints of a run, none where there is not even a folder for them."""
    return checkpoint_steps(folder) if (folder / "checkpoints").is_dir() else []


def probe_of(run: RunRecord, probes: list[ProbeRecord]) -> ProbeRecord | None:
    """The first finished probe of this run's encoder that tells classes."""
    return next((probe for probe in probes if _has_encoder(probe) and _is_of(probe, run)), None)


def _has_encoder(probe: ProbeRecord) -> bool:
    """Whether a finished probe of classes is of a trained encoder."""
    return probe.tells_classes and bool(probe.results.get("encoder")) and not probe.results.get("untrained")


def _is_of(probe: ProbeRecord, run: RunRecord) -> bool:
    """By the place of the encoder, or by its numbers: a run may be moved, and its place be spelled in many ways."""
    if Path(str(probe.results["encoder"])).absolute() == Path(shown(run.folder)).absolute():
        return True
    try:
        return load_encoder(run.folder).is_called(str(probe.results.get("encoder_hash", "")))
    except UserError:  # no encoder yet
        return False


def build(found: Gathered, show: bool | None) -> str:
    """The page. show: whether it may hold images; None: if they are of generated faces."""
    album = Album(may_show(found, show))
    parts = [sections.trained(found.runs, found.probes, found.notes), sections.learning(found.runs)]
    parts += [_looks(found, album), _masks(found, album), _confusions(found, album), _features(found, album)]
    parts.append(sections.settings(found.runs, found.material))
    names = ", ".join(run.name for run in found.runs)
    return page.page(f"SimFLE-JAX: {names}", _privacy(album, show, may_show(found, None)), parts)


def may_show(found: Gathered, show: bool | None) -> bool:
    """Whether images may be shown: as was asked, and without being asked if they are of generated faces."""
    return found.material is not None and found.material.generated if show is None else show


def _privacy(album: Album, show: bool | None, generated: bool) -> str:
    if album.allowed:
        kind = (
            "generated faces, which show nobody" if generated else "images of the data set: mind whose faces they are"
        )
        return f"This page holds {len(album.shown)} (at most {LIMIT}) {kind}."
    asked = "as was asked" if show is False else "because they may show people; --images embeds them"
    return f"This page holds no images, {asked}."


def _looks(found: Gathered, album: Album) -> Section:
    return _by_run("looks", "What does it look at?", found, lambda name: sections.looking(
        name, found.seen[name], _material(found), album))  # fmt: skip


def _masks(found: Gathered, album: Album) -> Section:
    return _by_run(
        "masks", "Mask atlas", found, lambda name: sections.masks(name, found.seen[name], _material(found), album)
    )


def _by_run(anchor: str, title: str, found: Gathered, part: Callable[[str], str]) -> Section:
    body = "".join(part(name) for name in found.seen)
    blind = [run for run in found.runs if run.name not in found.seen and run.steps]
    body += "".join(
        page.note(
            f"{run.name}: nothing to show of masks and reconstructions (method {run.settings.get('method', 'simfle')})."
        )
        for run in blind
    )
    return Section(anchor, title, body or page.note("There is no checkpoint to look at."))


def _material(found: Gathered) -> Material:
    assert found.material is not None
    return found.material


def _confusions(found: Gathered, album: Album) -> Section:
    answers = {id(probe_of(run, found.probes)): found.answers.get(run.name) for run in found.runs}
    body = "".join(sections.confused(probe, answers.get(id(probe)), found.material, album) for probe in found.probes)
    return Section("confusions", "What does the probe confuse?", body or page.note("No probe was given."))


def _features(found: Gathered, album: Album) -> Section:
    body = "".join(feature_map(name, answers, _material(found), album) for name, answers in found.answers.items())
    return Section("features", "Features and neighbours", body or page.note("There are no features to show."))
