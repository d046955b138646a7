"""probe.py from folders and an encoder to results, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_probe import METADATA, SIZES, write_encoder, write_split

from configs import probe as probe_config
from simfle_jax.data.packing import pack
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import probe as probes
from simfle_jax.evaluation import records
from simfle_jax.evaluation.protocols import cached, linear
from simfle_jax.evaluation.settings import probing
from simfle_jax.runs.lock import Lock

ROOT = Path(__file__).parents[2]
COUNTS = {"blue": 12, "green": 12, "red": 12}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_encoder(folder / "encoder.safetensors")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_split(folder / "train", COUNTS)
    write_split(folder / "val", dict.fromkeys(COUNTS, 6), seed=1)
    return folder


@pytest.fixture
def settings(run, data):
    def make(**changes):
        config = probe_config.get_config()
        config.update(encoder=str(run), epochs=12, batch_size=16, protocol="cached", lr=1.0)
        config.data.path = str(data)
        config.update(changes)
        return probing(config)

    return make


def read(folder, name="results.json"):
    return json.loads((folder / name).read_text())


def command(*arguments):
    call = [sys.executable, "probe.py", "--config=configs/probe.py", *arguments]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command_probes_and_evaluates(run, data, tmp_path):
    work = tmp_path / "probe"
    flags = [
        f"--config.encoder={run}", f"--config.data.path={data}", f"--workdir={work}", "--config.epochs=12",
        "--config.protocol=cached", "--config.lr=1.0",
    ]  # fmt: skip
    trained = command(*flags)
    assert trained.returncode == 0, trained.stderr
    assert "macro f1" in trained.stdout and "ends" not in trained.stdout
    results = read(work)
    assert results["accuracy"] > 0.8  # three colours: even random features tell them apart
    assert np.trace(results["confusion"]) / results["count"] == results["accuracy"]
    assert results["classes"] == ["blue", "green", "red"] and results["count"] == 18
    assert {path.name for path in work.iterdir()} >= {
        "config.json", "environment.json", "metrics.jsonl", "probe.safetensors", "confusion.png", "results.json",
    }  # fmt: skip

    evaluated = command(*flags, "--config.eval_only=True")
    assert evaluated.returncode == 0, evaluated.stderr
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "per_class", "confusion", "classes", "encoder_hash"):
        assert read(work, "evaluation.json")[key] == results[key]


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--config.epoch=3", "there is no setting epoch; did you mean epochs?"),
        ("--config.data.pth=x", "there is no setting data.pth; did you mean data.path?"),
        ("--wrkdir=x", "workdir"),
        ("--config.encoder=/nowhere", "no encoder at /nowhere"),
        ("--config.dataset=imagenet", "must be one of affectnet8"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, data, tmp_path, flag, message):
    done = command(f"--config.encoder={run}", f"--config.data.path={data}", f"--workdir={tmp_path / 'p'}", flag)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "p").exists()


def test_best_epoch_and_last_epoch_are_those_of_the_metrics(settings, tmp_path):
    results = probes.run_probe(settings(), str(tmp_path / "p"))
    lines = [json.loads(line) for line in (tmp_path / "p" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    on_val = [line["accuracy/val"] for line in lines]
    assert results["best_epoch"] == 1 + np.argmax(on_val)
    assert results["accuracy"] == pytest.approx(max(on_val))
    assert results["last_epoch_accuracy"] == pytest.approx(on_val[-1])
    assert "as published" in results["selected_on"]


def test_a_pack_gives_the_numbers_of_its_folder(settings, data, tmp_path):
    pack(str(data), str(tmp_path / "pack"))
    places = {"folder": str(data), "array_record": str(tmp_path / "pack")}
    for source, path in places.items():
        chosen = settings(protocol="paper", epochs=2, data={"source": source, "path": path})
        probes.run_probe(chosen, str(tmp_path / source))
    one, other = ((tmp_path / source / "metrics.jsonl").read_text() for source in places)
    assert one == other and len(one.splitlines()) == 2


@pytest.fixture(scope="module")
def foreign(data, tmp_path_factory):
    """The images of `data` as a TFDS data set that numbers its classes in another order; its data_dir."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")

    class OtherOrder(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["red", "green", "blue"])
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": label})
            return self.dataset_info_from_configs(features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(data / split) for split in ("train", "val")}

        def _generate_examples(self, folder):
            for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
                yield number, {"image": path.read_bytes(), "label": path.parent.name}

    data_dir = tmp_path_factory.mktemp("tfds")
    OtherOrder(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return str(data_dir)


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_classes_meet_by_name_whatever_their_order(settings, data, foreign, tmp_path):
    """Probe on the folder, images from TFDS, and the other way round: the same images have the same scores."""
    other = {"source": "tfds:other_order", "path": foreign}
    on_folder = probes.run_probe(settings(), str(tmp_path / "p"))
    assert on_folder["accuracy"] > 0.8
    from_tfds = probes.run_probe(settings(eval_only=True, data=other), str(tmp_path / "p"))
    assert (from_tfds["classes"], from_tfds["confusion"]) == (on_folder["classes"], on_folder["confusion"])
    on_tfds = probes.run_probe(settings(data=other | {"val": (str(data / "val"),)}), str(tmp_path / "q"))
    assert on_tfds["classes"] == ["red", "green", "blue"] and on_tfds["accuracy"] > 0.8
    assert on_tfds["further"][str(data / "val")]["confusion"] == on_tfds["confusion"]


@pytest.mark.parametrize("protocol", ["paper", "cached"])
def test_an_interrupted_probe_ends_like_an_uninterrupted_one(settings, tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(cached, "EPOCHS_AT_ONCE", 2)
    whole = probes.run_probe(settings(protocol=protocol, epochs=6), str(tmp_path / "whole"))
    fit_epochs, calls = linear.fit_epochs, []

    def stopped_in_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit_epochs(*arguments)

    monkeypatch.setattr(linear, "fit_epochs", stopped_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        probes.run_probe(settings(protocol=protocol, epochs=6), str(tmp_path / "part"))
    again = probes.run_probe(settings(protocol=protocol, epochs=6), str(tmp_path / "part"))
    assert len(calls) == (8 - 1 if protocol == "paper" else 3 + 1)
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "part" / "metrics.jsonl").read_text()
    layers = [load_file(tmp_path / name / "probe.safetensors") for name in ("whole", "part")]
    for name, array in layers[0].items():
        np.testing.assert_array_equal(array, layers[1][name])
    assert again["confusion"] == whole["confusion"]


def test_the_holdout_chooses_and_val_is_reported(settings, data, tmp_path):
    changes = {"select_on": "train-holdout", "holdout": 0.25, "data": {"val": (str(data / "train"),)}}
    results = probes.run_probe(settings(**changes), str(tmp_path / "p"))
    lines = [json.loads(line) for line in (tmp_path / "p" / "metrics.jsonl").read_text().splitlines()]
    assert results["best_epoch"] == 1 + np.argmax([line["accuracy/train-holdout"] for line in lines])
    assert results["accuracy"] == pytest.approx(lines[results["best_epoch"] - 1]["accuracy/val"])
    assert results["train_count"] == 27 and results["count"] == 18
    assert results["further"][str(data / "train")]["count"] == 36


def test_untrained_is_another_encoder_and_repeats(settings, tmp_path):
    trained = probes.run_probe(settings(), str(tmp_path / "a"))
    fresh = probes.run_probe(settings(untrained=True), str(tmp_path / "b"))
    again = probes.run_probe(settings(untrained=True), str(tmp_path / "c"))
    assert fresh["encoder_hash"] != trained["encoder_hash"]
    assert (fresh["encoder_hash"], fresh["confusion"]) == (again["encoder_hash"], again["confusion"])
    assert fresh["untrained"] and not trained["untrained"]
    evaluated = probes.run_probe(settings(eval_only=True), str(tmp_path / "b"))  # with the encoder that was given then
    assert evaluated["confusion"] == fresh["confusion"] and evaluated["untrained"] is False


def refuse(*_):
    raise PermissionError(13, "Permission denied")


def test_unreadable_images_are_counted_and_listed(settings, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    write_split(folder / "train", COUNTS)
    write_split(folder / "val", dict.fromkeys(COUNTS, 6), seed=1)
    (folder / "train" / "red" / "003.jpg").write_bytes(b"")
    (folder / "val" / "blue" / "001.jpg").write_bytes(b"not an image")
    results = probes.run_probe(settings(data={"path": str(folder)}), str(tmp_path / "p"))
    assert results["skipped"] == 2 and results["count"] == 17
    listed = (tmp_path / "p" / "bad_images.txt").read_text().splitlines()
    assert [line.partition("\t")[0] for line in listed] == ["train/red/003.jpg", "val/blue/001.jpg"]
    (
        tmp_path / "p" / "results.json"
    ).unlink()  # as where the disk was full at the end: it goes on, and reads train no more
    again = probes.run_probe(settings(data={"path": str(folder)}), str(tmp_path / "p"))
    assert again["skipped"] == 2 and (tmp_path / "p" / "bad_images.txt").read_text().splitlines() == listed
    monkeypatch.setattr("simfle_jax.evaluation.features.write_bad_list", refuse)
    monkeypatch.setattr("simfle_jax.evaluation.results.write_bad_list", refuse)
    shown = probes.run_probe(settings(data={"path": str(folder)}, eval_only=True), str(tmp_path / "p"))
    assert shown["accuracy"] == again["accuracy"], "of a folder that may only be read"
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"max_bad_fraction=0\.01"):
        strict = settings(data={"path": str(folder), "max_bad_fraction": 0.01})
        probes.run_probe(strict, str(tmp_path / "q"))


def test_a_workdir_of_another_probe_is_refused_and_kept(settings, tmp_path):
    probes.run_probe(settings(), str(tmp_path / "p"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "p").iterdir()}
    with pytest.raises(UserError, match=r"is a run with lr = 1\.0, now 0\.2"):
        probes.run_probe(settings(lr=0.2), str(tmp_path / "p"))
    with pytest.raises(UserError, match="encoder_hash"):
        probes.run_probe(settings(untrained=True), str(tmp_path / "p"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "p").iterdir()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        probes.run_probe(settings(), str(tmp_path / "other"))


def test_two_probes_in_one_folder_are_refused(settings, tmp_path):
    with Lock(tmp_path / "p").acquire(), pytest.raises(UserError, match=r"p is in use by process \d+ on "):
        probes.run_probe(settings(), str(tmp_path / "p"))
    probes.run_probe(settings(), str(tmp_path / "p"))
    assert not (tmp_path / "p" / "lock.json").exists()


def test_a_probe_that_left_nothing_may_begin_with_other_settings(settings, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(linear, "fit_epochs", stop)
    with pytest.raises(KeyboardInterrupt):
        probes.run_probe(settings(), str(tmp_path / "p"))
    monkeypatch.undo()
    assert probes.run_probe(settings(lr=0.2), str(tmp_path / "p"))["epochs"] == 12


def test_evaluation_needs_a_probe_of_this_encoder(settings, tmp_path):
    with pytest.raises(UserError, match="holds no trained probe"):
        probes.run_probe(settings(eval_only=True), str(tmp_path / "p"))
    probes.run_probe(settings(), str(tmp_path / "p"))
    with pytest.raises(UserError, match="belongs to encoder"):
        probes.run_probe(settings(eval_only=True, untrained=True), str(tmp_path / "p"))
    assert not (tmp_path / "p" / "evaluation.json").exists()


@pytest.mark.parametrize("change", ["size", "standardise", "mean", "std", "last_stride"])
def test_the_same_numbers_with_other_preprocessing_are_another_encoder(settings, run, tmp_path, change):
    probes.run_probe(settings(), str(tmp_path / "p"))
    sizes = SIZES | ({"last_stride": 2} if change == "last_stride" else {})
    other = {"size": "32", "standardise": "image", "mean": "[0.4, 0.5, 0.5]", "std": "[0.3, 0.25, 0.25]"}
    metadata = METADATA | {key: other[key] for key in other if key == change} | {"architecture": json.dumps(sizes)}
    save_file(load_file(run / "encoder.safetensors"), tmp_path / "other.safetensors", metadata=metadata)
    with pytest.raises(UserError, match="belongs to encoder v2-"):
        probes.run_probe(settings(eval_only=True, encoder=str(tmp_path / "other.safetensors")), str(tmp_path / "p"))


def test_a_probe_of_before_is_accepted_by_the_hash_of_then(settings, run, tmp_path):
    """Finished, unfinished and in evaluation; but not with another preprocessing than was recorded."""
    first = probes.run_probe(settings(epochs=3), str(tmp_path / "p"))
    legacy = load_encoder(run).legacy_hash
    assert len(legacy) == 16
    for name in ("config.json", "results.json"):
        before = read(tmp_path / "p", name) | {"encoder_hash": legacy}
        (tmp_path / "p" / name).write_text(json.dumps(before))
    kept = records.load_probe(tmp_path / "p")
    records.save_probe(tmp_path / "p", kept._replace(encoder_hash=legacy))
    assert probes.run_probe(settings(epochs=3), str(tmp_path / "p"))["encoder_hash"] == legacy  # complete: only read
    assert probes.run_probe(settings(eval_only=True), str(tmp_path / "p"))["confusion"] == first["confusion"]
    save_file(load_file(run / "encoder.safetensors"), tmp_path / "stripped.safetensors")
    with pytest.raises(UserError, match=r"belongs to an encoder of .*size 24, .* has 224"):
        probes.run_probe(settings(eval_only=True, encoder=str(tmp_path / "stripped.safetensors")), str(tmp_path / "p"))
    (tmp_path / "p" / "results.json").unlink()
    again = probes.run_probe(settings(epochs=3), str(tmp_path / "p"))
    assert again["confusion"] == first["confusion"]


def test_an_evaluation_reports_the_settings_of_the_training(settings, data, tmp_path):
    chosen = {"epochs": 3, "balance": "sampling", "seed": 4, "data": {"canvas": 16}}
    trained = probes.run_probe(settings(**chosen), str(tmp_path / "p"))
    flags = {"eval_only": True, "protocol": "paper", "epochs": 100, "seed": 0}
    probes.run_probe(settings(**flags), str(tmp_path / "p"))
    found = read(tmp_path / "p", "evaluation.json")
    told = {"protocol": "cached", "epochs": 3, "balance": "sampling", "seed": 4}
    assert {name: found[name] for name in told} == {name: trained[name] for name in told} == told
    used = {"path": str(data), "source": "folder", "val": [], "canvas": 16, "seed": 0, "dataset": ""}
    assert found["evaluated"] == used  # the canvas is that of the training
    assert found["confusion"] == trained["confusion"]


def test_scores_are_shown_where_nothing_can_be_written(settings, tmp_path, monkeypatch, capsys, caplog):
    probes.run_probe(settings(), str(tmp_path / "p"))
    before = {path.name for path in (tmp_path / "p").iterdir()}
    capsys.readouterr()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(probes.records, "draw_confusion", refuse)
    monkeypatch.setattr(probes.results.folders, "write_json", refuse)
    results = probes.run_probe(settings(eval_only=True), str(tmp_path / "p"))
    assert f"accuracy          {results['accuracy']:.4f}" in capsys.readouterr().out
    assert "may only be read: evaluation.json was not written" in caplog.text
    assert {path.name for path in (tmp_path / "p").iterdir()} == before


def test_a_rate_that_is_too_high_is_told(settings, tmp_path, caplog):
    probes.run_probe(settings(lr=3000.0, epochs=3), str(tmp_path / "p"))
    assert "the learning rate is too high" in caplog.text
