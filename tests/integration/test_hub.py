"""Encoders in the form of model hubs: written, read back, pushed to and fetched from a hub on this machine."""

import json
import re
import shutil
import sys
from pathlib import Path

import bucket_server
import jax
import numpy as np
import pytest
import small
from hub_server import Hub
from safetensors.numpy import load_file, save_file
from small_probe import COLOURS, write_encoder, write_probe

import simfle_jax
from simfle_jax.commands import convert, push
from simfle_jax.config import named_trunk, pretraining
from simfle_jax.config.trunks import TRUNKS
from simfle_jax.errors import UserError
from simfle_jax.evaluation.classifier import load_classifier
from simfle_jax.models.trunks import fresh_trunk
from simfle_jax.weights.encoder_file import export_encoder
from simfle_jax.weights.hub_form import card_header, model_config, preprocessor_config

hub_client = pytest.importorskip("huggingface_hub")
PIXELS = np.random.default_rng(1).integers(0, 256, (3, 24, 24, 3), np.uint8)
RESULTS = {"accuracy": 0.51, "balanced_accuracy": 0.42, "macro_f1": 0.43, "count": 9, "classes": list(COLOURS),
           "protocol": "paper", "untrained": False, "dataset": "rafdb"}  # fmt: skip


def run(*arguments) -> str:
    return convert.convert(convert.make_parser().parse_args([str(each) for each in arguments]))


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """The folder of a probe with its encoder beside, and its results."""
    folder = tmp_path_factory.mktemp("probe")
    encoder = simfle_jax.load_encoder(write_encoder(folder / "encoder.safetensors", last_stride=2))
    write_probe(folder, encoder)
    (folder / "results.json").write_text(json.dumps(RESULTS | {"encoder_hash": encoder.hash, "encoder": str(folder)}))
    return folder


