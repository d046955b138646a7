"""The commands of docs/data.md, as they stand there, on fakes of the layouts."""

import re
import shlex
from pathlib import Path

import landmark_fakes
import layout_fakes as fakes
from small import status

from simfle_jax.commands import prepare as command

ROOT = Path(__file__).parents[4]
SOURCES = {
    "AffectNet": fakes.affectnet_newer,
    "RAF-DB/basic": fakes.rafdb,
    "FERPlus": fakes.ferplus_csv,
    "SFEW_2.0": lambda root: fakes.sfew(root, aligned=True),
    "300W": landmark_fakes.w300,
    "WFLW": landmark_fakes.wflw,
    "MyImages": fakes.rafdb,  # any folder of images will do
}


def commands(document: str) -> list[list[str]]:
    lines = re.findall(r"^    python -m simfle_jax\.prepare (.*)$", (ROOT / document).read_text(), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def test_every_command_of_prepare_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, make in SOURCES.items():
        make(tmp_path / name)
    shown = commands("docs/data.md")
    assert {arguments[0] for arguments in shown} == {*command.PLANS, "--check", "--pack"}
    for arguments in shown:
        assert status(command, arguments) == 0, (arguments, capsys.readouterr().err)
    for name, expected in (("rafdb", fakes.RAFDB), ("ferplus", fakes.FERPLUS_MAJORITY), ("sfew", fakes.SFEW)):
        assert fakes.tree(tmp_path / "data" / name, "train", "val") == expected
    assert (tmp_path / "data/rafdb_packed/val/index.json").is_file()
