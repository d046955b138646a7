"""The report of real runs: what it says is what the runs wrote, whatever state and names they have."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import small
from browser import Opened, chromium
from pages import Page
from small_probe import write_split

from configs import probe as probe_config
from simfle_jax.commands import masks, report
from simfle_jax.encoder import load_encoder
from simfle_jax.evaluation.features import Extractor
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing
from simfle_jax.reporting import build, curves
from simfle_jax.reporting.collect import answer, material_of
from simfle_jax.reporting.images import LIMIT
from simfle_jax.reporting.read import read_probe, read_run
from simfle_jax.training.loop import train

CLASSES = {"blue": "<b>\"q\" & 'a'", "green": "\U0001f600", "red": "\u05e9\u05dc\u05d5\u05dd"}

WRONG = {"blue": "' onerror='alert(1).jpg", "green": '" onload="alert(1).jpg'}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Coloured squares in class folders with difficult names, said to be generated."""
    folder = tmp_path_factory.mktemp("report") / "faces"
    for seed, split in enumerate(("train", "val")):
        write_split(folder / split, dict.fromkeys(CLASSES, 8), seed)
        for plain, name in CLASSES.items():
            (folder / split / plain).rename(folder / split / name)
    # In the wrong class: whatever the probe is like, it is mistaken about one of them.
    for name in WRONG:
        shutil.copy(folder / "val" / CLASSES["red"] / "000.jpg", folder / "val" / CLASSES[name] / WRONG[name])
    (folder / "faces.json").write_text('{"size": 32}')
    return folder


@pytest.fixture(scope="module")
def run(data):
    """A run of six steps with the checkpoints of three of them, in a folder with a difficult name."""
    place = data.parent / "<img src=x onerror=alert(1)>"
    settings = {"path": str(data / "train"), "canvas": 0}
    train(small.config(data=settings, checkpoint_steps=2, keep_checkpoints=3), str(place))
    return place


@pytest.fixture(scope="module")
def probe(data, run):
    """A probe of that run."""
    config = probe_config.get_config()
    config.update(encoder=str(run), epochs=2, batch_size=8, protocol="cached")
    config.data.path = str(data)
    run_probe(probing(config), str(data.parent / "probe"))
    return data.parent / "probe"


@pytest.fixture(scope="module")
def whole(run, probe):
    """The report of both, as a file."""
    out = run.parent / "report.html"
    assert small.status(report, [str(run), "--probe", str(probe), "--out", str(out)]) == 0
    return out


def made(out: Path, *arguments) -> Page:
    assert small.status(report, [*map(str, arguments), "--out", str(out)]) == 0
    return Page(out.read_text())


def copied(run: Path, place: Path, without: tuple[str, ...] = ()) -> Path:
    shutil.copytree(run, place, ignore=shutil.ignore_patterns(*without, "lock*"))
    return place


