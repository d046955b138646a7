"""Runs, probes and encoders that earlier versions wrote go on working, and lead where those versions led.

tests/recorded/record.py made the recordings, each by the version that it is named after.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simfle_jax import load_encoder

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = sorted((ROOT / "tests" / "recorded").glob("*.tar.xz"))
STOPPED_AT = 6
# Another processor sums in another order; the machine that recorded gives the same bits.
TOLERANCE = dict(rtol=2e-3, atol=2e-4)


@pytest.fixture(params=RECORDINGS, ids=lambda path: path.name.split(".")[0])
def recording(request, tmp_path) -> Path:
    """A recording, unpacked."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / request.param.name.split(".")[0]


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess:
    """A command of this version in the recording's folder."""
    command = [sys.executable, *([str(ROOT / program)] if program.endswith(".py") else ["-m", program]), *arguments]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def flags(method: str) -> list[str]:
    """The flags that the recorded run was started with."""
    given = [f"--config={ROOT / 'tests' / 'small_config.py'}", "--config.batch_size=8", "--config.epochs=3", "--config.seed=5",
             "--config.checkpoint_steps=2", "--config.data.canvas=18", "--config.data.threads=1",
             "--config.data.path=data/train"]  # fmt: skip
    if method == "byol":
        given += [
            "--config.model.facemae=False",
            "--config.optimizer=adam",
            "--config.lr=0.01",
            "--config.keep_checkpoints=1",
        ]
    return given


def images(folder: Path) -> np.ndarray:
    """The recording's val images."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "data" / "val").rglob("*.png"))])


@pytest.mark.parametrize("method", ["simfle", "byol"])
def test_a_recorded_run_goes_on_to_the_same_numbers(recording, method):
    """By train.py with the flags of then: it goes on from step 6, and ends where the version of then ended."""
    expected = json.loads((recording / "expected.json").read_text())[method]
    done = run(recording, "train.py", *flags(method), f"--workdir={method}")
    assert done.returncode == 0, done.stderr
    assert f"goes on from step {STOPPED_AT}" in done.stderr
    lines = [json.loads(line) for line in (recording / method / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [line["step"] for line in expected["metrics"]]
    for line, before in zip(lines, expected["metrics"]):
        for name in before.keys() - {"images_per_second", "seconds"}:
            np.testing.assert_allclose(line[name], before[name], **TOLERANCE, err_msg=f"step {line['step']}, {name}")
    features = load_encoder(recording / method)(images(recording))
    np.testing.assert_allclose(features, expected["features_at_end"], **TOLERANCE)


@pytest.mark.parametrize("method", ["simfle", "byol"])
def test_a_recorded_encoder_gives_the_same_features(recording, method):
    expected = json.loads((recording / "expected.json").read_text())[method]["features"]
    for source in (recording / method, recording / method / "encoder.safetensors"):
        np.testing.assert_allclose(load_encoder(source)(images(recording)), expected, rtol=1e-4, atol=1e-5)
    target = load_encoder(recording / method, branch="target")(images(recording))
    assert target.shape == np.shape(expected) and np.abs(target - expected).max() > 1e-4


def test_a_recorded_probe_scores_the_same(recording):
    expected = json.loads((recording / "expected.json").read_text())["probe"]
    common = [f"--config={ROOT / 'configs' / 'probe.py'}", "--config.encoder=simfle", "--config.data.path=data"]
    done = run(recording, "probe.py", *common, "--config.eval_only=True", "--workdir=probe")
    assert done.returncode == 0, done.stderr
    found = json.loads((recording / "probe" / "evaluation.json").read_text())
    assert found["confusion"] == expected["confusion"] and found["accuracy"] == expected["accuracy"]
    again = run(recording, "probe.py", *common, "--config.epochs=6", "--config.batch_size=8", "--workdir=again")
    assert again.returncode == 0, again.stderr
    assert json.loads((recording / "again" / "results.json").read_text())["confusion"] == expected["confusion"]


@pytest.mark.parametrize("name, known", [("byol", "v2-7a102092aea7bbb3"), ("simfle", "v2-7b1efb170ca8e414")])
def test_encoders_keep_the_hash_that_probes_and_results_name_them_by(recording, name, known):
    """As the first version whose hashes begin with v2- gave it; with another one their probes are refused."""
    assert load_encoder(recording / name).hash == known
