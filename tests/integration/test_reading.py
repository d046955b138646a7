"""What a run does about images that cannot be used, and about its cache: as runs, with signals."""

import json
import os
import signal
import time

import pytest
import small

from simfle_jax.data import cache, reading
from simfle_jax.data.bad_list import read_bad_list, write_bad_list
from simfle_jax.errors import UserError
from simfle_jax.training.loop import Run, train

BROKEN = {os.fsdecode(b"\xe9t\xe9.jpg"), "line\nbreak.jpg", "zz.jpg"}


@pytest.fixture
def images(tmp_path):
    """Sixteen images and three that are none, one of a name that is not UTF-8, one of a name with a line break."""
    folder = small.write_images(tmp_path / "images", 16)
    for name in BROKEN:
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"broken")
    return folder


def config(images, **data):
    return small.config(
        data={"path": str(images), "max_bad_fraction": 0.5} | data, epochs=4, checkpoint_steps=100, method="byol"
    )


def losses(run):
    return [json.loads(line)["loss/total"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def stopped_at(monkeypatch, step):
    """SIGTERM arrives while that step is computed."""
    original = Run._after_step

    def after_step(self, done, *rest):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, done, *rest)

    monkeypatch.setattr(Run, "_after_step", after_step)


def test_bad_images_are_listed_at_a_signal_and_stay_listed_when_the_run_goes_on(images, tmp_path, monkeypatch):
    listed = tmp_path / "run" / "bad_images.txt"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        stopped_at(patch, 3)
        train(config(images), str(tmp_path / "run"))
    assert ended.value.code == 128 + signal.SIGTERM
    found = read_bad_list(listed)
    assert found and found.keys() <= BROKEN
    # As if the earlier start had found two others: one is in the data still, the other was taken out.
    write_bad_list(listed, {"000.jpg": "found before", "removed.jpg": "found before"})
    train(config(images), str(tmp_path / "run"))
    found = read_bad_list(listed)
    assert found.pop("000.jpg") == "found before" and found and found.keys() <= BROKEN


def test_bad_images_are_listed_when_there_are_too_many(images, tmp_path):
    with pytest.raises(UserError, match=r"images cannot be read, more than data.max_bad_fraction=0\.01"):
        train(config(images, max_bad_fraction=0.01), str(tmp_path / "run"))
    found = read_bad_list(tmp_path / "run" / "bad_images.txt")
    assert found and found.keys() <= BROKEN


def test_bad_images_of_a_whole_run(images, tmp_path):
    train(config(images), str(tmp_path / "run"))
    lines = (tmp_path / "run" / "bad_images.txt").read_bytes()
    assert set(read_bad_list(tmp_path / "run" / "bad_images.txt")) == BROKEN
    assert rb"\xe9t\xe9.jpg" in lines and lines.count(b"\n") == 3


def test_a_run_with_a_cache_is_the_same_run_and_decodes_once(images, tmp_path, monkeypatch):
    train(config(images), str(tmp_path / "plain"))
    kept = str(tmp_path / "canvases")
    train(config(images, cache=kept), str(tmp_path / "first"))
    assert losses(tmp_path / "first") == losses(tmp_path / "plain")
    assert os.path.getsize(kept) > 19 * 16 * 16 * 3
    original = reading.decode
    monkeypatch.setattr(reading, "decode", lambda data, *rest: original(data, *rest) if data.ndim == 3 else None)
    train(config(images, cache=kept), str(tmp_path / "second"))
    assert losses(tmp_path / "second") == losses(tmp_path / "plain")
    assert (tmp_path / "second" / "bad_images.txt").read_bytes() == (tmp_path / "plain" / "bad_images.txt").read_bytes()


def test_a_signal_is_heeded_while_the_cache_is_built(images, tmp_path, monkeypatch, capsys):
    decoded, original, kept = [], reading.decode, tmp_path / "kept" / "canvases"

    def slowly(*arguments):
        decoded.append(1)
        if len(decoded) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        return original(*arguments)

    monkeypatch.setattr(cache, "ROWS", 2)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(reading, "decode", slowly)
        train(config(images, cache=str(kept)), str(tmp_path / "run"))
    assert ended.value.code == 128 + signal.SIGTERM and len(decoded) < 19
    assert "SIGTERM: stopped while the cache of decoded images was built; the same command" in capsys.readouterr().err
    assert not os.listdir(kept.parent) and not (tmp_path / "run" / "metrics.jsonl").read_text()
    train(config(images, cache=str(kept)), str(tmp_path / "run"))
    assert kept.exists() and len(losses(tmp_path / "run")) == 8
