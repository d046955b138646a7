"""The claim of a run's folder, as the processes that did not make it see it."""

import threading

import pytest

from simfle_jax.errors import UserError
from simfle_jax.runs.files import write_json
from simfle_jax.runs.folder import wait_for_claim


def test_a_folder_that_a_shared_disk_shows_late_is_waited_for(tmp_path):
    folder = tmp_path / "run"

    def appear():
        folder.mkdir()
        write_json(folder / "config.json", {})

    late = threading.Timer(0.5, appear)
    late.start()
    wait_for_claim(folder, seconds=30)
    assert (folder / "config.json").exists()
    late.join()


def test_a_folder_that_never_appears_is_told(tmp_path):
    with pytest.raises(
        UserError, match="of process 0 is not seen here: --workdir must be on a disk that all hosts share"
    ):
        wait_for_claim(tmp_path / "run", seconds=0.1)
