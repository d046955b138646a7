"""What takes the place of a file is on the disk before it does."""

import os

import numpy as np
import pytest

from simfle_jax.evaluation import records
from simfle_jax.evaluation.linear import Linear
from simfle_jax.writing import write_whole, writing_output


def by_replacing(path):
    with writing_output(path) as temporary:
        temporary.write_text("new")


def probe(path):
    layer = Linear(np.zeros((2, 3), np.float32), np.zeros(3, np.float32))
    records.save_probe(path.parent, records.TrainedProbe(layer, ("a", "b", "c"), "hash"))


WRITERS = {
    "config.json": lambda path: write_whole(path, "new"),
    "encoder.safetensors": by_replacing,
    "probe.safetensors": probe,
    "predictions.csv": lambda path: records.write_predictions(path, []),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_power_cut_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch, name):
    seen = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append("synced"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append("replaced"), replace(old, new)))
    (tmp_path / name).write_text("old")
    WRITERS[name](tmp_path / name)
    assert seen == ["synced", "replaced"]
    assert (tmp_path / name).read_bytes() != b"old" and os.listdir(tmp_path) == [name]
