"""The wheel holds all that a user runs: presets and commands work in an empty folder, away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import small

ROOT = Path(__file__).parents[2]
TINY = [
    "--config.epochs=1", "--config.batch_size=8", "--config.trunk.stage_sizes=(1, 1)", "--config.trunk.width=4",
    "--config.views.size=16", "--config.views.plain_size=16", "--config.heads.hidden=16", "--config.heads.out=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The content of the wheel, as pip would lay it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        ".",
    ]
    copy = folder / "checkout"  # building leaves files behind
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if not name.startswith(("tests/", "docs/", "benchmarks/", "notebooks/")) and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A command as the console script calls it, with the wheel's packages before those of the checkout."""
    program = f"import sys; sys.path.insert(0, {str(site)!r})\nfrom simfle_jax.commands.main import main\nmain()"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_every_preset_is_in_it(installed):
    assert {path.name for path in (ROOT / "configs").glob("*.py")} <= {
        path.name for path in (installed / "simfle_jax" / "configs").iterdir()
    }
    assert (installed / "simfle_jax" / "configs" / "studies" / "ablations.py").is_file()
    names = (next(installed.glob("*.dist-info")) / "entry_points.txt").read_text()
    assert "simfle = simfle_jax.commands.main:main" in names


def test_it_trains_and_embeds_in_an_empty_folder(installed, tmp_path):
    small.write_images(tmp_path / "faces", 8)
    trained = run(
        installed, tmp_path, "train", "--config=demo_byol", "--config.data.path=faces", "--workdir=run", *TINY
    )
    assert trained.returncode == 0, trained.stderr
    embedded = run(installed, tmp_path, "embed", "faces", "--encoder", "run", "--out", "features.npz")
    assert embedded.returncode == 0 and embedded.stdout.startswith("8 images"), embedded.stderr
    refused = run(installed, tmp_path, "train", "--config=demo_bylo", "--workdir=run")
    assert refused.returncode == 2 and "did you mean demo_byol?" in refused.stderr
