"""What a restore does with checkpoints that cannot be read, and what may not become one. The state is two arrays."""

import errno
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from simfle_jax.errors import UserError
from simfle_jax.runs.checkpoint import Checkpoints, SavedCheckpoints
from simfle_jax.training.state import TrainState


def state(step: int, scale: float = 1.0) -> TrainState:
    values = jnp.asarray(np.random.default_rng(step).standard_normal((40, 50)) * scale, jnp.float32)
    return TrainState(jnp.asarray(step, jnp.int32), {"online": {"kernel": values}}, {}, {}, {}, {})


def restore(
    checkpoints: SavedCheckpoints, step: int | None = None, like: TrainState | None = None
) -> TrainState | None:
    shapes = jax.eval_shape(lambda: like or state(0))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return checkpoints.restore(shapes, jax.tree.map(lambda _: sharding, shapes), step)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A run's folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step), wait=True)
    return folder


@pytest.fixture
def run(saved, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def data_files(checkpoint: Path) -> list[Path]:
    return [path for path in checkpoint.rglob("*") if path.is_file() and path.parent.name == "d"]


def flip(checkpoint: Path) -> None:
    for path in data_files(checkpoint):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)


def truncate(checkpoint: Path) -> None:
    for path in data_files(checkpoint):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_data(checkpoint: Path) -> None:
    for path in data_files(checkpoint):
        path.unlink()


DAMAGE = {
    "a bit flipped": flip,
    "half written": truncate,
    "data missing": lose_data,
    "state missing": lambda checkpoint: shutil.rmtree(checkpoint / "state"),
    "index missing": lambda checkpoint: (checkpoint / "state" / "_METADATA").unlink(),
    "index empty": lambda checkpoint: (checkpoint / "state" / "_METADATA").write_text(""),
    "checksum missing": lambda checkpoint: (checkpoint / "meta" / "metadata").unlink(),
    "another checksum": lambda checkpoint: (checkpoint / "meta" / "metadata").write_text('{"step": 2, "checksum": 5}'),
    "no checksum inside": lambda checkpoint: (checkpoint / "meta" / "metadata").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(damage, run, caplog):
    newest = run / "checkpoints" / "2"
    damage(newest)
    before = content(newest)
    with Checkpoints(run) as checkpoints:
        assert int(restore(checkpoints).step) == 1
        assert f"{newest} is damaged" in caplog.text
        assert content(newest.with_name("damaged-2")) == before and not newest.exists()
        checkpoints.save(state(2), wait=True)
        assert int(restore(checkpoints).step) == 2, "the step that was damaged could not be saved again"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_only_reads_changes_nothing(damage, run, caplog):
    damage(run / "checkpoints" / "2")
    before = content(run)
    with SavedCheckpoints(run) as checkpoints:
        assert int(restore(checkpoints).step) == 1
    assert content(run) == before
    assert not re.search("read.only", caplog.text), "a reader need not know how Orbax opens it"


@pytest.mark.parametrize("text", ["[]", '"x"'])
def test_metadata_in_another_form_end_in_a_line_and_lose_nothing(text, run):
    (run / "checkpoints" / "2" / "_CHECKPOINT_METADATA").write_text(text)
    before = content(run)
    with pytest.raises(UserError, match="metadata of a checkpoint cannot be read"):
        SavedCheckpoints(run)
    assert content(run) == before


def test_an_error_of_the_file_system_is_not_taken_for_damaged_metadata(run, monkeypatch):
    def gone(*_, **__):
        raise ValueError("UNKNOWN: Error reading local file: Stale file handle [os_error_code='116']")

    monkeypatch.setattr(ocp, "CheckpointManager", gone)
    with pytest.raises(ValueError, match="Stale file handle"):
        SavedCheckpoints(run)


def test_when_none_is_sound_all_stay_where_they_are(run):
    for step in ("1", "2"):
        flip(run / "checkpoints" / step)
    before = content(run)
    for _ in range(2):  # a second start must not find an empty folder, and begin anew
        with Checkpoints(run) as checkpoints, pytest.raises(UserError, match="none of the checkpoints in"):
            restore(checkpoints)
    assert content(run) == before


ERRORS = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ESTALE, "Stale file handle"),
    PermissionError(errno.EACCES, "Permission denied"),
    MemoryError("cannot allocate 12 GiB"),
    ValueError("UNKNOWN: Error reading local file: Stale file handle [os_error_code='116']"),
    ValueError("NOT_FOUND: Error reading local file: Stale file handle [os_error_code='116']"),
    ValueError("RESOURCE_EXHAUSTED: Error opening local file: Too many open files [os_error_code='24']"),
    ValueError("Requested shape: (8,) is not compatible with the stored shape: (4,)"),
    RuntimeError("a bug"),
    KeyError("optimizer"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:40])
def test_an_error_that_is_no_damage_is_told_and_loses_nothing(error, run, monkeypatch):
    def fail(*_, **__):
        raise error

    before = content(run)
    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
    with Checkpoints(run) as checkpoints, pytest.raises(UserError, match="could not be read") as caught:
        restore(checkpoints)
    assert "it stays as it is" in str(caught.value) and "\n" not in str(caught.value)
    assert content(run) == before


def test_the_devices_lack_of_memory_is_raised_as_it_is(run, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 16777216 bytes.")

    before = content(run)
    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
    with Checkpoints(run) as checkpoints, pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        restore(checkpoints)
    assert content(run) == before


def test_a_state_of_other_shapes_is_told_and_loses_nothing(run):
    other = TrainState(jnp.zeros((), jnp.int32), {"online": {"kernel": jnp.zeros((4, 50))}}, {}, {}, {}, {})
    before = content(run)
    with Checkpoints(run) as checkpoints, pytest.raises(UserError, match=r"could not be read .*stored shape"):
        restore(checkpoints, like=other)
    assert content(run) == before


def test_a_disk_that_is_gone_while_it_reads_loses_nothing(run):
    with Checkpoints(run) as checkpoints:
        (run / "checkpoints").rename(run / "elsewhere")
        with pytest.raises(UserError, match="could not be read"):
            restore(checkpoints)
        (run / "elsewhere").rename(run / "checkpoints")
        assert int(restore(checkpoints).step) == 2


def test_looking_for_checkpoints_makes_no_folder(tmp_path):
    with SavedCheckpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.steps() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_does_not_replace_a_good_one(value, run):
    poisoned = state(3)
    poisoned.params["online"]["kernel"] = poisoned.params["online"]["kernel"].at[3, 7].set(value)
    before = content(run)
    with Checkpoints(run, keep=1) as checkpoints:
        with pytest.raises(UserError, match=r"params.online.kernel is not finite after step 3, which is not saved"):
            checkpoints.save(poisoned)
        assert int(restore(checkpoints).step) == 2
    assert content(run) == before


def test_a_damaged_checkpoint_is_told_without_tracebacks(run):
    """TensorStore's threads find the event loop of the failed restore closed, and would print a traceback each."""
    truncate(run / "checkpoints" / "2")
    code = (
        "import sys, test_checkpoint as t\n"
        "with t.SavedCheckpoints(sys.argv[1]) as checkpoints:\n    print(int(t.restore(checkpoints).step))"
    )
    command = [sys.executable, "-c", code, str(run)]
    path = f"{Path(__file__).parents[3]}:{Path(__file__).parent}"
    done = subprocess.run(command, env={"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert done.stdout == "1\n" and "is damaged" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 5, done.stderr[-2000:]
