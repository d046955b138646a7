"""The archive of the sources is whole, and its wheel holds all that a user runs, in an empty folder, away from the checkout."""

import os
import subprocess
import sys
import tarfile
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
def sources(tmp_path_factory) -> Path:
    """The archive of the sources."""
    folder = tmp_path_factory.mktemp("sources")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout, so nobody knows which files belong to it")
    for name in listed.stdout.splitlines():  # a copy: building leaves files behind
        if (ROOT / name).is_file():
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "checkout" / name).write_bytes((ROOT / name).read_bytes())
    program = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder / "checkout", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def installed(sources, tmp_path_factory) -> Path:
    """The content of the wheel that pip makes of the sources, as it would lay it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(sources)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
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


def test_the_sources_hold_all_of_the_checkout(sources):
    with tarfile.open(sources) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in listed if (ROOT / name).is_file()} <= names


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
