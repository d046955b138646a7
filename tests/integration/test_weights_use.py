"""What a trained encoder and its probe are good for: embed, predict, ONNX, and classifiers in PyTorch and back."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from small_probe import COLOURS, write_encoder, write_probe, write_split

import simfle_jax
from configs import probe as probe_config
from simfle_jax.commands import convert, embed, predict
from simfle_jax.data.decode import decode
from simfle_jax.data.image_list import ImageList
from simfle_jax.errors import UserError
from simfle_jax.evaluation import features, records
from simfle_jax.evaluation.classifier import load_classifier
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing
from simfle_jax.weights.files import read_arrays

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Labelled folders with images of the encoder's size, so that decoding resizes nothing."""
    folder = tmp_path_factory.mktemp("faces")
    write_split(folder / "train", dict.fromkeys(COLOURS, 2), size=24)
    write_split(folder / "val", dict.fromkeys(COLOURS, 7), seed=1, size=24)
    return folder


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """The folder of a probe whose layer separates features by chance, with its encoder beside."""
    folder = tmp_path_factory.mktemp("probe")
    return write_probe(folder, simfle_jax.load_encoder(write_encoder(folder / "encoder.safetensors", last_stride=2)))


@pytest.fixture(scope="module")
def pixels(faces):
    """The images below val, and their names, in the order of the listing."""
    source = ImageList([faces / "val"])
    return np.stack([np.asarray(Image.open(io.BytesIO(source[i].data))) for i in range(len(source))]), source.names


def run(*arguments) -> str:
    return convert.convert(convert.make_parser().parse_args([str(each) for each in arguments]))


def evaluation(workdir, encoder, faces):
    config = probe_config.get_config()
    config.update(encoder=str(encoder), eval_only=True)
    config.data.path = str(faces)
    return run_probe(probing(config), str(workdir))


@pytest.mark.parametrize("name", ["model_best.pth.tar", "classifier.safetensors"])
def test_a_probe_becomes_a_classifier_file_and_a_probe_again(probe, faces, tmp_path, name):
    pytest.importorskip("torch")
    run(probe, tmp_path / name)
    assert "classes blue, green, red" in run(tmp_path / name, tmp_path / "again")
    first = evaluation(shutil.copytree(probe, tmp_path / "probe"), probe, faces)
    again = evaluation(tmp_path / "again", tmp_path / "again", faces)
    assert again["confusion"] == first["confusion"] and again["encoder_hash"] == first["encoder_hash"]
    before, after = records.load_probe(probe).layer, records.load_probe(tmp_path / "again").layer
    np.testing.assert_array_equal(before.kernel, after.kernel)
    np.testing.assert_array_equal(before.bias, after.bias)


