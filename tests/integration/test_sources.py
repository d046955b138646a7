"""The same data from a folder, from ArrayRecord shards and from TFDS: the same twenty losses to the bit, and the same crop."""

import json
from pathlib import Path

import pytest
import small

from simfle_jax.data.packing import pack
from simfle_jax.training.loop import train
from simfle_jax.weights.files import read_arrays


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = small.write_images(tmp_path_factory.mktemp("data") / "images", 40)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder.parent / "manifest.json").write_text('{"rules": {"align": "eyes-1"}}')
    return folder


def losses(workdir: Path, **data) -> list[dict]:
    train(small.config(epochs=4, data={"max_bad_fraction": 0.1} | data), str(workdir))
    assert read_arrays(workdir / "encoder.safetensors")[1]["crop"] == "eyes-1", "as the prepared folder tells"
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key.startswith("loss/")} for line in lines]


@pytest.fixture(scope="module")
def from_folder(images, tmp_path_factory):
    lines = losses(tmp_path_factory.mktemp("runs") / "folder", path=str(images))
    assert len(lines) == 20 and len(lines[0]) == 5
    return lines


def test_array_record(images, from_folder, tmp_path):
    pack(str(images), str(tmp_path / "pack"), shard_bytes=20_000)
    assert losses(tmp_path / "run", source="array_record", path=str(tmp_path / "pack")) == from_folder


def test_tfds(images, from_folder, tmp_path):
    pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
    from simfle_jax.data.tfds_builders import build

    build(str(images), str(tmp_path / "tfds"), "unlabelled")
    source = "tfds:simfle_folder/unlabelled:train"
    assert losses(tmp_path / "run", source=source, path=str(tmp_path / "tfds")) == from_folder
