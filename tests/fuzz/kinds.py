"""What is damaged, and which part of the program then reads it."""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import layout_fakes as fakes
import numpy as np
import small
import small_probe
import torch
from PIL import Image
from safetensors.torch import load_file

from simfle_jax.data import array_record, bad_list, packing
from simfle_jax.data.decode import decode, decode_at_own_size, open_rgb
from simfle_jax.data.files import BadImage
from simfle_jax.data.prepare import affectnet, check, encode, ferplus, manifest, rafdb, scan
from simfle_jax.data.prepare.plan import Plan
from simfle_jax.data.prepare.run import prepare
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import feature_file, feature_table, records
from simfle_jax.evaluation.linear import Linear
from simfle_jax.reporting import images as report_images
from simfle_jax.reporting.read import read_metrics, read_probe, read_run
from simfle_jax.runs.checkpoint import Checkpoints, SavedCheckpoints
from simfle_jax.runs.folder import claim
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.training.restore import identity, run_config, upgraded_identity
from simfle_jax.training.state import TrainState


class Kind(NamedTuple):
    """Sound files, which of them are damaged, what reads them, and whose content must still be there afterwards."""

    make: Callable[[Path], object]
    damaged: str  # a pattern of names
    use: Callable[[Path, Path], object]  # the folder with the damage, and one to write to that is not there yet
    alone: bool = False  # each file is an input of its own
    kept: str = "**/*"


def all_of(calls: Iterable[Callable[[], object]]) -> None:
    """Makes all calls; raises a user's error of one of them at the end, any other at once."""
    told = []
    for call in calls:
        try:
            call()
        except UserError as error:
            told.append(error)
    if told:
        raise told[0]


def pictures(folder: Path) -> None:
    scene = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)).resize((90, 110))
    forms = {
        "a.jpg": (scene, {"format": "JPEG"}),
        "b.jpg": (scene, {"format": "JPEG", "progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0"}),
        "c.jpg": (scene.convert("CMYK"), {"format": "JPEG"}),
        "d.jpg": (scene.convert("L"), {"format": "JPEG", "subsampling": 0}),
        "e.png": (scene, {"format": "PNG"}),
        "f.png": (scene.quantize(8), {"format": "PNG", "transparency": 3}),
        "g.png": (scene.convert("I;16"), {"format": "PNG"}),
        "h.webp": (scene, {"format": "WEBP"}),
        "i.webp": (scene.convert("RGBA"), {"format": "WEBP", "lossless": True}),
        "j.webp": (scene, {"format": "WEBP", "save_all": True, "append_images": [scene.rotate(90)]}),
        "k.tif": (scene, {"format": "TIFF"}),  # these two are for `prepare` alone
        "l.gif": (scene, {"format": "GIF"}),
    }  # fmt: skip
    for name, (image, options) in forms.items():
        image.save(folder / name, **options)


def use_picture(folder: Path, _: Path) -> None:
    data = next(folder.iterdir()).read_bytes()
    read = (
        lambda: decode(data, 40),
        lambda: decode_at_own_size(data, 64, 16, np.empty((64, 64, 3), np.uint8)),
        lambda: scan._measured(data),
        lambda: open_rgb(data, encode.READ),
    )
    refused = 0
    for each in read:
        try:
            each()
        except BadImage:
            refused += 1
    if refused == len(read):
        raise BadImage("by all")


def encoders(folder: Path) -> None:
    small_probe.write_encoder(folder / "encoder.safetensors")


