"""The start of both commands: flags to a locked config, and mistakes in one line with status 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
from simfle_jax.commands import cli
from simfle_jax.errors import UserError

def main(config, workdir):
    if config.seed == 13:
        raise UserError("no thirteen")
    if config.seed == 14:
        raise KeyboardInterrupt
    print(config.seed, config.data.path, workdir)

cli.run(main, "What it does.")
"""


def start(*flags, folder=ROOT, program=PROGRAM):
    call = [sys.executable, "-c", program, *flags]
    return subprocess.run(
        call, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )


def test_flags_become_the_config():
    done = start("--config=configs/simfle.py", "--config.seed=5", "--config.data.path=faces", "--workdir=w")
    assert (done.returncode, done.stdout) == (0, "5 faces w\n")


@pytest.mark.parametrize("given, variant", [("", "None"), (":large", "large"), (":a:b", "a:b")])
def test_a_folder_of_a_config_may_have_colons_in_its_name(given, variant, tmp_path):
    folder = tmp_path / "of 9:30, C:"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from configs import simfle\n\n"
        "def get_config(variant=None):\n"
        "    config = simfle.get_config()\n"
        "    config.data.path = str(variant)\n"
        "    return config\n"
    )
    done = start(f"--config={folder / 'mine.py'}{given}", "--config.seed=5", "--workdir=w")
    assert (done.returncode, done.stdout) == (0, f"5 {variant} w\n"), done.stderr


def test_a_setting_keeps_its_name_where_the_config_has_one_of_an_old_name():
    done = start("--config=configs/probe.py", "--config.lr=0.05", "--config.momentum=.8", "--workdir=w")
    assert (done.returncode, done.stdout) == (0, "0  w\n"), done.stderr


def test_a_flag_of_an_earlier_version_sets_what_it_set():
    program = PROGRAM.replace("config.data.path", "config.optimizer.lr, config.facemae.width")
    done = start(
        "--config=configs/simfle.py", "--config.lr=0.5", "--config.model.vit_width=8", "--workdir=w", program=program
    )
    assert (done.returncode, done.stdout) == (0, "0 0.5 8 w\n"), done.stderr


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--workdir=w"], "give --config=FILE"),
        (["--config=configs/simfle.py"], "give --workdir=DIR"),
        (["--config=configs/nothing.py", "--workdir=w"], "no config in configs/nothing.py"),
        (["--config=configs/simfle.py", "--workdir=w", "--config.maskratio=.5"], "did you mean facemae.mask_ratio?"),
        (["--config=configs/simfle.py", "--workdir=w", "--config.learning_rate=1"], "did you mean optimizer.lr?"),
        (["--config=configs/probe.py", "--workdir=w", "--config.learning_rate=1"], "did you mean lr?"),
        (["--config=configs/simfle.py", "--workdir=w", "--config.qqqqqqq=1"], "--help beside --config=FILE lists all"),
        (["--config=configs/simfle.py", "--workdir=w", "--config.epochs=many"], "--config.epochs=many: invalid"),
        (["--config=configs/simfle.py", "--workdr=w"], "workdir"),
        (["--config=configs/simfle.py", "--workdir=w", "--config.seed=13"], "no thirteen"),
        (["--config=configs/simfle.py", "--workdir=w", "--config.remat", "False"], "'False' is no flag"),
        (["--config=configs/simfle.py", "--workdir=w", "\u2014config.seed=3"], "is no flag and would change nothing"),
        (["--config=configs/simfle.py", "--workdir=w", "--", "--config.seed=3"], "is no flag"),
        (
            ["--config=configs/simfle.py", "--workdir=w", "--config.trunk=resnet18"],
            "--config=configs/simfle.py:resnet18",
        ),
        (
            ["--config=configs/demo.py", "--workdir=w", "--config.method=byol", "--config.facemae.tie=target"],
            "method = 'byol' has no FaceMAE, and facemae.tie would change nothing",
        ),
    ],
)
def test_a_mistake_in_flags_is_one_line_and_status_2(flags, message):
    done = start(*flags)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not done.stdout


def test_a_blank_may_stand_for_the_equals_sign_of_the_file_and_the_folder():
    done = start("--config", "simfle_reference:resnet18", "--config.seed=4", "--workdir", "w")
    assert (done.returncode, done.stdout) == (0, "4  w\n"), done.stderr


def test_the_home_folder_is_found_where_a_shell_leaves_its_sign():
    done = start("--config=simfle", "--config.data.path=~/faces", "--workdir=~/w")
    assert done.stdout == f"0 {Path.home()}/faces {Path.home()}/w\n", done.stderr


def test_an_interrupt_is_told_without_traceback():
    done = start("--config=configs/simfle.py", "--workdir=w", "--config.seed=14")
    assert done.returncode == 130
    assert done.stderr == "stopped; the same command starts again\n"


def test_a_preset_is_chosen_by_name_from_anywhere(tmp_path):
    done = start("--config=simfle:resnet18", "--config.seed=3", "--workdir=w", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "3  w\n"), done.stderr


def test_help_tells_what_it_does_its_flags_and_the_settings_of_a_config():
    done = start("--config=configs/simfle.py:resnet18", "--help")
    assert done.returncode == 0 and done.stdout.startswith("What it does.")
    assert "--workdir: " in done.stdout and "--config.trunk.stage_sizes=(2, 2, 2, 2)" in done.stdout
