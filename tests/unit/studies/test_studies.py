"""The numbers of a study's table, and the studies that are shipped."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_study
from scipy import stats

from simfle_jax.commands.presets import FOLDER, load_config, load_study
from simfle_jax.config import pretraining
from simfle_jax.errors import UserError
from simfle_jax.evaluation.scores import over_seeds
from simfle_jax.studies import Piece, Study, definition, picture, table, work


def test_intervals_are_those_of_a_t_test():
    values = {0: 0.4, 1: 0.5, 2: 0.9}
    found = table.summary(values, {2: 0.5, 0: 0.3, 7: 1.0})
    expected = stats.ttest_1samp(list(values.values()), 0).confidence_interval(0.95)
    assert found["interval_95"] == pytest.approx(tuple(expected))
    paired = stats.ttest_rel([0.4, 0.9], [0.3, 0.5]).confidence_interval(0.95)
    assert found["difference"]["seeds"] == [0, 2] and found["difference"]["mean"] == pytest.approx(0.25)
    assert found["difference"]["interval_95"] == pytest.approx(tuple(paired))
    assert table.summary({3: 0.5}, {})["interval_95"] is None


def test_intervals_hold_the_truth_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(0.7, 0.1, (2000, 3))
    bounds = np.array([over_seeds(list(row)) for row in draws])
    assert ((bounds[:, 0] < 0.7) & (bounds[:, 1] > 0.7)).mean() == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("name", sorted(path.stem for path in (FOLDER / "studies").glob("[a-z]*.py")))
def test_a_shipped_study_can_run(name, tmp_path):
    study = load_study(name)
    definition.check(study)
    definition.record(study, tmp_path, load_config("probe"), None)
    seen = set()
    for arm in study.arms:
        config = study.pretraining(Piece(0, arm, 0), tmp_path)
        seen.add((study.arm(arm).kind, config))
    assert len(seen) == len(study.arms)  # no two arms are the same


def test_the_ablations_differ_in_what_they_are_named_after(tmp_path):
    study = load_study("ablations")
    configs = {arm: study.pretraining(Piece(0, arm, 0), tmp_path) for arm in study.arms}
    for arm, method in (("BYOL", "byol"), ("SimSiam", "simsiam"), ("MoCo v3", "moco_v3"), ("MAE", "mae")):
        assert configs[arm].method == method and configs[arm].epochs == configs["SimFLE"].epochs
    assert configs["SimFLE, published tie and start"].facemae.grouping_init == "constant"
    assert configs["SimFLE, random masking"].facemae.masking == "random"
    assert (configs["SimFLE"].facemae.tie, configs["SimFLE, published tie"].facemae.tie) == ("patch", "published")
    assert configs["BYOL, equal time"].epochs == 3 * configs["BYOL"].epochs
    assert configs["SimFLE, without distillation"].facemae.alpha == 0
    assert pretraining(load_config("demo_long:byol")).method == "byol"


def test_wild_is_the_ablations_on_larger_faces(tmp_path):
    ours, theirs = (
        {arm: study.pretraining(Piece(0, arm, 0), tmp_path) for arm in study.arms}
        for study in map(load_study, ("wild", "ablations"))
    )
    assert {config.views.plain_size for config in ours.values()} == {64} and {
        config.views.plain_size for config in theirs.values()
    } == {56}
    for arm in ("BYOL", "SimFLE"):
        assert (
            ours[arm].views.standardise == "image"
            and ours[f"{arm}, statistics of the data set"].views.standardise == "dataset"
        )


def test_several_scores_and_shares_are_columns_of_their_own():
    few = [{"share": share, "macro_f1": {"mean": share}, "accuracy": {"mean": 0.5}} for share in (0.05, 0.25)]
    found = work.columns("few", {"shares": few}, ("macro_f1", "accuracy"))
    assert found == {"few, 5 %": 0.05, "few, 25 %": 0.25, "few, accuracy, 5 %": 0.5,
                     "few, accuracy, 25 %": 0.5}  # fmt: skip
    assert work.columns("points", {"eyes": {"nme": 0.1}}, ("accuracy", "eyes.nme")) == {"points, eyes nme": 0.1}
    assert work.columns("points", {"eyes": {"nme": 0.1}}, ("accuracy",)) == {}


def test_a_study_that_an_earlier_version_began_goes_on(tmp_path):
    """A setting that came later is as before, and refused where the arm has another value of it."""
    arm = load_config("simfle")
    arm.facemae.plain_in_averages = True  # as before there was such a setting
    study = Study(arms={"SimFLE": arm}, probes={"k-NN": {"protocol": "knn"}}, baseline="SimFLE")
    definition.record(study, tmp_path, load_config("probe"), None)
    begun = json.loads((tmp_path / "study.json").read_text())
    del begun["arms"]["SimFLE"]["facemae.plain_in_averages"], begun["probes"]["k-NN"]["finetune.share"]
    (tmp_path / "study.json").write_text(json.dumps(begun))
    for part in ("run/encoder.safetensors", "probes/k-NN/results.json"):
        (tmp_path / "SimFLE/seed0" / part).parent.mkdir(parents=True)
        (tmp_path / "SimFLE/seed0" / part).touch()
    definition.record(study, tmp_path, load_config("probe"), None)
    (tmp_path / "study.json").write_text(json.dumps(begun))
    arm.facemae.plain_in_averages = False
    with pytest.raises(UserError, match=r"'SimFLE' with facemae.plain_in_averages = True, now False"):
        definition.record(study, tmp_path, load_config("probe"), None)


@pytest.mark.parametrize("before, later", [("D", "OTHER"), ("D", ""), ("", "OTHER")])
@pytest.mark.parametrize("kind", ["arm", "probe"])
def test_images_that_an_arm_or_a_probe_names_itself_stay(tmp_path, kind, before, later):
    """Else scores on both would stand in one mean."""
    before, later = (str(tmp_path / place) if place else "" for place in (before, later))
    for place in ("D", "OTHER"):
        (tmp_path / place).mkdir()

    def study(place: str) -> Study:
        arm, own = load_config("simfle"), {"data.path": place} if place else {}
        arm.data.path = place if kind == "arm" else ""
        probes = {"k-NN": {"protocol": "knn"} | (own if kind == "probe" else {})}
        return Study(arms={"SimFLE": arm}, probes=probes, baseline="SimFLE")

    usual = load_config("probe")
    definition.record(study(before), tmp_path, usual, None)
    for part in ("run/encoder.safetensors", "probes/k-NN/results.json"):
        (tmp_path / "SimFLE/seed0" / part).parent.mkdir(parents=True)
        (tmp_path / "SimFLE/seed0" / part).touch()
    definition.record(study(before), tmp_path, usual, None)
    with pytest.raises(UserError, match=rf"has begun {kind} .* with data.path = '{before}', now '{later}'"):
        definition.record(study(later), tmp_path, usual, None)
    record = json.loads((tmp_path / "study.json").read_text())
    for settings in (*record["arms"].values(), *record["probes"].values()):
        del settings["data.path"]  # as versions did that cannot tell
    (tmp_path / "study.json").write_text(json.dumps(record))
    definition.record(study(later), tmp_path, usual, None)


def test_other_images_than_those_that_a_study_began_with_are_refused(tmp_path):
    study = Study(arms={"SimFLE": load_config("simfle")}, probes={"k-NN": {"protocol": "knn"}}, baseline="SimFLE")
    data, workdir = tmp_path / "data", tmp_path / "study"

    def record(images: Path | None) -> None:
        definition.record(study, workdir, load_config("probe"), images)

    for split in ("train", "val"):
        (data / split).mkdir(parents=True)
        (data / split / "a.jpg").touch()
    record(data)
    (data / "val" / "b.jpg").touch()
    record(data)  # nothing has begun
    (workdir / "SimFLE/seed0/run").mkdir(parents=True)
    record(data.rename(tmp_path / "moved"))
    with pytest.raises(UserError, match="has begun with other images than generated ones: give --data DIR"):
        record(None)
    (tmp_path / "moved" / "val" / "c.jpg").touch()
    with pytest.raises(UserError, match=r"has begun with other images than those in .*moved: give --data DIR with"):
        record(tmp_path / "moved")


def test_the_curve_is_of_the_probe_that_the_study_names(tmp_path, monkeypatch):
    """Another one may be chosen later, and must not be drawn with the scores of the first."""
    study = small_study.get_study()
    piece, other = study.pieces()[0], dataclasses.replace(study, curve="k-NN", probes={"k-NN": {"protocol": "knn"}})
    run = piece.folder(tmp_path) / "run"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 2, "seconds": 1.0}\n{"step": 4, "seconds": 3.0}\n')
    for name, score in (("few", 0.5), ("k-NN", 0.75)):
        place = piece.folder(tmp_path) / "curve" / "00000004" / name
        place.mkdir(parents=True)
        (place / "results.json").write_text(json.dumps({"balanced_accuracy": score}))
    assert work.found_curve(study, piece, tmp_path) == [{"step": 4, "score": 0.5, "seconds": 3.0}]
    assert work.found_curve(other, piece, tmp_path) == [{"step": 4, "score": 0.75, "seconds": 3.0}]
    shutil.rmtree(piece.folder(tmp_path) / "curve" / "00000004" / "k-NN")
    place = piece.folder(tmp_path) / "probes"
    for name in ("few", "k-NN"):
        (place / name).mkdir(parents=True)
        (place / name / "results.json").write_text("{}")
    (piece.folder(tmp_path) / work.TRAINED).write_text("{}")
    monkeypatch.setattr(work, "checkpoint_steps", lambda run: [4])
    assert work.is_done(study, piece, tmp_path) and not work.is_done(other, piece, tmp_path)


def test_a_mean_curve_is_of_the_steps_that_all_seeds_share():
    """A seed that was stopped has a point more, and one that has not ended fewer."""
    curves = [[{"step": step, "score": step * seed} for step in steps] for seed, steps in
              enumerate([(100, 200), (100, 150, 200), (100,), (100, 120, 200)], 1)]  # fmt: skip
    found = picture.at_shared_steps(curves)
    assert [[point["step"] for point in points] for points in found] == [[100, 200]] * 3
    assert [points[1]["score"] for points in found] == [200, 400, 800]
    assert picture.at_shared_steps([]) == picture.at_shared_steps([[]]) == []


def test_an_arm_may_be_a_plain_dict():
    study = small_study.get_study()
    plain = dataclasses.replace(
        study, arms={"BYOL": study.arms["BYOL"].to_dict(), "no training": study.arms["no training"]}
    )
    assert [plain.epochs(arm) for arm in plain.arms] == [2, 1]
