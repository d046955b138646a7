"""Runs, checkpoints and classifiers from one program to another and back, as the command does it."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small
from safetensors.numpy import load_file, save_file

import simfle_jax
from simfle_jax.commands import convert, convert_run
from simfle_jax.data.opening import open_source
from simfle_jax.errors import UserError
from simfle_jax.runs.folder import claim
from simfle_jax.training.fitting import with_canvas
from simfle_jax.training.loop import train
from simfle_jax.training.published import state_dict
from simfle_jax.training.restore import identity, recorded_facts, run_config, run_state, upgraded_identity
from simfle_jax.training.state import trunk_of
from simfle_jax.weights.encoder_file import export_encoder

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
SETTINGS = """
import sys
sys.path.insert(0, {tests!r})
import small

def get_config():
    return small.settings(epochs=4, checkpoint_steps=5, keep_checkpoints=9)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return small.write_images(tmp_path_factory.mktemp("data") / "images", 40)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "tiny.py"
    file.write_text(SETTINGS.format(tests=str(ROOT / "tests")))
    return file


def make_config(images):
    return small.config(epochs=4, checkpoint_steps=5, keep_checkpoints=9, data={"path": str(images)})


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Four epochs of five steps."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train(make_config(images), str(workdir))
    return workdir


@pytest.fixture(scope="module")
def third(whole, tmp_path_factory):
    """The same run as it was after three epochs."""
    workdir = tmp_path_factory.mktemp("third") / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "checkpoints" / "20")
    config, state = run_state(workdir)
    export_encoder(workdir / "encoder.safetensors", trunk_of(state), config, recorded_facts(workdir, state))
    return workdir


def test_the_encoder_of_an_older_checkpoint_is_the_one_exported_then(whole, third):
    earlier, exported = simfle_jax.load_encoder(whole, step=15), simfle_jax.load_encoder(third)
    assert earlier.hash == exported.hash != simfle_jax.load_encoder(whole).hash
    with pytest.raises(UserError, match="no checkpoint of step 7, only of 5, 10, 15, 20"):
        simfle_jax.load_encoder(whole, step=7)


@pytest.fixture(scope="module")
def checkpoint(third, tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "checkpoint_0003.pth.tar"
    said = run(third, path)
    assert "epoch 3, step 15" in said
    return path


def run(*arguments) -> str:
    return convert.convert(convert.make_parser().parse_args([str(each) for each in arguments]))


def load(path):
    return torch.load(path, weights_only=True)


def assert_equal_states(first, second):
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(first)[0], jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def test_a_run_interrupted_at_epoch_3_goes_on_from_the_published_layout_to_the_bit(
    whole, checkpoint, images, settings, tmp_path, capsys
):
    said = run(checkpoint, tmp_path / "run", "--data", images, "--config", settings)
    assert "goes on at epoch 3, step 15, with its momentum" in said
    capsys.readouterr()
    train(make_config(images), str(tmp_path / "run"))
    assert "goes on from step 15\n" in capsys.readouterr().err
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(16, 21))
    assert_equal_states(run_state(tmp_path / "run")[1], run_state(whole)[1])


def test_ours_to_published_to_ours_is_equal_to_the_bit(third, checkpoint, images, settings, tmp_path):
    run(checkpoint, tmp_path / "run", "--data", images, "--config", settings)
    config, state = run_state(third)
    again = run_state(tmp_path / "run")[1]
    assert_equal_states(again, state)
    ours, theirs = state_dict(again, config), load(checkpoint)["state_dict"]
    assert list(ours) == list(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name].numpy(), err_msg=name)


def test_the_optimizer_is_one_that_torch_loads_and_holds_our_momentum(third, checkpoint):
    content, (_, state) = load(checkpoint), run_state(third)
    names = [name for name in content["state_dict"] if not name.endswith(("running_mean", "running_var", "tracked"))]
    values = [torch.nn.Parameter(content["state_dict"][name].clone()) for name in names]
    sgd = torch.optim.SGD(values, lr=1.0)
    sgd.load_state_dict(content["optimizer"])
    assert sgd.param_groups[0]["momentum"] == 0.9 and sgd.param_groups[0]["weight_decay"] == 1e-4
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.05 * 8 / 256 * 0.5 * (1 + np.cos(np.pi * 3 / 4)))
    buffers = {name: sgd.state[value].get("momentum_buffer") for name, value in zip(names, values)}
    ours = state.opt_state[1].trace["predictor"]["hidden"]["kernel"]
    np.testing.assert_array_equal(buffers["predictor.net.0.weight"].numpy().T, ours)
    fixed = {name for name, buffer in buffers.items() if buffer is None}
    assert fixed == {name for name in names if name.startswith("target_network.") or name.endswith("pos_embed")}


def test_statistics_count_the_passes_as_torch_does(checkpoint):
    content = load(checkpoint)["state_dict"]
    seen = {name: int(x) for name, x in content.items() if name.endswith("num_batches_tracked")}
    assert seen["online_network.encoder.1.num_batches_tracked"] == 3 * 15
    assert seen["target_network.encoder.1.num_batches_tracked"] == 2 * 15
    assert seen["distil_FFL.net.1.num_batches_tracked"] == 15


