"""Every command of README runs as it stands, on a few generated faces and with sizes made small at its end.

Each code block runs in a folder of its own. What a block names and does not make itself (FACES, DIR, RUN, PROBE) lies
there before: the first block that makes it has made it for all that follow.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = [block for block in re.findall(r"(?:^    .+\n|^\n(?=    ))+", README, re.MULTILINE) if block.strip()]
ONLY_READ = {"git", "pip", "make"}  # they fetch, install, or do everything
SMALLER = {
    "faces": ["--count=32", "--val-count=16", "--size=32"],
    "train.py": [
        "--config.batch_size=8", "--config.epochs=1", "--config.trunk.stage_sizes=(1,1)", "--config.trunk.width=4",
        "--config.heads.hidden=8", "--config.heads.out=8", "--config.facemae.n_groups=4", "--config.facemae.patch=4",
        "--config.facemae.width=8", "--config.facemae.depth=1", "--config.facemae.heads=2",
        "--config.facemae.decoder_width=8", "--config.facemae.decoder_depth=1", "--config.facemae.decoder_heads=2",
        "--config.views.size=16", "--config.views.plain_size=16", "--config.data.canvas=16",
    ],
    "probe.py": ["--config.epochs=1", "--config.batch_size=8"],
}  # fmt: skip


def commands(block: str) -> list[list[str]]:
    """The words of every command of a block, without prose and Python."""
    lines = (line.strip() for line in block.splitlines())
    words = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [each for each in words if each and re.fullmatch(r"python|git|pip|make|\.|cd", each[0])]


def program(words: list[str]) -> str:
    """`train.py` or, of `python -m simfle_jax.NAME`, NAME."""
    return words[2].rsplit(".", 1)[1] if words[1] == "-m" else words[1]


def shrunk(words: list[str]) -> list[str]:
    """The command with what makes it small at its end."""
    return [sys.executable, *words[1:], *SMALLER.get(program(words), [])]


# These programs run once, so compiling them well would take longer than it saves.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
RUNNABLE = [[c for c in commands(block) if c[0] == "python" and c[1:3] != ["-m", "venv"]] for block in BLOCKS]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """What the blocks have made so far, by the name that README gives it; DIR is labelled faces, as FACES are."""
    return {}


@pytest.mark.parametrize("block", [block for block in RUNNABLE if block], ids=lambda block: program(block[-1]))
def test_the_commands_of_a_block_run(block, made, tmp_path):
    for name in ("train.py", "probe.py", "configs", "simfle_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    outputs = {
        match[1] for words in block for match in re.finditer(r"--(?:out|workdir)[= ]([A-Z]+)\b", " ".join(words))
    }
    for name, path in made.items():
        if name not in outputs:
            (tmp_path / name).symlink_to(path)
    for words in block:
        done = subprocess.run(shrunk(words), cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr[-600:]}"
    for name in outputs:
        made.setdefault(name, tmp_path / name)
        if name == "FACES":
            made.setdefault("DIR", tmp_path / name)


def test_every_other_command_is_one_that_is_only_read():
    others = [words for block in BLOCKS for words in commands(block) if words[0] != "python"]
    assert {words[0] for words in others} <= ONLY_READ | {"cd", "."}
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {words[1] for words in others if words[0] == "make"} <= set(targets)
    extras = re.findall(
        r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1], re.MULTILINE
    )
    assert set(re.findall(r"-e '\.\[(\w+)\]'", README)) <= set(extras)


def test_the_lines_of_python_run(made, monkeypatch, capsys):
    (code,) = [block for block in BLOCKS if "import simfle_jax" in block]
    monkeypatch.chdir(made["RUN"].parent)
    namespace = {"images": np.zeros((2, 20, 24, 3), np.uint8)}
    exec("\n".join(line.strip() for line in code.splitlines()), namespace)
    assert namespace["features"].shape == (2, namespace["encoder"].dim)
    assert namespace["maps"].shape[-1] == namespace["encoder"].dim and "mean" in capsys.readouterr().out
