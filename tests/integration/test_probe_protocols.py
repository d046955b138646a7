"""Every protocol through probe.py's own way: results, continuation, evaluation, and the files beside them."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_probe import write_encoder, write_split

from configs import probe as probe_config
from simfle_jax.commands import compare, demo, embed
from simfle_jax.commands.faces import write_faces
from simfle_jax.data.decode import decode
from simfle_jax.data.synthetic_faces import DEMO
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.classifier import load_classifier
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing

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


@pytest.fixture(scope="module")
def features(run, data, tmp_path_factory):
    """Features of all images as embed writes them."""
    file = tmp_path_factory.mktemp("features") / "f.npz"
    embed.embed([str(data)], str(run), "online", file)
    return file


@pytest.fixture
def settings(run, data):
    def make(**changes):
        config = probe_config.get_config()
        config.update(encoder=str(run), epochs=6, batch_size=16, protocol="cached", lr=1.0)
        config.lowlabel.update(shares=(0.2, 0.5), draws=2)
        config.data.path = str(data)
        config.update(changes)
        return probing(config)

    return make


def read(file):
    return json.loads(file.read_text())


def predictions(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("protocol", ["logistic", "knn", "lowlabel", "cached"])
def test_a_protocol_probes_is_read_again_and_evaluates_to_the_same(settings, tmp_path, capsys, protocol):
    results = run_probe(settings(protocol=protocol), str(tmp_path / "p"))
    assert results["accuracy"] > 0.8 and results["protocol"] == protocol
    assert {"accuracy", "balanced_accuracy", "macro_f1", "per_class", "confusion", "classes", "count", "encoder_hash",
            "calibration_error", "intervals_95", "data_fingerprint"} <= results.keys()  # fmt: skip
    assert ("best_epoch" in results) == ("last_epoch_accuracy" in results) == (protocol == "cached")
    assert read(tmp_path / "p" / "results.json") == json.loads(json.dumps(results))
    assert run_probe(settings(protocol=protocol), str(tmp_path / "p"))["confusion"] == results["confusion"]
    found = run_probe(settings(eval_only=True), str(tmp_path / "p"))
    assert (found["confusion"], found["protocol"]) == (results["confusion"], protocol)
    assert found["data_fingerprint"]["val"] == results["data_fingerprint"]["val"]
    assert f"protocol {protocol}" in capsys.readouterr().out


def test_several_seeds_are_several_probes_with_an_interval_over_them(settings, tmp_path, capsys):
    alone = run_probe(settings(protocol="lowlabel", seed=4), str(tmp_path / "alone"))
    found = run_probe(settings(protocol="lowlabel", seeds=(3, 4)), str(tmp_path / "p"))
    assert found["seed"] == 3 and read(tmp_path / "p" / "seed4" / "results.json")["draws"] == alone["draws"]
    assert read(tmp_path / "p" / "results.json") == json.loads(json.dumps(found))
    row = found["over_seeds"]["shares"][1]["accuracy"]
    assert row["values"] == [results["shares"][1]["accuracy"]["mean"] for results in (found, alone)]
    assert row["mean"] == pytest.approx(np.mean(row["values"])) and len(row["interval_95"]) == 2
    assert "over the seeds 3 4:" in capsys.readouterr().out
    evaluated = run_probe(settings(eval_only=True, seeds=(3, 4)), str(tmp_path / "p"))
    assert evaluated["over_seeds"]["accuracy"]["values"] == [found["accuracy"], alone["accuracy"]]
    with pytest.raises(UserError, match=r"seeds = \(3, 3\) names a seed twice"):
        settings(seeds=(3, 3))


@pytest.mark.parametrize("protocol", ["logistic", "cached"])
def test_votes_all_for_one_class_are_that_class_and_others_are_learned(settings, data, tmp_path, protocol):
    names = [path.relative_to(data).as_posix() for path in sorted((data / "train").rglob("*.jpg"))]
    sure, tossed = (tmp_path / f"{name}.csv" for name in ("sure", "tossed"))
    own = [[int(name.split("/")[1] == label) for label in COUNTS] for name in names]
    lines = [",".join(map(str, [name, *votes])) for name, votes in zip(names, own)]
    sure.write_text("\n".join([",".join(["name", *COUNTS]), *lines]))
    tossed.write_text("\n".join([",".join(["name", *COUNTS]), *(f"{name},1,1,1" for name in names)]))
    probability = {}
    for votes in ("", str(sure), str(tossed)):
        place = tmp_path / f"p{len(probability)}"
        run_probe(settings(protocol=protocol, data={"path": str(data), "votes": votes}), str(place))
        probability[votes] = [float(row["probability"]) for row in predictions(place / "predictions.csv")]
    np.testing.assert_allclose(probability[""], probability[str(sure)], atol=2e-3)
    np.testing.assert_allclose(probability[str(tossed)], 1 / 3, atol=0.1 if protocol == "cached" else 1e-3)
    with pytest.raises(UserError, match="'knn' learns one class of an image"):
        run_probe(settings(protocol="knn", data={"path": str(data), "votes": str(sure)}), str(tmp_path / "k"))


def test_scores_of_subgroups_and_of_another_set_with_other_classes(settings, data, tmp_path, capsys):
    rows = [f"val/{name}/{number:03d}.jpg,{'old' if number < 2 else 'young'}" for name in COUNTS for number in range(5)]
    (tmp_path / "groups.csv").write_text("\n".join(["name,age", *rows]))
    write_split(tmp_path / "other" / "val", {"blue": 3, "red": 4}, seed=5)
    flags = {"val": (str(tmp_path / "other" / "val"),), "classes": "shared", "groups": str(tmp_path / "groups.csv")}
    results = run_probe(settings(protocol="knn", data=flags), str(tmp_path / "p"))
    ages = results["subgroups"]["age"]
    assert {value: group["count"] for value, group in ages.items()} == {"": 3, "old": 6, "young": 9}
    total = sum(group["accuracy"] * group["count"] for group in ages.values())
    assert total / 18 == pytest.approx(results["accuracy"])
    assert results["class_mapping"]["val"] == {"missing": [], "left_out": {}}
    (other,) = results["further"].values()
    assert other["count"] == 7 and other["accuracy"] > 0.8 and other["per_class"]["green"]["count"] == 0
    flags = {"path": str(tmp_path / "other"), "classes": "shared"}
    again = run_probe(settings(eval_only=True, data=flags), str(tmp_path / "p"))
    assert again["confusion"] == other["confusion"]
    assert again["class_mapping"] == {"val": {"missing": ["green"], "left_out": {}}}
    assert "age old: balanced accuracy" in capsys.readouterr().out


def test_predictions_tell_the_images_that_are_wrong(settings, data, tmp_path):
    results = run_probe(settings(protocol="knn", knn={"k": (30,)}), str(tmp_path / "p"))
    rows = predictions(tmp_path / "p" / "predictions.csv")
    assert [row["name"] for row in rows] == sorted(
        f"{path.parent.name}/{path.name}" for path in (data / "val").rglob("*.jpg")
    )
    assert all(row["label"] == row["name"].split("/")[0] for row in rows)
    right = [row["label"] == row["predicted"] for row in rows]
    assert np.mean(right) == pytest.approx(results["accuracy"])
    sure = np.array([float(row["probability"]) for row in rows])
    assert ((sure > 1 / 3) & (sure <= 1)).all()


def test_a_vote_of_neighbours_predicts_single_images_and_is_no_layer_to_convert(settings, data, tmp_path):
    run_probe(settings(protocol="knn", knn={"k": (30,)}), str(tmp_path / "p"))
    classifier = load_classifier(tmp_path / "p")
    rows = predictions(tmp_path / "p" / "predictions.csv")
    images = np.stack([decode((data / "val" / row["name"]).read_bytes(), 24) for row in rows])
    found = classifier.probabilities(images)
    assert [classifier.classes[number] for number in found.argmax(1)] == [row["predicted"] for row in rows]
    np.testing.assert_allclose(found.max(1), [float(row["probability"]) for row in rows], atol=1e-4)
    with pytest.raises(UserError, match="a vote of neighbours, not a linear layer"):
        classifier.torch_arrays()


def test_two_probes_are_compared_image_by_image(settings, data, tmp_path, capsys):
    a = run_probe(settings(protocol="knn"), str(tmp_path / "a"))
    b = run_probe(settings(protocol="logistic", untrained=True), str(tmp_path / "b"))
    capsys.readouterr()
    compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--json"])
    found = json.loads(capsys.readouterr().out)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        row = found["scores"][name]
        assert (row["a"], row["b"]) == (pytest.approx(a[name]), pytest.approx(b[name]))
    gained = found["only_b_right"] - found["only_a_right"]
    assert gained / found["count"] == pytest.approx(found["scores"]["accuracy"]["difference"])
    assert "95 % of the difference" in compare.table(found)
    with pytest.raises(UserError, match=r"nothing holds no predictions\.csv: probe\.py with --config\.eval_only=True"):
        compare.compare(tmp_path / "a", tmp_path / "nothing")
    lines = (tmp_path / "b" / "predictions.csv").read_text().splitlines()
    (tmp_path / "b" / "predictions.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(SystemExit) as ended:
        compare.main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert ended.value.code == 2
    assert "has no prediction for red/005.jpg (1 in all): compare the same images" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["logistic", "knn", "lowlabel", "cached"])
def test_features_of_a_file_give_the_numbers_of_their_encoder(settings, features, tmp_path, protocol):
    by_encoder = run_probe(settings(protocol=protocol), str(tmp_path / "a"))
    by_features = run_probe(settings(protocol=protocol, encoder="", features=str(features)), str(tmp_path / "b"))
    assert by_features["confusion"] == by_encoder["confusion"]
    assert by_features["encoder_hash"].startswith("features-") and by_features["features"] == str(features)
    again = run_probe(settings(eval_only=True, encoder="", features=str(features)), str(tmp_path / "b"))
    assert again["confusion"] == by_encoder["confusion"]
    names = [[row["name"] for row in predictions(tmp_path / name / "predictions.csv")] for name in "ab"]
    assert names[0] == names[1]


def test_probes_of_features_and_of_encoders_are_not_taken_for_each_other(settings, features, tmp_path):
    flags = {"encoder": "", "features": str(features)}
    run_probe(settings(protocol="knn"), str(tmp_path / "a"))
    with pytest.raises(UserError, match=r"belongs to encoder v2-.*: give --config.encoder instead"):
        run_probe(settings(eval_only=True, **flags), str(tmp_path / "a"))
    run_probe(settings(protocol="knn", **flags), str(tmp_path / "b"))
    with pytest.raises(UserError, match="belongs to encoder features-"):
        run_probe(settings(eval_only=True), str(tmp_path / "b"))
    with pytest.raises(
        UserError, match=r"trained on a file of features, .*: train one with --config\.encoder in place"
    ):
        load_classifier(tmp_path / "b")
    with np.load(features) as file:
        np.savez(tmp_path / "narrow.npz", names=file["names"], features=file["features"][:, :3])
    with pytest.raises(UserError, match=r"takes \d+ features, .*narrow\.npz holds 3 of an image"):
        run_probe(settings(eval_only=True, encoder="", features=str(tmp_path / "narrow.npz")), str(tmp_path / "b"))
    with pytest.raises(UserError, match="is a run with encoder_hash = 'features-"):
        run_probe(settings(protocol="knn", encoder="", features=str(tmp_path / "narrow.npz")), str(tmp_path / "b"))


def test_features_of_other_images_are_one_line_and_leave_nothing(data, tmp_path):
    np.savez(tmp_path / "f.npz", names=np.array(["x/train/blue/zzz.jpg"]), features=np.ones((1, 4), np.float32))
    flags = [f"--config.features={tmp_path / 'f.npz'}", f"--config.data.path={data}", f"--workdir={tmp_path / 'p'}"]
    call = [sys.executable, "probe.py", "--config=configs/probe.py", "--config.protocol=knn", *flags]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ") and "has no features of " in done.stderr
    assert not (tmp_path / "p" / "results.json").exists()


def test_a_sweep_through_the_command_line(run, data, tmp_path):
    flags = ["--config.protocol=cached", "--config.cached.lrs=(0.01,0.1,1.0)", "--config.select_on=train-holdout",
             "--config.epochs=4", f"--config.encoder={run}", f"--config.data.path={data}", f"--workdir={tmp_path / 'p'}"]  # fmt: skip
    call = [sys.executable, "probe.py", "--config=configs/probe.py", *flags]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = read(tmp_path / "p" / "results.json")
    assert [row["lr"] for row in results["sweep"]] == [0.01, 0.1, 1.0] and results["lr"] in (0.01, 0.1, 1.0)
    assert f"learning rate {results['lr']:g} of 3" in done.stdout


def test_the_demo_prints_what_a_logistic_probe_finds(run, settings, tmp_path):
    write_faces(tmp_path / "faces", 240, 80, 0, demo.SIZE, DEMO)
    train, test = (demo.load_faces(tmp_path / "faces", split) for split in ("train", "val"))
    encoder = load_encoder(run)
    views = (np.zeros((2, 24, 24, 3), np.float32),) * 2
    shown = demo.score(encoder, views, train, test, seed=3)
    chosen = settings(protocol="logistic", seed=3, data={"path": str(tmp_path / "faces"), "canvas": demo.SIZE})
    assert run_probe(chosen, str(tmp_path / "p"))["balanced_accuracy"] == shown["probe"]
    assert 0.125 < shown["probe"] < 1