def test_prefixes_missing_optimizers_and_moved_parameters_alone_are_read(third, checkpoint, images, settings, tmp_path):
    content = load(checkpoint)
    state = run_state(third)[1]
    order = [name for name in content["state_dict"] if not name.endswith(("running_mean", "running_var", "tracked"))]
    moved = [i for i in range(len(order)) if i in content["optimizer"]["state"]]
    packed = {new: content["optimizer"]["state"][old] for new, old in enumerate(moved)}
    group = content["optimizer"]["param_groups"][0] | {"params": list(range(len(moved)))}
    parallel = {f"module.{name}": x for name, x in content["state_dict"].items()}
    torch.save({"epoch": 3, "state_dict": parallel, "optimizer": {"state": packed, "param_groups": [group]}},
               tmp_path / "a.pth")  # fmt: skip
    run(tmp_path / "a.pth", tmp_path / "a", "--data", images, "--config", settings)
    assert_equal_states(run_state(tmp_path / "a")[1], state)
    torch.save(content["state_dict"], tmp_path / "b.pth")
    assert "step 0, without momentum" in run(tmp_path / "b.pth", tmp_path / "b", "--data", images, "--config", settings)
    assert not np.any(run_state(tmp_path / "b")[1].opt_state[1].trace["predictor"]["hidden"]["kernel"])


