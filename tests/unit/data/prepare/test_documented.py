"""The commands of docs/data.md, as they stand there, on fakes of the layouts."""

import re
import shlex
from pathlib import Path

import landmark_fakes
import layout_fakes as fakes
import pytest
import tiny_detector
from small import status

from simfle_jax.commands import prepare as command

ROOT = Path(__file__).parents[4]


def photographs(root: Path) -> None:
    """One with a face, one without."""
    root.mkdir()
    tiny_detector.photograph((320, 240), [(80, 80)]).save(root / "one.png")
    tiny_detector.photograph((320, 240), []).save(root / "none.png")


SOURCES = {
    "AffectNet": fakes.affectnet_newer,
    "RAF-DB/basic": fakes.rafdb,
    "FERPlus": fakes.ferplus_csv,
    "SFEW_2.0": lambda root: fakes.sfew(root, aligned=True),
    "300W": landmark_fakes.w300,
    "300VW": landmark_fakes.w300vw,
    "WFLW": landmark_fakes.wflw,
    "MyImages": fakes.rafdb,  # any folder of images will do
    "PHOTOGRAPHS": photographs,
}


def commands(document: str) -> list[list[str]]:
    lines = re.findall(r"^    python -m simfle_jax\.prepare (.*)$", (ROOT / document).read_text(), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_every_command_of_prepare_works(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2")
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMFLE_FACE_DETECTOR", str(tiny_detector.write_detector(tmp_path / "tiny.onnx")))
    for name, make in SOURCES.items():
        make(tmp_path / name)
    shown = commands("docs/data.md")
    assert {arguments[0] for arguments in shown} == {*command.PLANS, "--check", "--pack"}
    for arguments in shown:
        assert status(command, arguments) == 0, (arguments, capsys.readouterr().err)
    for name, expected in (("rafdb", fakes.RAFDB), ("ferplus", fakes.FERPLUS_MAJORITY), ("sfew", fakes.SFEW)):
        assert fakes.tree(tmp_path / "data" / name, "train", "val") == expected
    assert {path.name for path in (tmp_path / "data/faces/unlabelled").iterdir()} == {"one.png", "none.png"}
    assert (tmp_path / "data/rafdb_packed/val/index.json").is_file()
