"""predict, embed, prepare and video on photographs, with a detector that takes red for a face."""

import csv
import json
import math
import shutil

import bucket_server
import numpy as np
import pytest
import small
from PIL import Image
from safetensors.numpy import save_file
from small_probe import COLOURS, write_encoder
from tiny_detector import photograph, write_detector

import simfle_jax
from simfle_jax.commands import embed, predict, prepare, video
from simfle_jax.config import pretraining
from simfle_jax.evaluation import records
from simfle_jax.evaluation.linear import Linear
from simfle_jax.training.loop import crop as crop_of_run
from simfle_jax.weights.files import read_arrays

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """A probe whose encoder was trained on the crop."""
    folder = tmp_path_factory.mktemp("probe")
    arrays, metadata = read_arrays(write_encoder(folder / "encoder.safetensors", last_stride=2))
    save_file(arrays, folder / "encoder.safetensors", metadata=metadata | {"crop": "eyes-1"})
    encoder = simfle_jax.load_encoder(folder)
    random = np.random.default_rng(0)
    layer = Linear(random.normal(size=(encoder.dim, 3)).astype("f4"), random.normal(size=3).astype("f4"))
    records.save_probe(folder, records.TrainedProbe(layer, tuple(COLOURS), encoder.hash))
    return folder


@pytest.fixture
def party(tmp_path):
    folder = tmp_path / "party"
    folder.mkdir()
    photograph((320, 240), [(80, 80), (200, 160)]).save(folder / "two.png")
    photograph((320, 240), []).save(folder / "none.png")
    return folder


def test_predict_has_a_line_for_each_face(probe, model, party, capsys):
    given = [str(party), "--probe", str(probe), "--align", "--detector", str(model)]
    predict.main([*given, "--json"])
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [(line["name"], line["box"]) for line in lines] == [
        (str(party / "two.png"), [184, 144, 40, 40]), (str(party / "two.png"), [64, 64, 40, 40])
    ] or sorted(line["box"] for line in lines) == [[64, 64, 40, 40], [184, 144, 40, 40]]  # fmt: skip
    assert f"{party / 'none.png'}: no face found" in said.err and "warning" not in said.err
    predict.main(given)
    assert sorted(line.split("  ")[0] for line in capsys.readouterr().out.splitlines()) == [
        f"{party / 'two.png'}#xywh=184,144,40,40", f"{party / 'two.png'}#xywh=64,64,40,40"
    ]  # fmt: skip
    predict.main([str(party), "--probe", str(probe)])
    assert "was trained on faces aligned as eyes-1: give --align" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="1"):
        (party / "z.jpg").write_bytes(b"no image")
        predict.main(given)


def test_embed_has_a_row_for_each_face(probe, model, party, tmp_path, capsys):
    out = tmp_path / "features.npz"
    embed.main([str(party), "--encoder", str(probe), "--out", str(out), "--align", "--detector", str(model)])
    found = np.load(out)
    assert found["features"].shape == (2, 32) and all("two.png#xywh=" in name for name in found["names"])
    assert (tmp_path / "features.npz.bad.txt").read_text() == f"{party / 'none.png'}\tno face found\n"
    assert "1 photographs have no face" in capsys.readouterr().err


