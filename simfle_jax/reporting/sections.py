"""The sections of the page, in the order in which a supervisor asks."""

import numpy as np
from PIL import Image

from simfle_jax.evaluation.looking import PARTS, Look
from simfle_jax.reporting import atlas, confusions, curves, overview, page
from simfle_jax.reporting.charts import layout, listed
from simfle_jax.reporting.collect import Answers, Material, Seen
from simfle_jax.reporting.images import Album
from simfle_jax.reporting.page import Section
from simfle_jax.reporting.read import ProbeRecord, RunRecord, read_comparison

WORST = 16  # mistakes that are shown
CELLS = 128  # of the drawn channel similarity matrix; larger ones are averaged
CONTROLS = (  # whose choices end with the page: a browser that kept them would show curves that do not follow
    '<fieldset class="controls"><legend>All curves</legend>'
    '<label>values <select name="y" autocomplete="off"><option value="raw">as logged</option><option value="smooth">smoothed</option></select></label>'
    '<label>scale <select name="scale" autocomplete="off"><option value="linear">linear</option><option value="log">logarithmic</option></select></label>'
    '<label>over <select name="x" autocomplete="off"><option value="step">steps</option><option value="seconds">seconds</option></select></label>'
    "</fieldset>"
)


def trained(runs: list[RunRecord], probes: list[ProbeRecord], notes: list[str]) -> Section:
    """What was trained on what, and how it scored."""
    body = overview.trained_table(runs)
    compared = {str(run.folder.absolute().parent): read_comparison(run.folder) for run in runs}
    body += "".join(overview.comparison_table(rows) for rows in compared.values() if rows)
    body += (
        overview.score_table(probes) if probes else page.note("No probe was given: add --probe PROBE to see scores.")
    )
    missing = [f"{run.name}: {message}" for run in runs for message in run.notes]
    missing += [f"{probe.name}: {message}" for probe in probes for message in probe.notes]
    return Section("trained", "What was trained, and how it scored", body + "".join(map(page.note, missing + notes)))


def learning(runs: list[RunRecord]) -> Section:
    """Whether it collapsed: a curve of everything that a run logs."""
    metrics = {run.name: run.metrics for run in runs if run.metrics}
    names = curves.metric_names(list(metrics.values()))
    if not names:
        return Section("curves", "Did it collapse?", page.note("There are no metrics to draw."))
    charts = "".join(
        page.chart(curves.draw(name, metrics), name, curves.MEANS.get(name, ""), "curve") for name in names
    )
    last = page.table("Last values", ["metric", *metrics], curves.last_values(metrics, names))
    return Section("curves", "Did it collapse?", CONTROLS + f'<div class="grid">{charts}</div>' + last)


def looking(name: str, seen: Seen, material: Material, album: Album) -> str:
    """What one run looks at: pictures at its checkpoints, if they may be shown, and its errors."""
    names = [material.source.name(int(row)) for row in seen.rows]
    admitted = np.array(album.admit(names), bool)
    body = f"<h3>{page.text(name)}</h3>"
    for found in seen.looks if admitted.any() else ():
        body += _pictures(found, admitted)
    rows = [[{"facemae": "FaceMAE", "mean_image": "the mean image", "nearest_patch": "the nearest visible patch"}[key], value]
            for key, value in seen.errors.items()]  # fmt: skip
    body += page.table(
        "Squared error on masked patches (pixels normalised in each patch), last checkpoint", ["guess", "error"], rows
    )
    return body


def _pictures(found: Look, admitted: np.ndarray) -> str:
    found = found._replace(
        images=found.images[admitted], restored=found.restored[admitted], kept=found.kept[admitted],
        drawn=None if found.drawn is None else found.drawn[admitted],
        scores=None if found.scores is None else found.scores[admitted],
    )  # fmt: skip
    groups = [] if found.drawn is None else [str(group + 1) for group in found.drawn]
    chosen = f"kept are the patches that groups {', '.join(groups)} see most" if groups else "random patches are kept"
    described = f"step {found.step:,}: {len(found.images)} faces, {chosen}"
    restored = "visible patches pasted, contrast of each patch given back"
    body = page.picture(
        atlas.reconstructions(found),
        f"Reconstructions at {described}",
        f"Reconstructions at {described}; {restored}",
        True,
    )
    if found.scores is not None:
        body += page.picture(
            atlas.map_atlas(found), f"Group maps at {described}", f"Maps of all groups at step {found.step:,}", True
        )
    return f'<div class="pair">{body}</div>'


def masks(name: str, seen: Seen, material: Material, album: Album) -> str:
    """The mask atlas, the similarity of channels, and which parts of a face each group keeps, at the last checkpoint."""
    last = seen.looks[-1]
    body = f"<h3>{page.text(name)}</h3>"
    if last.scores is None:
        body += page.note("This run masks at random: it has no groups of channels.")
    if album.admit([material.source.name(int(seen.rows[0]))])[0]:
        what = "What each group keeps on the same face; hidden patches are dark"
        body += page.picture(
            atlas.all_groups(last, 0), f"{what}, step {last.step:,}", f"{what}. Step {last.step:,}", True
        )
    if last.matrix is not None and last.scores is not None:
        body += _similarity(last.matrix, last.scores.shape[1])
    if seen.hits is not None:
        rows = [[f"group {number}", *row] for number, row in enumerate(np.round(seen.hits, 2).tolist(), 1)]
        caption = "How often a group keeps patches with landmarks, over chance (1: as by chance)"
        shades = np.clip((np.nan_to_num(seen.hits, nan=1.0) - 1) / 2, 0, 1)
        body += page.table(caption, ["", *PARTS], rows, shades)
    return body


