"""Whole training steps at paper size from a published checkpoint, against golden/full.npz in float64.

About three minutes on two cores.
"""

import json

import jax
import numpy as np
import pytest
from reference import assert_close, by_name, checkpoint, inputs

from configs import simfle
from simfle_jax.config import Config, pretraining
from simfle_jax.training.published import read_published, to_state, write_published
from simfle_jax.training.state import TrainState
from simfle_jax.training.step import Statistics, TrainStep
from simfle_jax.views import Views
from simfle_jax.weights import torch_names as names

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("float64")
TERMS = ("similarity", "reconstruction", "distillation", "grouping", "total")
STEP_TOLERANCES = (1e-9, 1e-7, 1e-5, 1e-3)  # BatchNorm over four images is chaotic: errors grow, step 4 means nothing


def published_config() -> Config:
    settings = simfle.get_config()
    settings.facemae.update(tie="published", plain_in_averages=True)
    settings.batch_size = 256  # the batch of the published learning rate, 0.05
    return pretraining(settings)


@pytest.fixture(scope="module")
def published_file(golden, tmp_path_factory):
    """A published checkpoint of golden's filled parameters, as PyTorch writes it."""
    config = published_config()
    shapes = jax.eval_shape(TrainStep(config, 1).fresh_state)
    arrays = checkpoint(config, vars(shapes), int(np.load(golden / "full.npz")["meta/salt"]))
    listed = json.loads((golden / "state_dict_shapes.json").read_text())
    assert [(name, list(x.shape)) for name, x in arrays.items()] == list(listed.items())
    path = tmp_path_factory.mktemp("published") / "checkpoint_0000.pth.tar"
    tensors = {f"module.{name}": torch.from_numpy(x) for name, x in arrays.items()}
    torch.save(
        {"epoch": 0, "arch": "resnet50", "state_dict": tensors, "optimizer": {"state": {}, "param_groups": []}}, path
    )
    return path


def converted_state(path, config: Config) -> TrainState:
    return to_state(read_published(path), config, 1000, path)


def test_a_checkpoint_round_trips_to_the_bit(published_file, tmp_path):
    config = published_config()
    with jax.enable_x64(False):
        state = converted_state(published_file, config)
        write_published(tmp_path / "ours.pth.tar", state, config, 1000, {})
    ours, theirs = (torch.load(path, weights_only=True) for path in (tmp_path / "ours.pth.tar", published_file))
    expected = {name.removeprefix("module."): x for name, x in theirs["state_dict"].items()}
    assert len(expected) == 942 and list(ours["state_dict"]) == list(expected) and ours["epoch"] == 0
    for name, array in ours["state_dict"].items():
        assert array.dtype == expected[name].dtype and torch.equal(array, expected[name]), name


def in_float64(x):
    return np.asarray(x, np.float64) if np.issubdtype(x.dtype, np.floating) else x


def step_inputs(golden_file, i: int):
    """The views of step i and the group drawn for each image."""
    seed, batch = int(golden_file["meta/seed"]) + 10 * i, int(golden_file["meta/batch"])
    plain = inputs(seed, batch, 3, 112, 112)
    views = inputs(seed + 1, batch, 3, 224, 224), inputs(seed + 2, batch, 3, 224, 224), plain
    return views, np.random.RandomState(seed + 3).randint(0, 32, batch)


@pytest.fixture(scope="module")
def run(golden, published_file):
    """What our five steps give: losses of each, and of step 0 the outputs, gradients and the state after it."""
    full = dict(np.load(golden / "full.npz"))
    with jax.enable_x64(True):
        config = published_config()
        train_step = TrainStep(config, steps_per_epoch=1000)

        @jax.jit
        def gradients(state, views, draw):
            views = Views(*views)
            targets, target_stats = train_step.targets(state.target_params, state.target_stats, views)
            differentiate = jax.value_and_grad(train_step.loss, has_aux=True)
            (_, (outcome, stats)), grads = differentiate(state.params, state.stats, views, targets, draw)
            return outcome.terms, outcome.outputs, targets, grads, Statistics(stats, target_stats)

        update = jax.jit(train_step.update, donate_argnums=0)
        state = jax.tree.map(in_float64, converted_state(published_file, config))
        found = {"losses": [], "group_ids": []}
        for i in range(min(int(full["meta/steps"]), len(STEP_TOLERANCES))):
            views, group_ids = step_inputs(full, i)
            terms, outputs, targets, grads, stats = gradients(state, views, group_ids)
            found["losses"].append([float(terms[f"loss/{name}"]) for name in TERMS])
            if i == 0:
                found |= {
                    "outputs": outputs,
                    "targets": targets,
                    "group_ids": group_ids,
                    "g": terms["loss/grouping"] ** 0.5,
                }
                found["grads"] = names.to_torch([e for e in by_name(config).values() if e.tree == "params"],
                                                {"params": jax.device_get(grads)})  # fmt: skip
            state = update(state, grads, stats)
            if i == 0:
                trees = {name: getattr(state, name) for name in ("params", "stats", "target_params", "target_stats")}
                found["after"] = names.to_torch(names.published(config), jax.device_get(trees))
    return full, found


@pytest.mark.parametrize("step", range(len(STEP_TOLERANCES)))
def test_losses(run, step):
    full, found = run
    for name, ours, golden in zip(TERMS, found["losses"][step], full[f"step{step}/losses"], strict=True):
        assert_close(ours, golden, STEP_TOLERANCES[step], f"loss/{name} of step {step}")


def test_outputs_of_step_0(run):
    full, found = run
    seen, local, vectors = found["outputs"]
    assert (found["group_ids"] == full["step0/group_ids"]).all()
    pairs = {
        "p1": seen.predictions[0], "p2": seen.predictions[1], "q1": found["targets"][0], "q2": found["targets"][1],
        "p1_kd": vectors[0], "p2_kd": vectors[1], "part_kd": vectors[2],
        "pred_first_patch": local.predicted[:, 0],
    }  # fmt: skip
    for name, ours in pairs.items():
        assert_close(ours, full[f"step0/{name}"], 1e-9, name)
    assert (np.asarray(local.masking.masked) == full["step0/mask"].reshape(local.masking.masked.shape)).all()
    assert_close(np.full(full["step0/g_loss"].shape, found["g"]), full["step0/g_loss"], 1e-9, "g")


def test_gradients_of_step_0(run):
    full, found = run
    for key in [key for key in full if key.startswith("step0/gradnorm/")]:
        name = key.removeprefix("step0/gradnorm/")
        gradient = found["grads"][name]
        assert_close(np.linalg.norm(gradient.ravel()), full[key], 1e-8, f"norm of the gradient of {name}")
        assert_close(gradient.ravel()[:16], full[f"step0/grad/{name}"], 1e-7, f"gradient of {name}")


def test_parameters_statistics_and_target_after_step_0(run):
    full, found = run
    for key in [key for key in full if key.startswith("step0/after/")]:
        name = key.removeprefix("step0/after/")
        assert_close(found["after"][name].ravel()[:64], full[key].ravel(), 1e-9, f"{name} after the step")
