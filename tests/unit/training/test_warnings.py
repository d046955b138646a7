"""Each illness is told once, of a run that has it and of no other."""

import json
import re
from unittest import mock

import jax
import numpy as np
import pytest
import small

from simfle_jax import compilation
from simfle_jax.runs.metrics_log import MetricsLog
from simfle_jax.training import warnings
from simfle_jax.training.step import TrainStep
from simfle_jax.training.warnings import LINES, SETTLED, Warnings

WELL = {
    "shortcut/brightness": 0.05, "features/pooled_rank": 2.2, "loss/distillation": 0.4, "tie/agreement": 0.5, "loss/total": 1.0,
}  # fmt: skip
ILL = {
    "brightness": ({"shortcut/brightness": 0.35}, "how bright a view is .*views.standardise=image"),
    "directions": ({"features/pooled_rank": 1.15}, "one direction .*pooled_rank.*optimizer.lr"),
    "tie": ({"loss/distillation": 3e-5, "tie/agreement": -0.03}, "teaches the encoder nothing .*facemae.tie=target"),
}


def lines(count: int = 30, first: int = 50, **changes: float) -> list[dict[str, float]]:
    return [{"step": first + 50 * i} | WELL | changes for i in range(count)]


def told(metrics, config=None, earlier=()) -> list[str]:
    watch = Warnings(config or small.config(), earlier)
    with mock.patch.object(warnings.logging, "warning") as warning:
        for line in metrics:
            watch.look(line)
    return [call.args[0] % call.args[1:] for call in warning.call_args_list]


@pytest.mark.parametrize("name", ILL)
def test_an_ill_run_is_told_of_once_with_the_setting_that_helps(name):
    changes, message = ILL[name]
    (text,) = told(lines(**changes))
    assert re.search(message, text) and "\n" not in text and text.startswith("step 650: ")


def test_a_well_run_is_not_told_of():
    assert told(lines()) == []


@pytest.mark.parametrize("name", ILL)
def test_an_illness_that_passes_is_none(name):
    """Every network begins with brightness, and one bad batch among good ones is chance."""
    ill = WELL | ILL[name][0]
    begins = [line | (ill if line["step"] < 400 else {}) | {"step": line["step"]} for line in lines()]
    now_and_then = [line | (ill if i % 7 == 0 else {}) | {"step": line["step"]} for i, line in enumerate(lines())]
    assert told(begins) == told(now_and_then) == []


def test_a_tie_that_agrees_is_alive_however_small_its_loss():
    assert told(lines(**{"loss/distillation": 3e-5})) == []
    assert told(lines(**{"tie/agreement": 0.0})) == []


def test_metrics_of_a_method_without_the_instruments_say_nothing():
    assert told([{"step": line["step"], "loss/total": 1.0} for line in lines()]) == []


def test_standardised_views_get_another_advice():
    (text,) = told(lines(**ILL["brightness"][0]), small.config(views={"standardise": "image"}))
    assert "standardise=image" not in text and "already" in text


def test_a_run_that_goes_on_is_not_told_again_and_its_earlier_lines_count(tmp_path):
    ill = lines(**ILL["brightness"][0])
    assert told(ill[20:], earlier=ill[:20]) == []
    assert len(told(ill[10:], earlier=ill[:10])) == 1
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line | {"seconds": 1.0}) + "\n" for line in ill))
    log = MetricsLog(tmp_path, resume_step=1000)
    assert [line["step"] for line in log.earlier][-1] == 1000
    assert told(ill[20:], earlier=log.earlier) == []


def identities(planted: bool) -> np.ndarray:
    """64 images of 4 x 4 colours, all as bright; planted: each with one white block of its own size and place."""
    random = np.random.default_rng(0)
    faces = random.integers(60, 196, (64, 4, 4, 3)).astype(float)
    faces = (faces + 128 - faces.mean((1, 2, 3), keepdims=True)).repeat(4, 1).repeat(4, 2)
    for number, face in enumerate(faces if planted else ()):
        side = 2 + number % 11
        top, left = random.integers(0, 17 - side, 2)
        face[top : top + side, left : left + side] = 255
    return np.clip(faces, 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_a_run_warns_of_a_planted_shortcut_and_not_without_one():
    """BYOL on views that keep their brightness: with a block for each identity it is what tells them apart."""
    config = small.config(
        method="byol", batch_size=32, optimizer={"name": "adam", "lr": 0.016},
        views={"scale": (0.5, 1.0), "jitter": 0.0, "gray": 0.0, "blur": (0.0, 0.0)},
    )  # fmt: skip
    train_step, quick = TrainStep(config, 100), compilation.once()
    first = jax.jit(train_step.fresh_state, compiler_options=quick)()
    step = jax.jit(lambda state, images: train_step(state, images), compiler_options=quick)
    warned = {}
    for planted in (True, False):
        faces, state, metrics = identities(planted), first, []
        for number in range(SETTLED + LINES):
            state, found = step(state, faces[np.random.default_rng(number).permutation(64)[:32]])
            if number >= SETTLED:
                metrics.append({"step": number} | {name: float(value) for name, value in found.items()})
        warned[planted] = any("how bright a view is" in text for text in told(metrics, config))
    assert warned == {True: True, False: False}