def _similarity(matrix: np.ndarray, groups: int) -> str:
    """A heat map; neighbours of a large matrix are averaged, never across groups while these are fewer than CELLS."""
    block = next(size for size in range(1, len(matrix) + 1) if len(matrix) % size == 0 and len(matrix) // size <= CELLS)
    small = matrix.reshape(len(matrix) // block, block, -1, block).mean((1, 3))
    # A cell's middle, in channels of the matrix as it was.
    place = {f"{axis}0": (block - 1) / 2 for axis in "xy"} | {f"d{axis}": block for axis in "xy"}
    data = [
        {
            "type": "heatmap",
            "z": [listed(row.round(4)) for row in small],
            **place,
            "colorscale": "Viridis",
            "zmin": -1,
            "zmax": 1,
        }
    ]
    look = layout(x="channel, ordered by group", height=420)
    look["xaxis"] |= {"constrain": "domain"}
    look["yaxis"] |= {"autorange": "reversed", "scaleanchor": "x", "constrain": "domain"}
    told = f"Cosines between the {len(matrix)} channels, {groups} groups one after another; squares on the diagonal are groups."
    return page.chart({"data": data, "layout": look}, "Similarity of channels", told, "square")


def confused(probe: ProbeRecord, answers: Answers | None, material: Material | None, album: Album) -> str:
    """What a probe confuses, and the images that it is most wrong about."""
    body = f"<h3>{page.text(probe.name)}</h3>"
    if "confusion" not in probe.results:
        return body + page.note("The probe has not finished, or tells no classes.")
    body += confusions.matrix_table(probe.results)
    body += page.chart(confusions.class_bars(probe.results), "Scores of each class")
    body += confusions.class_table(probe.results)
    if answers is None or answers.probabilities is None or material is None:
        return body
    return body + _mistakes(answers, material, album)


def _mistakes(answers: Answers, material: Material, album: Album) -> str:
    found = confusions.worst_mistakes(answers.probabilities, answers.labels, WORST)  # type: ignore[arg-type]
    if not found:
        return page.paragraph("No mistake among the images that were looked at.")
    rows = answers.rows[[mistake.row for mistake in found]]
    names = [material.source.name(int(row)) for row in rows]
    admitted = album.admit(names)
    shown = _with_saliency(answers, material, rows, [mistake.predicted for mistake in found]) if any(admitted) else []
    items = []
    for number, (mistake, name) in enumerate(zip(found, names, strict=True)):
        true, predicted = answers.classes[mistake.true], answers.classes[mistake.predicted]
        image = (
            page.picture(shown[number], f"{true} taken for {predicted}", photograph=True) if admitted[number] else ""
        )
        told = f"{page.text(true)} taken for {page.text(predicted)}, {page.percent(mistake.probability)}<br>{page.text(name)}"
        items.append(f"<li>{image}<div>{told}</div></li>")
    why = "The wrong answers of which the probe was surest. On the right, the pixels that move its answer most (input gradients)."
    return f"<h4>Worst mistakes</h4>{page.paragraph(why)}<ul class='cards'>{''.join(items)}</ul>"


def _with_saliency(answers: Answers, material: Material, rows: np.ndarray, predicted: list[int]) -> list[Image.Image]:
    assert answers.classifier is not None
    found = material.images(rows, answers.classifier.encoder.size)
    strength = confusions.saliency(answers.classifier, found, np.array(predicted))
    shares = found / 255
    return [
        atlas.sheet(
            [[image, image.mean(-1, keepdims=True) * 0.4 + 0.6 * heat[..., None] * np.array([1, 0.8, 0.2])]],
            ["", ""],
            [""],
            84,
        )
        for image, heat in zip(shares, strength, strict=True)
    ]


def settings(runs: list[RunRecord], material: Material | None) -> Section:
    """Settings, environment, data."""
    data = [[run.name, str(run.settings.get("data.path")), run.settings.get("data_fingerprint")] for run in runs]
    body = overview.settings_table(runs) + overview.environment_table(runs)
    body += page.table("Data of the runs", ["run", "path", "fingerprint of the listing"], data)
    if material is not None:
        labels, classes = material.source.labels, material.source.classes
        counts = (
            [] if labels is None or classes is None else [[c, int((labels == i).sum())] for i, c in enumerate(classes)]
        )
        kind = "generated faces" if material.generated else "images"
        body += page.paragraph(f"Looked at: {len(material.source):,} {kind}.") + (
            page.table("Images of each class", ["class", "images"], counts) if counts else ""
        )
    return Section("settings", "Settings, environment and data", body)