def test_prepare_aligns_and_a_run_on_it_records_the_crop(model, party, probe, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    prepare.main(["folder", "--source", str(party), "--out", str(out), "--align", "--detector", str(model)])
    assert "no face found in 1: listed in faces_not_found.txt" in capsys.readouterr().out
    assert [path.name for path in (out / "unlabelled").iterdir()] == ["two.png"]
    config = pretraining(small.settings(data={"path": str(out / "unlabelled")}))
    assert crop_of_run(config) == "eyes-1"
    monkeypatch.setenv("HOME", str(tmp_path))
    mixed = pretraining(small.settings(data={"sources": ("folder@~/out/unlabelled=1", f"folder@{party}=2")}))
    assert crop_of_run(mixed) == "as given, eyes-1"
    prepare.main(["--pack", str(out / "unlabelled"), "--out", str(tmp_path / "pack")])
    packed = pretraining(small.settings(data={"source": "array_record", "path": str(tmp_path / "pack")}))
    assert crop_of_run(packed) == "eyes-1"
    for given in (out / "unlabelled", out / "unlabelled" / "two.png"):
        predict.main([str(given), "--probe", str(probe)])
        assert "warning" not in capsys.readouterr().err, "these are the crops that the encoder was trained on"
    with pytest.raises(SystemExit, match="2"):
        prepare.main(["folder", "--source", str(party), "--out", str(out), "--not-found", "keep"])
    assert "--not-found is an option of --align" in capsys.readouterr().err


# -------------------------------------------------------------------- video


def frames(count: int) -> list[Image.Image]:
    """A face that moves to the right, leaves for a third of the time, and returns."""
    away = range(count // 3, 2 * count // 3)
    return [photograph((320, 240), [] if i in away else [(16 + 8 * (i % 8), 56)]) for i in range(count)]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """150 frames, 30 a second, as Motion JPEG."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for frame in frames(150):
        writer.write(np.ascontiguousarray(np.asarray(frame)[..., ::-1]))
    writer.release()
    return path


def test_a_video_becomes_one_table_with_nan_where_there_is_no_face(probe, model, clip, tmp_path, capsys):
    out = tmp_path / "clip.csv"
    video.main([str(clip), "--probe", str(probe), "--detector", str(model), "--out", str(out)])
    assert "150 frames, 100 with a face" in capsys.readouterr().out
    rows = rows_of(out)
    assert [int(row["frame"]) for row in rows] == list(range(150))
    assert float(rows[149]["time"]) == pytest.approx(149 / 30, abs=1e-3)
    without = [math.isnan(float(row["x"])) and math.isnan(float(row["green"])) for row in rows]
    assert without == [50 <= number < 100 for number in range(150)]
    assert float(rows[1]["x"]) - float(rows[0]["x"]) == pytest.approx(8, abs=2)
    for row in rows[:50]:
        assert sum(float(row[name]) for name in COLOURS) == pytest.approx(1, abs=1e-4)
    with pytest.raises(SystemExit, match="2"):
        video.main([str(clip), "--probe", str(probe), "--detector", str(model), "--out", str(out)])
    assert "exists already" in capsys.readouterr().err


def test_a_table_that_was_cut_short_does_not_look_whole(probe, model, clip, tmp_path, monkeypatch):
    out, rows = tmp_path / "clip.csv", video.table

    def cut(*given):
        yield next(rows(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "table", cut)
    given = [str(clip), "--probe", str(probe), "--detector", str(model), "--out", str(out)]
    assert small.status(video, given) == 130 and not out.exists() and (tmp_path / "clip.csv.partial").exists()
    monkeypatch.undo()
    video.main(given)
    assert len(rows_of(out)) == 150 and not (tmp_path / "clip.csv.partial").exists()


def test_a_video_that_breaks_off_gives_what_can_be_read(probe, model, clip, tmp_path, caplog, capsys):
    half = tmp_path / "half.avi"
    half.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    video.main([str(half), "--probe", str(probe), "--detector", str(model), "--out", str(tmp_path / "half.csv")])
    assert 40 < len(rows_of(tmp_path / "half.csv")) < 110
    assert any("breaks off" in message for message in caplog.messages)
    half.write_bytes(b"no video")
    with pytest.raises(SystemExit, match="2"):
        video.main([str(half), "--probe", str(probe), "--detector", str(model), "--out", str(tmp_path / "no.csv")])
    assert "is no video that OpenCV can read" in capsys.readouterr().err


def test_probe_and_table_of_a_video_may_lie_in_buckets(probe, model, tmp_path, monkeypatch, capsys):
    (folder := tmp_path / "frames").mkdir()
    frames(1)[0].save(folder / "0.png")
    given = [str(folder), "--detector", str(model), "--probe"]
    video.main([*given, str(probe), "--out", str(tmp_path / "frames.csv")])
    with bucket_server.BucketServer() as server:
        bucket_server.use(server.url, tmp_path, monkeypatch)
        server.put_folder("probe", probe)
        video.main([*given, "gs://bucket/probe", "--out", "s3://bucket/frames.csv"])
        assert "s3://bucket/frames.csv: 1 frames, 1 with a face" in capsys.readouterr().out
        assert server.buckets["bucket"]["frames.csv"].data == (tmp_path / "frames.csv").read_bytes()
        assert small.status(video, [*given, "gs://bucket/probe", "--out", "s3://bucket/frames.csv"]) == 2
        assert "s3://bucket/frames.csv exists already" in capsys.readouterr().err
        assert small.status(video, ["gs://bucket/a.mp4", *given[1:], str(probe), "--out", "x.csv"]) == 2
        assert "`gcloud storage cp -r` copies from a bucket" in capsys.readouterr().err


def test_a_folder_of_frames_is_a_video_too(probe, model, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames(6)):
        frame.save(folder / f"{number:03d}.png")
    (folder / "006.png").write_bytes(b"no image")
    out = tmp_path / "frames.csv"
    video.main([str(folder), "--probe", str(probe), "--detector", str(model), "--out", str(out), "--fps", "10"])
    rows = rows_of(out)
    assert [math.isnan(float(row["score"])) for row in rows] == [False, False, True, True, False, False, True]
    assert [float(row["time"]) for row in rows] == [number / 10 for number in range(7)]
    shutil.rmtree(folder)