@pytest.fixture(scope="module")
def encoder_folder(probe, tmp_path_factory):
    """An encoder in the form of hubs."""
    run_folder = tmp_path_factory.mktemp("run")
    (run_folder / "encoder.safetensors").write_bytes((probe / "encoder.safetensors").read_bytes())
    folder = tmp_path_factory.mktemp("hub") / "encoder"
    assert "1 probes on its card" in run(run_folder, folder, "--probe", probe)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that huggingface_hub speaks to, with a token that may write, and an empty cache."""
    server = Hub()
    constants = {
        "ENDPOINT": server.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
    }
    for name, value in constants.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_TOKEN", "right")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield server
    server.shutdown()
    server.server_close()


def test_an_encoder_reads_back_to_the_bit(probe, encoder_folder):
    first, again = simfle_jax.load_encoder(probe), simfle_jax.load_encoder(encoder_folder)
    assert again.hash == first.hash and again.metadata.items() >= first.metadata.items()
    np.testing.assert_array_equal(again(PIXELS), first(PIXELS))
    with pytest.raises(UserError, match="holds one trunk only"):
        simfle_jax.load_encoder(encoder_folder, branch="target")


def test_a_classifier_reads_back_to_the_bit_and_is_not_overwritten(probe, tmp_path):
    assert "classifier of blue, green, red" in run(probe, tmp_path / "hub")
    first, again = load_classifier(probe), load_classifier(tmp_path / "hub")
    assert again.classes == first.classes
    np.testing.assert_array_equal(again.probabilities(PIXELS), first.probabilities(PIXELS))
    config = json.loads((tmp_path / "hub/config.json").read_text())
    assert config["id2label"] == {"0": "blue", "1": "green", "2": "red"} and config["num_classes"] == 3
    with pytest.raises(UserError, match="holds something already"):
        run(probe, tmp_path / "hub")


def test_a_file_of_a_classifier_stays_one_and_its_trunk_alone_claims_no_classes(probe, tmp_path, hub, capsys):
    file = tmp_path / "classifier.safetensors"
    run(probe, file)
    push.main([str(file), "lab/classifier"])
    assert "classifier of blue, green, red" in capsys.readouterr().out
    first, again = load_classifier(probe), load_classifier("hf://lab/classifier")
    np.testing.assert_array_equal(again.probabilities(PIXELS), first.probabilities(PIXELS))
    trunk = simfle_jax.load_encoder(file)
    assert trunk.hash == simfle_jax.load_encoder(probe).hash and not {"classes", "canvas"} & trunk.metadata.keys()


def test_a_fine_tuned_probe_brings_its_own_results(probe, tmp_path):
    tuned = Path(shutil.copytree(probe, tmp_path / "tuned"))
    facts = json.loads((probe / "results.json").read_text())
    facts |= {"encoder_hash": "v2-0", "tuned_encoder_hash": facts["encoder_hash"]}
    (tuned / "results.json").write_text(json.dumps(facts))
    assert "1 probes on its card" in run(tuned, tmp_path / "hub")
    (tuned / "results.json").write_text(json.dumps(facts | {"tuned_encoder_hash": "v2-1"}))
    with pytest.raises(UserError, match="probed encoder v2-0, the card is about"):
        run(tuned, tmp_path / "other")


def test_landmarks_have_a_table_of_their_own_on_the_card(probe, tmp_path):
    """Its folder has a config.json, too, which is none of a run."""
    place = tmp_path / "landmarks"
    place.mkdir()
    for name in ("config.json", "landmarks.safetensors"):
        (place / name).write_text("{}")
    (place / "encoder.safetensors").write_bytes((probe / "encoder.safetensors").read_bytes())
    facts = {"protocol": "landmarks", "head": "linear", "points": 68, "count": 9, "untrained": False,
             "outer_eyes": {"nme": 0.0512}, "encoder_hash": simfle_jax.load_encoder(probe).hash}  # fmt: skip
    (place / "results.json").write_text(json.dumps(facts))
    assert "1 probes on its card" in run(place, tmp_path / "hub")
    text = (tmp_path / "hub/README.md").read_text()
    assert "| 68 points | linear | 9 | 5.12 |" in text and "balanced accuracy" not in text and "model-index" not in text
    run(probe, tmp_path / "both", "--probe", place)
    text = (tmp_path / "both/README.md").read_text()
    assert "| 68 points | linear | 9 | 5.12 |" in text and "| rafdb | paper | 9 | 0.5100 |" in text


def test_metadata_that_another_program_lost_come_from_the_config(probe, encoder_folder, tmp_path):
    for name in ("config.json", "README.md"):
        (tmp_path / name).write_bytes((encoder_folder / name).read_bytes())
    save_file(load_file(encoder_folder / "model.safetensors"), tmp_path / "model.safetensors")
    assert simfle_jax.load_encoder(tmp_path).hash == simfle_jax.load_encoder(probe).hash
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="must hold the metadata under `simfle`"):
        simfle_jax.load_encoder(tmp_path)


def test_the_card_has_a_header_that_huggingface_hub_reads(encoder_folder):
    text = (encoder_folder / "README.md").read_text()
    card = hub_client.ModelCard(text)  # raises ValueError for a model-index that is not valid
    assert card.data.library_name == "simfle-jax" and card.data.license == "other" and "face" in card.data.tags
    assert card.data.metrics == ["accuracy", "f1"]
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {"accuracy": 0.51, "balanced_accuracy": 0.42, "macro_f1": 0.43}
    assert {result.dataset_name for result in card.data.eval_results} == {"rafdb"}
    assert "must not be used" in card.text and "| rafdb | paper | 9 | 0.5100 |" in card.text


def test_what_readers_of_the_transformers_kind_look_for(encoder_folder):
    from safetensors import safe_open

    with safe_open(encoder_folder / "model.safetensors", framework="np") as file:
        assert file.metadata()["format"] == "pt"
    config = json.loads((encoder_folder / "config.json").read_text())
    assert {"model_type", "image_size", "num_channels"} <= config.keys() and config["image_size"] == 24
    processor = json.loads((encoder_folder / "preprocessor_config.json").read_text())
    assert processor["size"] == {"shortest_edge": 24} and processor["crop_size"] == {"height": 24, "width": 24}
    assert processor["image_mean"] == [0.5] * 3 and processor["do_normalize"]


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch16_224"])
def test_a_trunk_that_timm_knows_has_the_fields_of_timm(name):
    sizes = dict(TRUNKS[name]) | {"last_stride": 2}
    metadata = {"architecture": json.dumps(sizes), "size": "224", "mean": "[0.5, 0.4, 0.3]", "std": "[0.2, 0.2, 0.2]"}
    config = model_config({}, metadata)
    assert config["architecture"] == name and config["num_features"] == {"resnet18": 512}.get(name, 384)
    assert config["pretrained_cfg"]["input_size"] == [3, 224, 224] and config["pretrained_cfg"]["mean"] == [
        0.5,
        0.4,
        0.3,
    ]
    other = model_config({}, metadata | {"architecture": json.dumps(sizes | {"last_stride": 1})})
    if name == "resnet18":
        assert other["architecture"] == "resnet18, last stride 1" and "pretrained_cfg" not in other
    by_image = preprocessor_config(metadata | {"standardise": "image"})
    assert not by_image["do_normalize"] and by_image["standardise"] == "image"
    assert "pretrained_cfg" not in model_config({}, metadata | {"standardise": "image"}), "one mean for all images"
    assert "untrained" not in card_header(name, metadata, [RESULTS | {"untrained": True}])


def test_pushed_and_fetched_from_a_hub_it_is_the_same(probe, encoder_folder, hub, capsys):
    push.main([str(encoder_folder), "lab/faces"])
    assert f"pushed: {hub.address}/lab/faces" in capsys.readouterr().out
    assert set(hub.repositories["lab/faces"]["main"]) == {path.name for path in encoder_folder.iterdir()}
    assert hub.cards[0].startswith("---\nlibrary_name: ")  # huggingface_hub has the hub check it before it uploads
    again = simfle_jax.load_encoder("hf://lab/faces")
    assert again.hash == simfle_jax.load_encoder(probe).hash
    push.main([str(probe), "lab/classes"])
    assert load_classifier("hf://lab/classes").classes == tuple(COLOURS)
    hub.repositories["lab/faces"]["v2"] = hub.repositories["lab/faces"]["main"]
    assert simfle_jax.load_encoder("hf://lab/faces@v2").hash == again.hash


def test_what_lies_in_a_bucket_is_pushed(probe, encoder_folder, hub, tmp_path, monkeypatch):
    with bucket_server.BucketServer() as server:
        bucket_server.use(server.url, tmp_path, monkeypatch)
        server.put_folder("encoder", encoder_folder)
        server.put_folder("probe", probe)
        push.main(["s3://bucket/encoder", "lab/there"])
        push.main(["gs://bucket/probe", "lab/probe"])
    assert set(hub.repositories["lab/there"]["main"]) == {path.name for path in encoder_folder.iterdir()}
    assert simfle_jax.load_encoder("hf://lab/there").hash == simfle_jax.load_encoder(probe).hash
    assert load_classifier("hf://lab/probe").classes == tuple(COLOURS)


def test_without_a_network_the_cache_counts(encoder_folder, hub, monkeypatch):
    hub.repositories["lab/faces"] = {"main": {path.name: path.read_bytes() for path in encoder_folder.iterdir()}}
    first = simfle_jax.load_encoder("hf://lab/faces")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert simfle_jax.load_encoder("hf://lab/faces").hash == first.hash and len(hub.asked) == asked
    with pytest.raises(UserError, match="hf://lab/other is not in the cache, and the hub cannot be reached"):
        simfle_jax.load_encoder("hf://lab/other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf://lab/nothing", "there is no repository hf://lab/nothing, or it is private"),
        ("hf://lab/gated", "hf://lab/gated is gated: ask for access on its page, and set HF_TOKEN"),
        ("hf://lab/broken", "hf://lab/broken is not in the cache, and the hub cannot be reached"),
        ("hf://lab/faces@v9", "hf://lab/faces@v9: the repository is there, but has no such revision"),
        ("hf://lab/pickled", "holds no model.safetensors, only pytorch_model.bin: a pickle can run code"),
        ("hf://lab/empty", "holds no model.safetensors, only README.md"),
        ("hf://faces", "is no repository: give hf://OWNER/NAME"),
        ("hf://lab/a b", "is no name of a repository"),
    ],
)
def test_what_a_hub_has_not_is_told_in_one_line(hub, name, message):
    hub.repositories |= {
        "lab/faces": {"main": {"README.md": b""}},
        "lab/pickled": {"main": {"pytorch_model.bin": b"\x80\x04."}},
        "lab/empty": {"main": {"README.md": b"x"}},
    }
    hub.closed |= {
        "lab/gated": (403, b"", {"X-Error-Code": "GatedRepo"}),
        "lab/broken": (500, b"", {}),
    }
    with pytest.raises(UserError, match=re.escape(message)) as told:
        simfle_jax.load_encoder(name)
    assert "\n" not in str(told.value)
    assert not any("pytorch_model.bin" in path for path in hub.asked)  # not even fetched


def test_without_a_hub_or_a_token_it_is_told(encoder_folder, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(SystemExit, match="2"):
        push.main([str(encoder_folder), "lab/faces"])
    assert "run `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the hub cannot be reached"):
        simfle_jax.load_encoder("hf://lab/faces")
    with pytest.raises(SystemExit, match="2"):
        push.main([str(Path("nowhere")), "lab/faces"])
    assert "no file or folder nowhere" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub: pip install 'simfle-jax\[hub\]'"):
        simfle_jax.load_encoder("hf://lab/faces")


@pytest.fixture(params=["resnet18", "vit_small_patch16_224"])
def timm_folder(request, tmp_path):
    """The name of a trunk that timm knows, and a fresh one in the form of hubs."""
    made = pretraining(small.settings(trunk=named_trunk(request.param), views={"size": 224, "plain_size": 112}))
    trunk = jax.device_get(fresh_trunk(made.trunk, 0, 224))
    (tmp_path / "run").mkdir()
    export_encoder(tmp_path / "run" / "encoder.safetensors", trunk, made, {"step": "0"})
    run(tmp_path / "run", tmp_path / "hub")
    return request.param, tmp_path / "hub"


def test_the_folder_is_what_timm_reads(timm_folder):
    """Against what timm 1.0.31 says of itself (timm.json, made by timm_facts.py): it loads weights by exactly these names and shapes.

    And it makes its `PretrainedCfg` of `pretrained_cfg`, which takes no other keys.
    """
    name, folder = timm_folder
    timm = json.loads((Path(__file__).parent / "timm.json").read_text())
    found = {key: list(value.shape) for key, value in load_file(folder / "model.safetensors").items()}
    assert found == timm["weights"][name]
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == name and config["num_classes"] == 0
    assert config["pretrained_cfg"].keys() <= set(timm["pretrained_cfg"])


def test_timm_loads_the_weights_and_the_folder(timm_folder):
    """Runs where timm, and with it torchvision, is installed."""
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    name, folder = timm_folder
    images = np.random.default_rng(0).standard_normal((2, 224, 224, 3), np.float32)
    ours = simfle_jax.load_encoder(folder).apply(images)
    weights = {"checkpoint_path": str(folder / "model.safetensors")}
    for network in (
        timm.create_model(name, num_classes=0, **weights),
        timm.create_model(f"local-dir:{folder}", pretrained=True),
    ):
        with torch.no_grad():
            theirs = network.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous())
        np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-4)
