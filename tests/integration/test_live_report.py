"""The report of a run that goes on: train.py with a process beside it, and TensorBoard's own reader."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small
from pages import Page

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on images that are said to be generated, with a report at every step."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "faces.json").write_text('{"size": 16}')
    images = small.write_images(folder / "train", 16)
    flags = ["--config.batch_size=8", "--config.epochs=1", "--config.checkpoint_steps=1", "--config.report_every=1",
             "--config.tensorboard=True", f"--config.data.path={images}", f"--workdir={folder / 'run'}"]  # fmt: skip
    command = [sys.executable, str(ROOT / "train.py"), f"--config={ROOT / 'tests' / 'small_config.py'}", *flags]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "could not be refreshed" not in done.stderr, done.stderr
    return folder / "run"


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_page_of_the_end_has_all_steps_and_the_last_checkpoint(run):
    page = Page((run / "report.html").read_text())
    (curve,) = page.curve("loss/total")
    assert curve["x"] == [1, 2] and curve["y"] == [line["loss/total"] for line in lines(run)]
    assert "Reconstructions at step 2" in page.text and page.images
    assert not list(run.glob(".report*")), "what was half written stays"


def test_tensorboard_has_the_values_of_metrics_jsonl_and_the_pictures(run):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    for name in lines(run)[0]:
        assert [event.value for event in events.Scalars(name)] == pytest.approx([x[name] for x in lines(run)]), name
    for name in ("images/masks", "images/reconstructions"):
        last = events.Images(name)[-1]
        assert last.step == 2 and last.width > 100 and last.encoded_image_string.startswith(b"\x89PNG"), name
