"""What commands read in buckets and write there: as paths, named as their user named them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import small
from PIL import Image

from simfle_jax.commands import compare, convert, demo, faces, masks, report, study
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.feature_table import FeatureTable
from simfle_jax.evaluation.records import PREDICTIONS
from simfle_jax.runs import at_hand
from simfle_jax.runs.at_hand import borrowed, delivered
from simfle_jax.runs.mirror import Mirror, shown
from simfle_jax.storage import Bucket


def probe(place: str, guesses: str) -> None:
    """Predictions for four images, of which two are `a`."""
    lines = [f"{number}.jpg,{'ab'[number % 2]},{guess},0.9" for number, guess in enumerate(guesses)]
    Bucket(place).write("config.json", b"{}")
    Bucket(place).write("predictions.csv", "\n".join([",".join(PREDICTIONS), *lines]).encode())


def test_probes_in_two_clouds_are_compared(server, capsys):
    probe("s3://bucket/one", "abab")
    probe("gs://bucket/two", "abbb")
    assert small.status(compare, ["s3://bucket/one", "gs://bucket/two", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"], found["only_a_right"]) == ("s3://bucket/one", "gs://bucket/two", 1)
    for place, said in (("gs://bucket/none", "nothing lies at gs://bucket/none"), ("gs:/bucket", "two slashes"),
                        ("gs://bucket/one/config.json", "gs://bucket/one/config.json holds no predictions.csv")):  # fmt: skip
        assert small.status(compare, ["s3://bucket/one", place]) == 2
        assert said in capsys.readouterr().err


@pytest.fixture
def recorded(server, tmp_path) -> str:
    """A run of SimFLE that an earlier version wrote, with its checkpoints, and its images."""
    (archive,) = (Path(__file__).parents[1] / "recorded").glob("*.tar.xz")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    top = tmp_path / archive.name.split(".")[0]
    server.put_folder("faces", top / "data" / "train")
    mirror = Mirror("gs://bucket/run", top / "simfle")
    mirror.push()
    for step in sorted(int(path.name) for path in (top / "simfle" / "checkpoints").iterdir()):
        mirror.push_checkpoint(step, keep=9)
    return "gs://bucket/run"


def test_masks_of_a_run(recorded, server, capsys):
    assert small.status(masks, ["gs://bucket/faces", "--encoder", recorded, "--out", "s3://bucket/masks.png"]) == 0
    assert "s3://bucket/masks.png: " in capsys.readouterr().out
    picture = Image.open(io.BytesIO(server.buckets["bucket"]["masks.png"].data))
    assert np.ptp(np.asarray(picture), axis=(0, 1)).min() > 100


@pytest.mark.slow
def test_the_way_of_a_run_to_the_published_program_and_back(recorded, capsys):
    pytest.importorskip("torch")
    there, images = "s3://bucket/theirs.pth.tar", ["--data", "gs://bucket/faces"]
    assert small.status(convert, [recorded, there, *images]) == 0, capsys.readouterr().err
    settings = ["--config", str(Path(__file__).parents[1] / "small_config.py"), "--set", "batch_size=8", "epochs=3"]
    assert small.status(convert, [there, "gs://bucket/back", *images, *settings]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert there in told and "gs://bucket/back: goes on at epoch" in told, told
    assert load_encoder("gs://bucket/back").hash == load_encoder(recorded).hash
    assert "back/checkpoints/6.json" in [*Bucket("gs://bucket").names()]


def test_features_lie_there_with_the_files_beside_them(server, tmp_path):
    np.save(tmp_path / "f.npy", np.eye(2, 3, dtype=np.float32))
    np.save(tmp_path / "f.names.npy", ["train/a/0.jpg", "train/b/1.jpg"])
    (tmp_path / "f.npy.bad.txt").write_text("train/b/2.jpg\tis damaged\n")
    for path in tmp_path.glob("f.*"):
        server.put(f"features/{path.name}", path.read_bytes())
    found, here = FeatureTable("gs://bucket/features/f.npy"), FeatureTable(str(tmp_path / "f.npy"))
    assert found.hash == here.hash and found.unreadable == here.unreadable and len(here.unreadable) == 1
    with pytest.raises(UserError, match=r"^nothing lies at gs://bucket/features/g\.npy"):
        FeatureTable("gs://bucket/features/g.npy")
    server.put("features/g.npy", b"x")
    with pytest.raises(UserError, match=r"^gs://bucket/features/g\.npy is no file of names and features"):
        FeatureTable("gs://bucket/features/g.npy")


def test_what_is_made_is_copied_at_a_good_end(server, monkeypatch):
    held, written, write = Bucket("s3://bucket"), [], Bucket.write
    monkeypatch.setattr(Bucket, "write", lambda self, name, data: (written.append(name), write(self, name, data))[1])
    with delivered("s3://bucket/a/page.html") as out:
        for name in ("page.html", "page.txt", "a.txt"):
            out.with_name(name).write_text(name)
        assert shown(out) == "s3://bucket/a/page.html" and written == []
    with delivered("s3://bucket/figures") as folder:
        folder.mkdir()
        (folder / "1.png").write_text("1")
    assert written[2:] == ["page.html", "figures/1.png"], "the page was there before what it names"
    assert held.names() == ["a/a.txt", "a/page.html", "a/page.txt", "figures/1.png"] and not out.exists()
    with pytest.raises(UserError, match=r"^s3://bucket/b.html fails$"), delivered("s3://bucket/b.html") as out:
        out.write_text("half")
        raise UserError(f"{out} fails")
    assert not out.parent.exists() and len(held.names()) == 4
    for taken in ("s3://bucket/a/page.html", "s3://bucket/figures/", "s3://bucket"):
        with pytest.raises(UserError), delivered(taken, new=True):
            pytest.fail("it is there already, or names no file")


def test_work_of_hours_outlives_a_bucket_that_is_away(server, monkeypatch):
    def away(*_):
        raise UserError("away")

    with monkeypatch.context() as patched, pytest.raises(UserError, match="away"):
        patched.setattr(at_hand.Bucket, "write", away)
        with delivered("s3://bucket/f.npz", kept="of one encoder") as out:
            out.write_text("hours")
    with pytest.raises(UserError), delivered("s3://bucket/f.npz", kept="of another") as other:
        assert not other.exists(), "these are the features of another encoder"
        raise UserError("stopped")
    with delivered("s3://bucket/f.npz", kept="of one encoder") as again:
        assert again == out and out.read_text() == "hours"
    assert Bucket("s3://bucket").read("f.npz") == b"hours" and not out.exists()


def test_a_name_that_leads_elsewhere_is_not_copied(server, tmp_path):
    bucket = Bucket("s3://bucket/run")
    bucket.write("config.json", b"{}")
    bucket.write("", b"")  # as consoles leave them
    with borrowed("s3://bucket/run") as folder:
        assert [path.name for path in folder.iterdir()] == ["config.json"]
    server.buckets["bucket"]["run/a/../../../escaped"] = server.buckets["bucket"]["run/config.json"]
    with pytest.raises(UserError, match="is no name of a file"), borrowed("s3://bucket/run"):
        pass
    assert not list(Path(tmp_path).rglob("escaped"))


@pytest.mark.parametrize("command, arguments", [
    (demo, ["--workdir", "gs://bucket/demo"]), (faces, ["--out", "gs://bucket/faces"]),
    (study, ["x", "--workdir", "s3://bucket/study"]), (report, ["gs:/bucket/run", "--out", "x.html"]),
])  # fmt: skip
def test_what_cannot_lie_in_a_bucket_is_refused_and_makes_no_folder(command, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert small.status(command, arguments) == 2 and not list(tmp_path.iterdir())
    assert "must be on a disk" in (told := capsys.readouterr().err) or "two slashes" in told
