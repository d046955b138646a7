import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simfle_jax.commands import faces
from simfle_jax.data.decode import decode
from simfle_jax.data.sources import FolderSource
from simfle_jax.data.synthetic_faces import DEMO, EXPRESSIONS, draw_face

COMMAND = ["--count", "32", "--val-count", "16", "--seed", "9", "--size", "48", "--glasses", "0.5"]
STRENGTHS = dataclasses.replace(DEMO, glasses=0.5)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A data set of two people to train on and another to validate, written once for all tests."""
    folder = tmp_path_factory.mktemp("faces") / "new" / "set"
    faces.main(["--out", str(folder), *COMMAND])
    return folder


@pytest.fixture
def no_drawing(monkeypatch):
    """Fails the test if the command comes so far as to draw."""
    monkeypatch.setattr(faces, "_in_parallel", lambda *_: pytest.fail("faces were drawn"))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(capsys, *arguments: str) -> str:
    """The one line that the command ends with, status 2."""
    with pytest.raises(SystemExit) as caught:
        faces.main([*arguments])
    printed = capsys.readouterr()
    assert caught.value.code == 2 and printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


def test_writes_class_folders_that_the_sources_read(out):
    train, val = (FolderSource(out, labelled=True, split=split) for split in ("train", "val"))
    assert train.classes == val.classes == EXPRESSIONS
    np.testing.assert_array_equal(np.bincount(train.labels), [4] * 8)
    np.testing.assert_array_equal(np.bincount(val.labels), [2] * 8)
    assert sorted(path.name for path in out.iterdir()) == ["faces.json", "landmarks.npz", "train", "val"]


def test_images_are_the_drawn_faces(out):
    for name in ("train/fear/000003_id00000.jpg", "train/anger/000024_id00001.jpg", "val/surprise/000015_id00000.jpg"):
        split, expression, file = name.split("/")
        face = draw_face(9, split, int(file[:6]), 48, STRENGTHS)
        assert face.expression == expression and face.identity == int(file[9:14])
        difference = np.abs(decode((out / name).read_bytes(), 48).astype(int) - face.image)
        assert difference.mean() < 4  # what JPEG loses


def test_landmarks_are_those_of_the_named_faces(out):
    with np.load(out / "landmarks.npz") as file:
        names, points = file["name"].tolist(), file["points"]
    assert sorted(names) == sorted(str(path.relative_to(out)) for path in out.rglob("*.jpg"))
    assert points.shape == (48, 68, 2)
    for name, found in zip(names, points, strict=True):
        split, _, file = name.split("/")
        np.testing.assert_array_equal(found, draw_face(9, split, int(file[:6]), 48, STRENGTHS).landmarks)


def test_the_settings_are_written_down(out):
    settings = json.loads((out / "faces.json").read_text())
    assert settings["strengths"] == dataclasses.asdict(STRENGTHS)
    assert [settings[key] for key in ("count", "val_count", "seed", "size")] == [32, 16, 9, 48]


def test_the_same_command_again_does_nothing(out, capsys, no_drawing):
    before = contents(out)
    faces.main(["--out", str(out), *COMMAND])
    assert "holds these faces already" in capsys.readouterr().out
    assert contents(out) == before


@pytest.mark.parametrize("change", [["--seed", "8"], ["--count", "48"], ["--size", "40"], ["--pose", "0.1"]])
def test_other_settings_are_refused(out, capsys, no_drawing, change):
    before = contents(out)
    said = refused(capsys, "--out", str(out), *COMMAND, *change)
    assert re.search(rf"holds faces of {change[0][2:]} \S+, not {change[1]}: take another folder", said)
    assert contents(out) == before


@pytest.mark.parametrize("existing", ["notes.txt", "train/happy/mine.jpg", "val/sad/mine.jpg", "faces.json"])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, capsys, no_drawing, existing):
    (tmp_path / existing).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / existing).write_bytes(b"not ours")
    assert "holds something else" in refused(capsys, "--out", str(tmp_path), *COMMAND)
    assert contents(tmp_path) == {tmp_path / existing: b"not ours"}


def test_a_file_is_no_folder(tmp_path, capsys, no_drawing):
    (tmp_path / "out").write_bytes(b"a file")
    assert "holds something else" in refused(capsys, "--out", str(tmp_path / "out"), *COMMAND)


def interrupt(folder: Path, *arguments: str) -> None:
    """Runs the command and stops it after a few faces."""

    def a_few(draw, jobs):
        for job in jobs[:5]:
            draw(job)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(faces, "_in_parallel", a_few)
        faces.main(["--out", str(folder), *arguments])


def in_this_process(draw, jobs):
    return [draw(job) for job in jobs]


def test_an_interrupted_run_is_completed_by_the_same_command(out, tmp_path, monkeypatch):
    interrupt(tmp_path, *COMMAND)
    assert len(contents(tmp_path)) == 6 and not (tmp_path / "faces.json").exists()
    monkeypatch.setattr(faces, "_in_parallel", in_this_process)
    faces.main(["--out", str(tmp_path), *COMMAND])
    complete, again = contents(out), contents(tmp_path)
    assert {p.relative_to(tmp_path) for p in again} == {p.relative_to(out) for p in complete}
    assert all(again[tmp_path / p.relative_to(out)] == data for p, data in complete.items() if p.suffix != ".npz")


def test_an_interrupted_run_is_not_mixed_with_another(tmp_path, capsys, no_drawing):
    interrupt(tmp_path, *COMMAND)
    capsys.readouterr()
    assert "holds something else" in refused(capsys, "--out", str(tmp_path), *COMMAND, "--seed", "10")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "15"], r"--count 15 and --val-count 3 must be at least 16"),
        (["--count", "40"], r"--count 40 and --val-count 10 must be at least 16"),
        (["--size", "8"], r"--size 8 must lie in 16..1024"),
        (["--seed", "-1"], r"--seed = -1 must lie in 0..4294967295"),
        (["--seed", str(2**32)], r"--seed = 4294967296 must lie in 0..4294967295"),
        (["--tint", "1.5"], r"strength tint=1.5"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, capsys, no_drawing, arguments, message):
    assert message in refused(capsys, "--out", str(tmp_path / "new"), *arguments)
    assert not (tmp_path / "new").exists()


def test_nothing_to_do_is_said(capsys):
    assert "--out DIR" in refused(capsys)


def test_a_sheet_is_a_picture_of_eight_rows(tmp_path, no_drawing):
    faces.main(["--sheet", str(tmp_path / "sheet.png"), "--size", "32", "--seed", "2"])
    with Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())) as sheet:
        assert sheet.size == (76 + 8 * 96, 8 * 96)
        corner = np.asarray(sheet)[:96, 76 : 76 + 96]
    np.testing.assert_array_equal(corner[1::3, 1::3], draw_face(2, "val", 0, 32, DEMO).image)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("sheet", "ends in .png or .jpg"), ("notes.txt/sheet.png", "notes.txt/sheet.png cannot be written")],
)
def test_a_sheet_that_cannot_be_written_is_named(tmp_path, capsys, name, message):
    (tmp_path / "notes.txt").write_text("a file")
    assert message in refused(capsys, "--sheet", str(tmp_path / name), "--size", "16")