def test_the_classifier_in_torch_predicts_the_same_on_all_of_val(probe, pixels, tmp_path):
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet

    run(probe, tmp_path / "model_best.pth.tar")
    content = torch.load(tmp_path / "model_best.pth.tar", weights_only=True)
    network = ResNet((1, 1), 4, classes=3)
    network.load_state_dict(content["state_dict"], strict=True)
    x = torch.from_numpy((pixels[0].transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).float()
    with torch.no_grad():
        logits = network.eval()(x)
    ours = load_classifier(probe).probabilities(pixels[0])
    np.testing.assert_allclose(logits.softmax(1).numpy(), ours, rtol=1e-3, atol=1e-5)
    assert (logits.argmax(1).numpy() == ours.argmax(1)).all() and len(set(ours.argmax(1))) > 1


def test_a_foreign_classifier_needs_the_names_of_its_classes(probe, tmp_path):
    torch = pytest.importorskip("torch")
    run(probe, tmp_path / "ours.pth.tar")
    content = torch.load(tmp_path / "ours.pth.tar", weights_only=True)
    foreign = tmp_path / "model_best.pth.tar"
    torch.save({"epoch": 90, "best_acc1": 60.0,
                "state_dict": {f"module.{name}": x for name, x in content["state_dict"].items()}}, foreign)  # fmt: skip
    with pytest.raises(UserError, match="tells 3 classes apart, 0 names are known"):
        run(foreign, tmp_path / "probe")
    with pytest.raises(UserError, match="tells 3 classes apart, 2 names are known"):
        run(foreign, tmp_path / "probe", "--classes", "a", "b")
    assert not (tmp_path / "probe").exists()
    run(foreign, tmp_path / "probe", "--classes", "a", "b", "c")
    assert load_classifier(tmp_path / "probe").classes == ("a", "b", "c")
    with pytest.raises(UserError, match="holds no classifier"):
        run(probe / "encoder.safetensors", tmp_path / "other", "--classes", "a")


def test_embed_keeps_names_and_lists_what_it_cannot_read(probe, faces, pixels, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    out = tmp_path / "new" / "features.npz"
    embed.main([str(broken), str(faces / "val"), "--encoder", str(probe), "--out", str(out)])
    found = np.load(out)
    assert found["names"].tolist() == pixels[1]
    np.testing.assert_allclose(found["features"], simfle_jax.load_encoder(probe)(pixels[0]), rtol=1e-4, atol=1e-5)
    assert (out.parent / "features.npz.bad.txt").read_text().startswith(f"{broken}\t")
    said = capsys.readouterr()
    assert "21 images" in said.out and "images/s" in said.out and "1 images could not be read" in said.err


def test_embed_writes_parquet(probe, faces, pixels, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "features.parquet"
    embed.main([str(faces / "val"), "--encoder", str(probe), "--out", str(out)])
    table = parquet.read_table(out).to_pydict()
    assert table["name"] == pixels[1]
    np.testing.assert_allclose(table["feature"], simfle_jax.load_encoder(probe)(pixels[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_an_interrupted_embedding_goes_on_to_the_same_bits(probe, faces, tmp_path, monkeypatch, capsys, ending):
    monkeypatch.setattr(features, "images_at_once", lambda: 4)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    given = [str(faces / "val"), str(broken), "--encoder", str(probe), "--out"]
    embed.main([*given, str(tmp_path / f"whole{ending}")])
    stream = features.Extractor.stream

    def stopped(self, source, start=0):
        for number, batch in enumerate(stream(self, source, start)):
            if number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(features.Extractor, "stream", stopped)
    with pytest.raises(SystemExit, match="130"):
        embed.main([*given, str(tmp_path / f"part{ending}")])
    assert not (tmp_path / f"part{ending}").exists()
    monkeypatch.setattr(features.Extractor, "stream", stream)
    capsys.readouterr()
    embed.main([*given, str(tmp_path / f"part{ending}")])
    assert "goes on from image 12 of 22" in capsys.readouterr().err
    whole, part = (np.load(tmp_path / f"{name}{ending}") for name in ("whole", "part"))
    if ending == ".npz":
        assert part["names"].tolist() == whole["names"].tolist()
        whole, part = whole["features"], part["features"]
    np.testing.assert_array_equal(part, whole)
    assert part.shape == (21, 32) and (tmp_path / f"part{ending}.bad.txt").read_text().startswith(str(broken))


def test_nothing_readable_is_told(probe, tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    for command in (embed.main, predict.main):
        flag = (
            ["--encoder", str(probe), "--out", str(tmp_path / "f.npz")]
            if command is embed.main
            else ["--probe", str(probe)]
        )
        with pytest.raises(SystemExit, match="2"):
            command([str(tmp_path / "a.jpg"), *flag])
        assert "none of the 1 images can be read" in capsys.readouterr().err


def test_predict_says_once_how_images_must_be_cropped(probe, pixels, capsys):
    predict.main([*pixels[1][:3], "--probe", str(probe)])
    assert capsys.readouterr().err.count("images must be cropped to the face") == 1


@pytest.mark.parametrize("recorded", ["probe.safetensors", "config.json", "classifier.safetensors"])
def test_predict_decodes_at_the_canvas_of_the_training(probe, tmp_path, capsys, recorded):
    """The probe says which, one of before by its settings, and a classifier's file made of it."""
    photograph = tmp_path / "face.png"
    random = np.random.default_rng(3)
    Image.fromarray(random.integers(0, 256, (60, 60, 3), np.uint8)).save(photograph)
    folder = shutil.copytree(probe, tmp_path / "probe")
    if recorded == "config.json":
        (folder / recorded).write_text(json.dumps({"data": {"canvas": 12}}))
        arrays, metadata = read_arrays(folder / "probe.safetensors")
        del metadata["canvas"]
        save_file(arrays, folder / "probe.safetensors", metadata=metadata)
    else:
        records.save_probe(folder, records.load_probe(probe)._replace(canvas=12))
    if recorded == "classifier.safetensors":
        run(folder, tmp_path / recorded)
        folder = tmp_path / recorded
    found = {}
    for name, place in {"default": probe, "recorded": folder}.items():
        predict.main([str(photograph), "--probe", str(place), "--json"])
        found[name] = list(json.loads(capsys.readouterr().out)["probabilities"].values())
    small = decode(photograph.read_bytes(), 12)[None]
    np.testing.assert_allclose(found["recorded"], load_classifier(probe).probabilities(small)[0], rtol=1e-3, atol=1e-5)
    assert np.abs(np.subtract(found["recorded"], found["default"])).max() > 1e-3


def test_names_of_classes_are_not_given_anew(probe, tmp_path):
    """In another order they would turn every label into another."""
    run(probe, tmp_path / "classifier.safetensors")
    for place in (probe, tmp_path / "classifier.safetensors"):
        with pytest.raises(UserError, match="tells its classes itself: blue green red; leave --classes out"):
            load_classifier(place, classes=("red", "green", "blue"))
        assert load_classifier(place, classes=("blue", "green", "red")).classes == ("blue", "green", "red")


def test_a_file_that_is_called_as_a_face_in_a_photograph_is_a_file(probe, faces, tmp_path, capsys):
    name = tmp_path / "party.jpg#xywh=10,20,30,40.jpg"
    name.write_bytes(next((faces / "val").rglob("*.jpg")).read_bytes())
    predict.main([str(name), "--probe", str(probe), "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["name"] == str(name) and "box" not in json.loads(line)


def test_predict_prints_probabilities_as_text_and_json(probe, faces, pixels, tmp_path, capsys):
    ours = load_classifier(probe).probabilities(pixels[0])
    predict.main([str(faces / "val"), "--probe", str(probe), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in lines] == pixels[1]
    assert [line["label"] for line in lines] == [tuple(COLOURS)[i] for i in ours.argmax(1)]
    np.testing.assert_allclose([list(line["probabilities"].values()) for line in lines], ours, rtol=1e-3, atol=1e-5)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(SystemExit, match="1"):
        predict.main([pixels[1][0], str(broken), "--probe", str(probe)])
    said, best = capsys.readouterr(), ours[0].argmax()
    assert said.out.startswith(f"{pixels[1][0]}  {tuple(COLOURS)[best]} {ours[0, best]:.3f}  ")
    assert said.err.splitlines()[-1].startswith(f"{broken}: ")


@pytest.mark.parametrize("what", ["features", "logits"])
def test_onnx_runtime_gives_our_outputs_for_any_batch(probe, pixels, tmp_path, what):
    for package in ("torch", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from simfle_jax.weights.onnx_export import run_onnx

    source = probe if what == "logits" else probe / "encoder.safetensors"
    assert "ONNX Runtime agrees within" in run(source, tmp_path / "network.onnx")
    classifier = load_classifier(probe)
    for images in (pixels[0][:1], pixels[0]):
        x = (images / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
        ours = classifier.logits(x) if what == "logits" else classifier.encoder(images)
        found = run_onnx(tmp_path / "network.onnx", x.transpose(0, 3, 1, 2))
        assert np.abs(found - ours).max() <= 1e-3 * np.abs(ours).max()
    import onnx

    told = {prop.key: prop.value for prop in onnx.load(tmp_path / "network.onnx").metadata_props}
    assert told["size"] == "24" and json.loads(told["mean"]) == [0.5] * 3
    assert json.loads(told.get("classes", "[]")) == (list(COLOURS) if what == "logits" else [])


SIZES = ((24, 24), (30, 30), (31, 47), (96, 64), (17, 23), (20, 300), (130, 9), (10, 10), (200, 150), (64, 65), (25, 24),
         (301, 217))  # fmt: skip


def test_onnx_with_preprocessing_gives_what_predict_gives_for_images_of_any_size(probe, tmp_path, capsys):
    """The probe's canvas is not the encoder's size, so that both resizings count, and each image is its own scale."""
    for package in ("torch", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from simfle_jax.weights.onnx_export import run_onnx

    folder = shutil.copytree(probe, tmp_path / "probe")
    arrays, metadata = read_arrays(probe / "encoder.safetensors")
    save_file(arrays, folder / "encoder.safetensors", metadata=metadata | {"standardise": "image"})
    hash_ = simfle_jax.load_encoder(folder).hash
    records.save_probe(folder, records.load_probe(probe)._replace(canvas=30, encoder_hash=hash_))
    run(folder, tmp_path / "classifier.onnx", "--with-preprocessing")
    random, pictures = np.random.default_rng(4), {}
    for number in range(64):
        coarse = random.integers(0, 256, (5, 4, 3), np.uint8)
        height, width = SIZES[number % len(SIZES)]
        pictures[tmp_path / f"{number:02d}.png"] = Image.fromarray(coarse).resize((width, height))
    for path, picture in pictures.items():
        picture.save(path)
    predict.main([*map(str, pictures), "--probe", str(folder), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [run_onnx(tmp_path / "classifier.onnx", np.asarray(each)[None])[0] for each in pictures.values()]
    expected = [list(line["probabilities"].values()) for line in lines]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert len({line["label"] for line in lines}) > 1


@pytest.mark.parametrize("canvas", [24, 60])
def test_the_pixels_of_the_preprocessing_in_pytorch_are_those_of_decode_to_the_bit(probe, canvas):
    torch = pytest.importorskip("torch")
    from simfle_jax.weights.torch_preprocessing import Preprocessing

    preprocessing = Preprocessing(simfle_jax.load_encoder(probe).metadata, canvas)
    random = np.random.default_rng(0)
    for height, width in SIZES:
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        found = preprocessing.fitted(torch.from_numpy(image[None]))[0].numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(found, decode(image, canvas), err_msg=f"{height} x {width}")


def test_onnx_with_preprocessing_of_an_encoder_gives_features(probe, tmp_path):
    for package in ("torch", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from simfle_jax.weights.onnx_export import run_onnx

    run(probe / "encoder.safetensors", tmp_path / "encoder.onnx", "--with-preprocessing")
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 40, 3), np.uint8)
    expected = simfle_jax.load_encoder(probe)(np.stack([decode(image, 24) for image in images]))
    np.testing.assert_allclose(run_onnx(tmp_path / "encoder.onnx", images), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="--with-preprocessing says nothing where"):
        run(probe, tmp_path / "classifier.safetensors", "--with-preprocessing")


def test_what_exists_is_not_overwritten(probe, faces, tmp_path):
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        run(probe, taken)
    out = tmp_path / "taken.npz"
    out.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        embed.embed([str(faces)], str(probe), "online", out)
    assert taken.read_text() == out.read_text() == "mine"


def test_the_trunk_of_a_probe_is_not_in_its_layer(probe, tmp_path):
    run(probe, tmp_path / "classifier.safetensors")
    assert {"fc.weight", "fc.bias"} == load_file(tmp_path / "classifier.safetensors").keys() - load_file(
        probe / "encoder.safetensors"
    ).keys()
    assert simfle_jax.load_encoder(tmp_path / "classifier.safetensors").hash == simfle_jax.load_encoder(probe).hash


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["embed", "nowhere.jpg", "--encoder", "{probe}", "--out", "{tmp}/f.npz"], "no image or folder nowhere.jpg"),
        (["embed", "{faces}", "--encoder", "nothing", "--out", "{tmp}/f.npz"], "no file nothing"),
        (["embed", "{faces}", "--encoder", "{probe}", "--out", "{tmp}/f.csv"], "must end in .npz or .parquet"),
        (["predict", "{faces}", "--probe", "{tmp}"], "holds no trained probe"),
        (["predict", "{faces}", "--probe", "{probe}/encoder.safetensors"], "holds no classifier"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(probe, faces, tmp_path, capsys, command, message):
    module, *rest = [part.format(probe=probe, faces=faces, tmp=tmp_path) for part in command]
    with pytest.raises(SystemExit) as stopped:
        {"embed": embed, "predict": predict}[module].main(rest)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and message in said and said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize("module", ["convert", "embed", "predict"])
def test_help_has_an_example(module):
    done = subprocess.run(
        [sys.executable, "-m", f"simfle_jax.{module}", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and f"    python -m simfle_jax.{module} " in done.stdout
