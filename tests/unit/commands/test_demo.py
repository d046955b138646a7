"""The demo's runs side by side."""

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import small
from PIL import Image

from simfle_jax.commands import demo
from simfle_jax.errors import UserError
from simfle_jax.evaluation import looking


def run(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code])


def test_one_run_is_waited_for_while_the_other_goes_on(tmp_path):
    slow = run("import time; time.sleep(60)")
    running = {"SimFLE": (slow, tmp_path / "simfle.log"), "BYOL": (run(""), tmp_path / "byol.log")}
    demo.finished("BYOL", running)
    assert slow.poll() is None
    slow.kill()
    slow.wait()


def test_a_failed_run_is_named_at_once_though_another_is_waited_for(tmp_path):
    slow = run("import time; time.sleep(60)")
    running = {"SimFLE": (run("raise SystemExit(3)"), tmp_path / "simfle.log"), "BYOL": (slow, tmp_path / "byol.log")}
    with pytest.raises(UserError, match=r"the SimFLE run ended with status 3; see above or .*simfle\.log"):
        demo.finished("BYOL", running)
    slow.kill()
    slow.wait()


def test_the_picture_has_a_row_for_each_of_three_faces(tmp_path):
    images = np.arange(50, dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2).repeat(3, 3)

    def look(config, state, shown):
        pixels, kept = shown / 255, np.arange(16) < np.full((len(shown), 1), 4)
        return looking.Look(9, pixels, pixels, kept, np.zeros((len(shown), 16)), None, None, None)

    with mock.patch.object(looking, "look", mock.Mock(side_effect=look)) as seen:
        demo.picture(small.config(), mock.Mock(), images, tmp_path / "faces.png")
    assert len(set(seen.call_args.args[2][:, 0, 0, 0])) == 3
    with Image.open(tmp_path / "faces.png") as picture:
        assert picture.height // 144 == 3 and picture.width // 144 == 4