class Runs:
    """A pickle of it runs a program."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def torch_files(folder: Path) -> None:
    arrays = load_file(small_probe.write_encoder(folder / "encoder.safetensors"))
    (folder / "encoder.safetensors").unlink()
    torch.save(arrays, folder / "a.pth")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in arrays.items()}}, folder / "b.pth"
    )
    torch.save(arrays, folder / "c.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": arrays, "hook": Runs()}, folder / "d.pth")
    torch.save({"model": arrays, "hook": Runs()}, folder / "e.pth", _use_new_zipfile_serialization=False)


def state(step: int) -> TrainState:
    values = np.random.default_rng(step).standard_normal((20, 10)).astype(np.float32)
    return TrainState(jax.numpy.asarray(step, jax.numpy.int32), {"online": {"kernel": jax.numpy.asarray(values)}}, {}, {}, {}, {})  # fmt: skip


def checkpoints(folder: Path) -> None:
    with Checkpoints(folder) as saved:
        for step in (1, 2):
            saved.save(state(step), wait=True)


def use_checkpoints(folder: Path, out: Path) -> None:
    shapes = jax.eval_shape(lambda: state(0))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    manager = Checkpoints if size % 2 else SavedCheckpoints  # one sets damaged ones aside, the other only reads
    with manager(folder) as saved:
        found = saved.restore(shapes, jax.tree.map(lambda _: sharding, shapes))
    if found is not None:
        step = int(found.step)
        assert np.array_equal(found.params["online"]["kernel"], state(step).params["online"]["kernel"]), "other values"


def packs(folder: Path) -> None:
    faces = folder.with_name("faces-to-pack")
    for label in ("a", "b"):
        small.write_images(faces / "train" / label, 3)
    packing.pack(str(faces / "train"), str(folder / "pack"))
    shutil.rmtree(faces)


def use_pack(folder: Path, _: Path) -> None:
    source = array_record.ArrayRecordSource(folder / "pack")
    assert source.fingerprint
    for index in range(len(source)):
        try:
            decode(source[index].data, 16)
        except (BadImage, OSError):  # told and counted; an OSError stops the run in one line
            assert source.name(index)


RULES = {"alignment": "aligned"}


def manifests(folder: Path) -> None:
    prepare(functools.partial(rafdb.plan, **RULES), fakes.rafdb(folder / "source"), folder / "out")
    check.save(check.check(folder / "out"), folder / "check.json")
    for name in ("source", "out/train", "out/val", "out/unlabelled"):
        shutil.rmtree(folder / name)


def use_manifest(folder: Path, _: Path) -> None:
    check.require_free(folder / "check.json")
    manifest.begin(Plan("rafdb", {**RULES, "val": "test"}), folder / "out", folder)


def labels(folder: Path) -> None:
    fakes.rafdb(folder / "rafdb")
    fakes.affectnet_older(folder / "affectnet")
    fakes.ferplus_csv(folder / "ferplus")


PLANS = {"rafdb": rafdb.plan, "affectnet": affectnet.plan, "ferplus": ferplus.plan}


def use_labels(folder: Path, out: Path) -> None:
    all_of([functools.partial(prepare, plan, folder / name, out / name) for name, plan in PLANS.items()])


def configs(folder: Path) -> None:
    recorded = identity(small.config(), "abc")
    claim(folder, recorded, upgraded_identity)
    (folder / "checkpoints/4").mkdir(parents=True)
    (folder / "checkpoints/4/state").write_bytes(b"values")
    (folder / "metrics.jsonl").write_text('{"step": 1, "seconds": 1.0, "loss/total": 2.0}\n')


def use_config(folder: Path, _: Path) -> None:
    read_run(folder, "run", [4])
    records.training_settings(folder)
    config = run_config(folder)
    claim(folder, identity(config, "abc"), upgraded_identity, write=False)


def metrics(folder: Path) -> None:
    lines = [{"step": step, "epoch": 1, "loss/total": 1 / step, "seconds": float(step)} for step in range(1, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def use_metrics(folder: Path, _: Path) -> None:
    notes: list[str] = []
    for line in read_metrics(folder / "metrics.jsonl", notes):
        assert isinstance(line["step"], int)
    log = MetricsLog(folder, 5)
    log.write({"step": 6, "seconds": log.seconds + 1})
    assert all(isinstance(json.loads(line), dict) for line in (folder / "metrics.jsonl").read_text().splitlines())


NAMES = [f"train/a/{number}.jpg" for number in range(5)]


def landmarks(folder: Path) -> None:
    np.savez_compressed(folder / "landmarks.npz", name=np.array(NAMES), points=np.ones((5, 68, 2), np.float32))
    (folder / "faces.json").write_text(json.dumps({"size": 40, "seed": 0}))


def use_landmarks(folder: Path, _: Path) -> None:
    report_images.landmarks(folder, NAMES[:2])


def probes(folder: Path) -> None:
    layer = Linear(np.ones((4, 2), np.float32), np.zeros(2, np.float32))
    records.save_probe(folder, records.TrainedProbe(layer, ("a", "b"), "v2-00", 40))
    records.write_predictions(folder / "predictions.csv", [(name, "a", "b", 0.5) for name in NAMES])
    (folder / "results.json").write_text(
        json.dumps({"accuracy": 0.5, "classes": ["a", "b"], "confusion": [[1, 2], [3, 4]]})
    )
    (folder / "config.json").write_text(json.dumps({"protocol": "cached", "data": {"canvas": 40}, "schema": 1}))
    bad_list.write_bad_list(folder / "bad_images.txt", {"a.jpg": "empty file"})
    with feature_file.FeatureFile(folder / "features.npz", NAMES, 4, {}) as file:
        file.append(np.ones((5, 4), np.float32), np.arange(5), {}, 5)
        file.finish()


def use_probe(folder: Path, _: Path) -> None:
    reads = (
        lambda: records.load_probe(folder),
        lambda: records.read_predictions(folder / "predictions.csv"),
        lambda: read_probe(folder, "probe"),
        lambda: records.read_results(folder),
        lambda: bad_list.read_bad_list(folder / "bad_images.txt"),
        lambda: feature_table.read_features(folder / "features.npz"),
    )
    all_of(reads)


def load(folder: Path, _: Path) -> None:
    load_encoder(next(folder.iterdir()))


KINDS = {
    "images": Kind(pictures, "*", use_picture, alone=True),
    "encoders": Kind(encoders, "*", load, alone=True),
    "torch": Kind(torch_files, "*", load, alone=True),
    "checkpoints": Kind(checkpoints, "checkpoints/2/**/*", use_checkpoints),
    "packs": Kind(packs, "pack/*", use_pack),
    "manifests": Kind(manifests, "**/*.json", use_manifest),
    "labels": Kind(labels, "**/*.[ct][sx][vt]", use_labels),
    "configs": Kind(configs, "config.json", use_config, kept="checkpoints/**/*"),
    "metrics": Kind(metrics, "metrics.jsonl", use_metrics, kept=""),
    "landmarks": Kind(landmarks, "*", use_landmarks),
    "probes": Kind(probes, "*", use_probe),
}


def sound(kind: Kind, folder: Path) -> dict[str, bytes]:
    """The files of a kind by their names, made in an empty folder that is removed again."""
    folder.mkdir(parents=True)
    kind.make(folder)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    shutil.rmtree(folder)
    return found
