"""simfle: every command by its name, each with help that comes fast; the old modules are the same commands."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import simfle_jax
from simfle_jax.commands.main import COMMANDS, main

ROOT = Path(__file__).parents[3]
ALIASES = sorted(set(COMMANDS) - {"train", "probe"})


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def test_every_command_is_listed_and_there():
    files = {path.stem for path in (ROOT / "simfle_jax" / "commands").glob("[a-z]*.py")}
    assert files - set(COMMANDS) == {"aligning", "cli", "convert_run", "ending", "main", "presets"}
    for name in COMMANDS:
        assert callable(importlib.import_module(f"simfle_jax.commands.{name}").main), name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_each_needs_no_jax(name, tmp_path):
    """JAX takes seconds to import: what only tells how to call a command must do without."""
    program = (
        f"import sys; sys.argv = ['simfle', '{name}', '--help']\n"
        "from simfle_jax.commands.main import main\n"
        "try: main()\nexcept SystemExit as end: print('status', end.code, 'jax' in sys.modules)"
    )
    done = run(tmp_path, "-c", program)
    assert done.stdout.strip().endswith("status 0 False"), done.stdout[-300:] + done.stderr[-300:]


@pytest.mark.parametrize("name", ALIASES)
def test_the_old_module_is_the_same_command(name):
    assert (
        importlib.import_module(f"simfle_jax.{name}").main
        is importlib.import_module(f"simfle_jax.commands.{name}").main
    )


def test_an_unknown_command_and_none(capsys):
    for arguments, status in (["tarin"], 2), ([], 2), (["--help"], 0), (["--version"], None):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == status
    out = capsys.readouterr()
    assert out.out.endswith(f"\nsimfle-jax {simfle_jax.__version__}\n")
    assert "error: there is no command tarin; give one of train, probe" in out.err and "Commands:" in out.out


def test_a_mistake_in_a_command_is_one_line(tmp_path):
    done = run(tmp_path, "-m", "simfle_jax", "train", "--config=smal", "--workdir=w")
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: no config in smal: ")
        and "did you mean small?" in done.stderr
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_a_reader_that_has_gone_is_no_mistake(argument, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended:
            main([argument])
    assert not ended.value.code
