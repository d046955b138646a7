"""Features on their way to a file: memory stays small, what was interrupted goes on, names stay with their rows."""

import tracemalloc

import numpy as np
import pytest

from simfle_jax.errors import UserError
from simfle_jax.evaluation import feature_file
from simfle_jax.evaluation.feature_file import FeatureFile

DIM, BATCH, BATCHES = 256, 200, 100
NAMES = [f"faces/{number:07d}.jpg" for number in range(BATCH * BATCHES)]


def batch(number):
    """Features of a batch, in which every image of number 3, 13, 23, ... is unreadable."""
    rows = np.arange(number * BATCH, (number + 1) * BATCH)
    bad = {int(row): "empty file" for row in rows[3::10]}
    rows = np.delete(rows, np.s_[3::10])
    return np.repeat(rows[:, None], DIM, 1).astype(np.float32), rows, bad, (number + 1) * BATCH


def read(path):
    """Features and names of a finished file."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r"), np.load(path.with_suffix(".names.npy"))
    if path.suffix == ".npz":
        with np.load(path) as file:
            return file["features"], file["names"]
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    return np.stack(table["feature"].to_numpy()), np.array(table["name"].to_pylist())


@pytest.mark.parametrize("ending", feature_file.ENDINGS)
def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(feature_file, "ROWS_AT_ONCE", BATCH)
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    tracemalloc.start()
    try:
        with FeatureFile(tmp_path / f"f{ending}", NAMES, DIM, {}) as file:
            for number in range(BATCHES):
                file.append(*batch(number))
            file.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    features, names = read(tmp_path / f"f{ending}")
    rows = np.delete(np.arange(len(NAMES)), np.s_[3::10])
    np.testing.assert_array_equal(features[:, 0], rows)
    assert names.tolist() == [NAMES[row] for row in rows] and features.shape == (len(rows), DIM)
    assert peak < features.nbytes / 3, f"{peak / 1e6:.1f} MB in memory for {features.nbytes / 1e6:.1f} MB of features"
    assert not (tmp_path / f"f{ending}.partial").exists()


def test_what_was_killed_goes_on_from_its_last_state(tmp_path):
    file = FeatureFile(tmp_path / "f.npz", NAMES, DIM, {"encoder": "a"})
    for number in range(3):
        file.append(*batch(number))
        if number == 1:
            file.save()
    for handle in (file._features, file._rows):  # killed: what came after the state may be there or not
        handle.close()
    file._lock.release()  # as that of a process that is gone
    with FeatureFile(tmp_path / "f.npz", NAMES[: 4 * BATCH], DIM, {"encoder": "a"}) as again:
        assert again.done == 2 * BATCH and again.count == 2 * 180 and len(again.bad) == 40
        for number in (2, 3):
            again.append(*batch(number))
        again.finish()
    np.testing.assert_array_equal(read(tmp_path / "f.npz")[0][:, 1], np.delete(np.arange(4 * BATCH), np.s_[3::10]))


def test_an_error_keeps_what_is_there(tmp_path):
    with pytest.raises(KeyboardInterrupt), FeatureFile(tmp_path / "f.npy", NAMES, DIM, {}) as file:
        file.append(*batch(0))
        raise KeyboardInterrupt
    with FeatureFile(tmp_path / "f.npy", NAMES, DIM, {}) as again:
        assert again.done == BATCH


def test_parts_of_something_else_are_kept_and_told(tmp_path):
    with FeatureFile(tmp_path / "f.npz", NAMES, DIM, {"encoder": "a"}) as file:
        file.append(*batch(0))
        file.save()
    with pytest.raises(
        UserError, match=r"f.npz.partial is part of another embedding: remove it, or give another --out"
    ):
        FeatureFile(tmp_path / "f.npz", NAMES, DIM, {"encoder": "b"})
    (tmp_path / "f.npz.partial" / "rows.i64").write_bytes(b"")
    with pytest.raises(UserError, match=r"is damaged, rows.i64 is too short: remove it to begin anew"):
        FeatureFile(tmp_path / "f.npz", NAMES, DIM, {"encoder": "a"})


def test_two_at_once_do_not_write_one_file(tmp_path):
    with FeatureFile(tmp_path / "f.npz", NAMES, DIM, {}) as file:
        file.append(*batch(0))
        with pytest.raises(UserError, match=r"f.npz.partial is in use by process .*, or give another --out"):
            FeatureFile(tmp_path / "f.npz", NAMES, DIM, {})
        file.append(*batch(1))
        file.finish()
    assert read(tmp_path / "f.npz")[0].shape == (360, DIM)
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_names_that_are_not_utf8_stay_with_their_rows(tmp_path):
    names = [b"caf\xe9.jpg".decode(errors="surrogateescape"), "b.jpg"]
    for ending, shown in ((".npy", names[0]), (".npz", names[0]), (".parquet", "caf\\xe9.jpg")):
        if ending == ".parquet":
            pytest.importorskip("pyarrow")
        with FeatureFile(tmp_path / f"f{ending}", names, 2, {}) as file:
            file.append(np.eye(2, dtype=np.float32), np.arange(2), {}, 2)
            file.finish()
        assert read(tmp_path / f"f{ending}")[1].tolist() == [shown, "b.jpg"]