def test_curves_are_the_metrics_and_tables_the_results(whole, run, probe):
    page = Page(whole.read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in set(lines[0]) - {"step", "epoch", "seconds"}:
        (curve,) = page.curve(name)
        assert curve["x"] == [line["step"] for line in lines], name
        assert curve["y"] == [line[name] for line in lines], name
        assert lines[-1][name] in page.numbers
    results = json.loads((probe / "results.json").read_text())
    for score in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert {results[score], *results["intervals_95"][score]} <= set(page.numbers), score
    assert {count for row in results["confusion"] for count in row} <= set(page.numbers)
    assert all(name in page.text for name in [*CLASSES.values(), run.name])


def test_difficult_names_are_text_and_images_are_few_and_inside(whole):
    page = Page(whole.read_text())
    assert not {"onerror", "onload"} & page.attributes and "b" not in page.elements
    assert 20 < len(page.images) < 2 * LIMIT
    assert all(image["src"].startswith("data:image/") and "alt" in image for image in page.images)
    assert any(name in page.text for name in WRONG.values())
    for step in (2, 4, 6):
        assert f"Reconstructions at step {step}" in page.text
    assert "Group maps" in str(page.images) and "Worst mistakes" in page.text and "nearest visible patch" in page.text


def test_images_of_people_are_left_out_unless_asked(run, data, tmp_path, monkeypatch):
    other = shutil.copytree(data / "train", tmp_path / "people")
    page = made(tmp_path / "a.html", run, "--data", other)
    assert not page.images and "--images embeds them" in page.text and "Nearest neighbours" in page.text
    monkeypatch.setattr(build, "steps_of", lambda folder: [2, 7])  # a run that goes on has removed one since
    page = made(tmp_path / "b.html", run, "--data", other, "--images")
    assert page.images and "Reconstructions at step 2" in page.text and "at step 7 is not shown" in page.text
    assert not made(tmp_path / "c.html", run, "--no-images").images


def test_a_run_half_way_with_a_torn_line_and_nan(run, tmp_path):
    half = copied(run, tmp_path / "half", ("checkpoints", "encoder.safetensors"))
    lines = (half / "metrics.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"loss/total": float("nan")})
    (half / "metrics.jsonl").write_text("\n".join(lines)[:-20])
    page = made(tmp_path / "a.html", half)
    values = page.curve("loss/total")[0]["y"]
    assert len(values) == len(lines) - 1 and values[1] is None
    for note in ("could not be read", "not finite", "no checkpoint yet", "No probe was given", "encoder.safetensors"):
        assert note in page.text, note


def test_runs_of_other_methods_and_lengths_side_by_side(run, data, tmp_path):
    settings = dict(data={"path": str(data / "train")}, epochs=1)
    train(small.config(method="byol", **settings), str(tmp_path / "byol"))
    train(small.config(facemae={"masking": "random"}, **settings), str(tmp_path / "random"))
    demo = {"BYOL": {"probe": 0.515625, "probe_few": 0.25, "retrieval": 1.0}, "damaged": None}
    (tmp_path / "results.json").write_text(json.dumps({"rows": demo}))
    page = made(tmp_path / "a.html", run, tmp_path / "byol", tmp_path / "random")
    assert [len(trace["x"]) for trace in page.curve("loss/total")] == [6, 3, 3]
    assert [trace["name"] for trace in page.curve("loss/grouping")] == ["&lt;img src=x onerror=alert(1)&gt;"]
    assert "byol: nothing to show of masks" in page.text and "This run masks at random" in page.text
    assert "Reconstructions at step 3" in page.text, "of the run with one checkpoint"
    assert "≠ method" in page.text and "≠ seed" not in page.text
    assert {0.515625, 0.25} <= set(page.numbers) and "How the demo scored" in page.text
    figures = [tmp_path / "figures" / f"curve_loss_total.{ending}" for ending in ("png", "pdf")]
    made(tmp_path / "b.html", run, tmp_path / "byol", "--figures", tmp_path / "figures")
    assert all(file.stat().st_size > 1000 for file in figures)
    assert (tmp_path / "figures" / "masks_1.png").exists()


def probed(data, run, protocol, place, **settings) -> Path:
    config = probe_config.get_config()
    config.update(encoder=str(run), epochs=1, batch_size=8, protocol=protocol)
    config.finetune.warmup_epochs = 0.0
    config.data.update(path=str(data), **settings)
    run_probe(probing(config), str(place))
    return place


def test_neighbours_tell_their_mistakes_too(run, data, tmp_path):
    page = made(tmp_path / "a.html", run, "--probe", probed(data, run, "knn", tmp_path / "knn"))
    assert "Worst mistakes" in page.text and "The map of" not in page.text


def test_a_fine_tuned_trunk_is_not_shown_as_the_runs(run, data, tmp_path, probe):
    """The map is of what the run has learnt; the labels taught another trunk."""
    tuned = read_probe(probed(data, run, "finetune", tmp_path / "tuned"), "tuned")
    material, own = material_of(read_run(run, "run", [6]), tuned, None), read_run(run, "run", [6])
    plain, ours = (answer(own, each, material, []) for each in (None, tuned))
    np.testing.assert_array_equal(ours.features, plain.features)
    trunk = load_encoder(tmp_path / "tuned")
    features = np.concatenate([part.features for part in Extractor(trunk).stream(material.source)])
    expected = ours.classifier.from_features(features)
    np.testing.assert_allclose(ours.probabilities, expected, atol=1e-6)
    assert np.abs(expected - ours.classifier.from_features(plain.features)).max() > 1e-3


def test_probes_of_other_classes_and_of_points_are_kept_apart(run, data, probe, tmp_path):
    few = tmp_path / "few"
    for split in ("train", "val"):
        for name in list(CLASSES.values())[:2]:
            shutil.copytree(data / split / name, few / split / name)
    shutil.copy(data / "faces.json", few)
    other, notes = read_probe(probed(few, run, "cached", tmp_path / "two"), "two"), []
    own, first = read_run(run, "run", [6]), read_probe(probe, "probe")
    found = answer(own, other, material_of(own, first, None), notes)
    assert found.probabilities is None and notes == [
        "the mistakes of two are not shown: its classes are not those of the images"
    ]
    points = dataclasses.replace(other, results=other.results | {"protocol": "landmarks"})
    assert not points.tells_classes and build.probe_of(own, [points, first]) is first


def test_a_probe_is_found_however_its_encoder_is_spelled(run, data, probe, tmp_path):
    own, first = read_run(run, "run", [6]), read_probe(probe, "probe")
    for place in (f"{run}/encoder.safetensors", f"../{run.parent.name}/{run.name}", "/moved/from/here"):
        elsewhere = dataclasses.replace(first, results=first.results | {"encoder": place})
        assert build.probe_of(own, [elsewhere]) is elsewhere, place
    other = dataclasses.replace(first, results=first.results | {"encoder": "/x", "encoder_hash": "v2-0"})
    assert build.probe_of(own, [other]) is None
    shutil.copytree(probe, tmp_path / "other")
    results = json.loads((probe / "results.json").read_text()) | {"encoder": "/x", "encoder_hash": "v2-0"}
    (tmp_path / "other" / "results.json").write_text(json.dumps(results))
    found = build.gather([run], [tmp_path / "other"], None, points=8)
    assert "other probed the encoder of none of these runs: of its mistakes nothing is shown" in found.notes


def test_data_that_are_gone_cost_their_part_alone(run, probe, data, tmp_path):
    page = made(tmp_path / "a.html", run, "--probe", probe, "--data", tmp_path / "gone")
    assert "is not shown: no folder" in page.text.replace("\n", " ") and page.curve("loss/total") and not page.images


def test_what_is_no_run_is_told_in_one_line(tmp_path, capsys):
    assert small.status(report, [str(tmp_path), "--out", str(tmp_path / "a.html")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "holds no config.json" in error and len(error.splitlines()) == 1


def test_the_atlas_of_any_image(run, data, tmp_path, capsys):
    out = tmp_path / "masks.png"
    assert (
        small.status(masks, [str(data / "val"), "--encoder", str(run), str(run), "--out", str(out), "--step", "4"]) == 0
    )
    assert out.stat().st_size > 1000
    assert small.status(masks, [str(data / "val"), "--encoder", str(run), "--out", "masks.txt"]) == 2
    assert "must end in .png" in capsys.readouterr().err


class Browsed(NamedTuple):
    """What a browser has made of the page; on a telephone in the dark for `small`."""

    told: list[str]
    asked: list[str]
    charts: list[dict]
    tables: dict[str, list[list]]
    controls: set[int]
    walk: tuple[list[int], list[int]]
    chosen: list[dict]  # the charts, after the controls were used by keyboard
    faults: dict[str, list[str]]
    overhang: dict[str, int]
    leaking: list[str]  # what the console tells of a page with a foreign image


class Shown(NamedTuple):
    """A page, and the run and the probe that it is about."""

    file: Path
    run: Path
    probe: Path


@pytest.fixture(scope="module", params=["small", pytest.param("demo", marks=pytest.mark.slow)])
def shown(request, tmp_path_factory):
    """The page of the runs above, and that of `make demo` with a probe of its SimFLE."""
    if request.param == "small":
        return Shown(*map(request.getfixturevalue, ("whole", "run", "probe")))
    place = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, "-m", "simfle_jax.demo", "--workdir", str(place)], check=True, timeout=1800)
    settings = probe_config.get_config()
    settings.update(encoder=str(place / "simfle"), protocol="logistic")
    settings.data.path = str(place / "faces")
    run_probe(probing(settings), str(place / "probe"))
    found = Shown(place / "report.html", place / "simfle", place / "probe")
    made(found.file, found.run, "--probe", found.probe)
    return found


@pytest.fixture(scope="module")
def browsed(shown, tmp_path_factory):
    """The page in Chromium, opened once for all that is asked of it."""
    whole = shown.file
    leaking = tmp_path_factory.mktemp("leaking") / "leaking.html"
    leaking.write_text(whole.read_text().replace("<main", '<img src="http://localhost:9/x.png" alt=""><main', 1))
    with chromium() as browser:
        large, phone = Opened(browser, whole), Opened(browser, whole, width=400, scheme="dark")
        charts, tables, controls, walk = large.charts(), large.tables(), large.controls(), large.walk()
        faults = {"large": large.faults(), "small": phone.faults()}
        overhang = {"large": large.overhang(), "small": phone.overhang()}
        for control in large.page.query_selector_all(".controls select"):
            control.focus()
            large.page.keyboard.press("ArrowDown")
        large.page.wait_for_selector(".xtitle:text('seconds')", timeout=120_000)
        return Browsed(large.told + phone.told, large.asked + phone.asked, charts, tables, controls, walk,
                       large.charts(), faults, overhang, Opened(browser, leaking).told)  # fmt: skip


def test_the_browser_tells_no_error_and_nothing_is_asked_of_a_network(browsed, shown):
    assert not browsed.told, browsed.told[:3]
    assert browsed.asked == [shown.file.as_uri()] * 2
    assert "violates" in str(browsed.leaking), "the page's policy lets requests out"


def test_curves_in_the_browser_have_the_points_of_the_metrics(browsed, shown):
    lines = [json.loads(line) for line in (shown.run / "metrics.jsonl").read_text().splitlines()]
    charts = {chart["y"]: chart for chart in browsed.charts}
    assert len(browsed.charts) == len(Page(shown.file.read_text()).figures)
    assert all(chart["marks"] for chart in browsed.charts), "a chart is empty"
    for name in set(lines[0]) - {"step", "epoch", "seconds"}:
        (trace,) = charts[name]["traces"]
        assert trace["points"] == [[line["step"], line[name]] for line in lines], name


def test_controls_change_the_curves_by_keyboard(browsed, shown):
    chart = next(chart for chart in browsed.chosen if chart["y"] == "loss/total")
    lines = [json.loads(line) for line in (shown.run / "metrics.jsonl").read_text().splitlines()]
    assert chart["type"] == "log"
    assert [x for x, _ in chart["traces"][0]["points"]] == [line["seconds"] for line in lines]
    expected = curves.smoothed(np.array([line["loss/total"] for line in lines]))
    np.testing.assert_allclose([y for _, y in chart["traces"][0]["points"]], expected)


def test_tables_in_the_browser_have_the_numbers_of_the_results(browsed, shown):
    results = json.loads((shown.probe / "results.json").read_text())
    found = {caption.split(":")[0].split(",")[0]: rows for caption, rows in browsed.tables.items()}
    assert [row[1:] for row in found["Confusion matrix"]] == [
        [[count] for count in row] for row in results["confusion"]
    ]
    assert [row[0] for row in found["Confusion matrix"]] == results["classes"]
    scores = found["How it scored"][0]
    for score in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert [results[score], *results["intervals_95"][score]] in scores
    assert [row[1:] for row in found["Scores of each class"]] == [
        [[of[name]] for name in ("precision", "recall", "f1", "count")] for of in results["per_class"].values()
    ]
    last = json.loads((shown.run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {name: value for name, (value,) in found["Last values"]} == {
        name: value for name, value in last.items() if name not in ("step", "epoch", "seconds")
    }


def test_tab_reaches_every_control_and_shows_where_it_is(browsed):
    reached, unseen = browsed.walk
    assert len(browsed.controls) > 20 and set(reached) == browsed.controls
    assert reached == sorted(reached), "Tab does not follow the page"
    assert not unseen, "the focus is not to be seen"


def test_axe_finds_no_serious_fault_and_the_page_fits_a_telephone(browsed):
    assert browsed.faults == {"large": [], "small": []}
    assert browsed.overhang == {"large": 0, "small": 0}