def test_every_way_to_the_trunk_gives_the_same_features(third, checkpoint, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    for branch in ("online", "target"):
        a, b = tmp_path / f"a_{branch}.safetensors", tmp_path / f"b_{branch}.safetensors"
        run(third, a, "--branch", branch)
        run(checkpoint, b, "--branch", branch)
        assert load_file(a).keys() == load_file(b).keys()
        assert simfle_jax.load_encoder(a).hash == simfle_jax.load_encoder(third, branch).hash
        features = [
            simfle_jax.load_encoder(path, which)(pixels)
            for path, which in ((third, branch), (checkpoint, branch), (a, "online"))
        ]
        np.testing.assert_array_equal(features[0], features[1])
        np.testing.assert_array_equal(features[0], features[2])
    assert simfle_jax.load_encoder(third, "target").hash != simfle_jax.load_encoder(third).hash


def test_a_checkpoint_of_another_model_is_refused(checkpoint, images, settings, tmp_path):
    for change, message in {
        "model.stage_sizes=(1,2)": r"missing \(online_network.encoder.5.1.bn1.bias",
        "model.head_out=12": r"arrays of other sizes.*expected \(12, 16\)",
        "views.plain_size=32": "pos_embed is .*expected .*another image size",
        "model.facemae=False": "surplus",
        "modle.width=8": "modle",
    }.items():
        with pytest.raises(UserError, match=message):
            run(checkpoint, tmp_path / "run", "--data", images, "--config", settings, "--set", change)
        assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten_and_mistakes_are_named(third, checkpoint, images, settings, tmp_path):
    with pytest.raises(UserError, match="holds something already"):
        run(checkpoint, third, "--data", images, "--config", settings)
    with pytest.raises(UserError, match="give --data"):
        run(checkpoint, tmp_path / "run", "--config", settings)
    with pytest.raises(UserError, match="no file or folder"):
        run(tmp_path / "nothing", tmp_path / "run")
    with pytest.raises(UserError, match="must end in"):
        run(third, tmp_path / "encoder.h5")
    (tmp_path / "half.pth.tar").write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(UserError, match="is not a whole PyTorch file"):
        run(tmp_path / "half.pth.tar", tmp_path / "run", "--data", images, "--config", settings)


def test_the_model_card_tells_what_made_the_weights(third, tmp_path):
    run(third, tmp_path / "CARD.md")
    text = (tmp_path / "CARD.md").read_text()
    fingerprint = json.loads((third / "config.json").read_text())["data_fingerprint"]
    assert fingerprint in text and "must not be used" in text and "mask_ratio: 0.75" in text
    assert "step 15" in text and "random weights" in text and jax.__version__ in text and "None were given" in text


def test_a_model_card_tells_the_probes_of_this_encoder_alone(third, tmp_path):
    scores = {
        "accuracy": 0.51,
        "balanced_accuracy": 0.42,
        "macro_f1": 0.43,
        "count": 9,
        "classes": ["a", "b"],
        "protocol": "paper",
    }
    for place, hash_ in (("probe", simfle_jax.load_encoder(third).hash), ("other", "0123")):
        (tmp_path / place).mkdir()
        results = scores | {"encoder_hash": hash_, "untrained": False, "dataset": ""}
        (tmp_path / place / "results.json").write_text(json.dumps(results))
    run(third, tmp_path / "CARD.md", "--probe", tmp_path / "probe")
    assert "| 2 classes | paper | 9 | 0.5100 | 0.4200 | 0.4300 |" in (tmp_path / "CARD.md").read_text()
    with pytest.raises(UserError, match="other probed encoder 0123, the card is about"):
        run(third, tmp_path / "OTHER.md", "--probe", tmp_path / "other")
    with pytest.raises(UserError, match=r"holds no results.json"):
        run(third, tmp_path / "OTHER.md", "--probe", tmp_path)


def test_every_file_tells_what_made_it(third, checkpoint, tmp_path):
    run(third, tmp_path / "target.safetensors", "--branch", "target")
    run(checkpoint, tmp_path / "from_torch.safetensors", "--branch", "target")
    recorded = json.loads((third / "config.json").read_text())
    for source, branch in (
        (third / "encoder.safetensors", "online"), (tmp_path / "target.safetensors", "target"),
        (tmp_path / "from_torch.safetensors", "target"),
    ):  # fmt: skip
        told = simfle_jax.load_encoder(source).metadata
        assert (told["branch"], told["method"], told["step"], told["size"]) == (branch, "SimFLE", "15", "16")
        assert told["data_fingerprint"] == recorded["data_fingerprint"] and len(told["config"]) == 12
        assert told["crop"] == "as given"
        assert (
            json.loads(told["mean"]) == recorded["data"]["mean"] and json.loads(told["std"]) == recorded["data"]["std"]
        )
        assert json.loads(told["versions"])["jax"] == jax.__version__ and "research" in told["licence_note"]


def test_other_images_cannot_tell_a_run_its_epoch(third, tmp_path):
    other = small.write_images(tmp_path / "other", 33)
    with pytest.raises(UserError, match=r"are not those that .* was trained on"):
        run(third, tmp_path / "a.pth.tar", "--data", other)


def test_damaged_optimizers_and_nan_are_named(checkpoint, images, settings, tmp_path):
    changes = {
        "holds 3 parameters, this model has": lambda c: c["optimizer"]["param_groups"][0].update(params=[0, 1, 2]),
        "no momentum buffer for online_network.encoder.0.weight": lambda c: c["optimizer"]["state"].pop(0),
        r"the optimizer in .* holds 1 arrays of other sizes: online_network.encoder.0.weight is \(2,\)":
            lambda c: c["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(2)),
        r"not finite in 1 arrays \(predictor.net.3.bias\)": lambda c: c["state_dict"]["predictor.net.3.bias"].fill_(np.nan),
        "epoch, step or optimizer are not": lambda c: c.update(epoch="three"),
    }  # fmt: skip
    for message, change in changes.items():
        content = load(checkpoint)
        change(content)
        torch.save(content, tmp_path / "bad.pth.tar")
        with pytest.raises(UserError, match=message):
            run(tmp_path / "bad.pth.tar", tmp_path / "run", "--data", images, "--config", settings)
        assert not (tmp_path / "run").exists()


def test_a_published_checkpoint_may_be_safetensors(third, checkpoint, images, settings, tmp_path):
    arrays = {name: x.numpy().copy() for name, x in load(checkpoint)["state_dict"].items()}
    save_file(arrays, tmp_path / "checkpoint.safetensors")
    assert "epoch 0, step 0" in run(
        tmp_path / "checkpoint.safetensors", tmp_path / "run", "--data", images, "--config", settings
    )
    ours, theirs = run_state(third)[1], run_state(tmp_path / "run")[1]
    for name in ("params", "stats", "target_params", "target_stats"):
        assert_equal_states(getattr(ours, name), getattr(theirs, name))


def test_a_run_of_a_checkpoint_knows_the_canvas_of_its_images(checkpoint, images, settings, tmp_path):
    """Else train.py would find another one, and refuse to go on."""
    run(checkpoint, tmp_path / "run", "--data", images, "--config", settings, "--set", "data.canvas=0")
    config = run_config(tmp_path / "run")
    assert config.data.canvas == 0 and config.data.fitted == 16
    source = open_source("folder", str(images))
    again = with_canvas(
        dataclasses.replace(config, data=dataclasses.replace(config.data, fitted=0)), source, tmp_path / "run"
    )
    claim(tmp_path / "run", identity(again, source.fingerprint), upgraded_identity)


def test_adam_begins_with_moments_that_are_corrected_for_being_empty(checkpoint, images, settings, tmp_path):
    """Else its first steps would be several times as long as its rate."""
    run(checkpoint, tmp_path / "run", "--data", images, "--config", settings, "--set", "optimizer.name=adam")
    state = run_state(tmp_path / "run")[1]
    counts = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    found = sorted(int(value) for path, value in counts if jax.tree_util.keystr(path).endswith("count"))
    assert found[0] == 0 and found[-1] == int(state.step) == 15


def test_the_usual_settings_are_found_from_any_folder(tmp_path, monkeypatch):
    """A wheel's user has no configs/ beside them."""
    monkeypatch.chdir(tmp_path)
    config = convert_run.run_settings(convert.make_parser().parse_args(["a.pth.tar", "RUN"]).config, [], str(tmp_path))
    assert config.facemae.tie == "published" and config.facemae.grouping_init == "constant"


def test_the_command_ends_a_mistake_in_one_line(tmp_path):
    command = [sys.executable, "-m", "simfle_jax.convert", str(tmp_path / "nothing"), str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: no file or folder") and done.stderr.count("\n") == 1
