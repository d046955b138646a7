"""Runs, probes and features in buckets: the same to the bit as on a disk, whatever happens on the way."""

import collections
import json
import re
import signal
import threading
import time
from pathlib import Path

import bucket_server
import numpy as np
import processes
import pytest
import small
from fault_proxy import FaultProxy
from kill import differing, end
from small_probe import write_encoder

from configs import probe as probe_settings
from simfle_jax.commands import convert, embed, masks, report
from simfle_jax.data.packing import pack
from simfle_jax.encoder import load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation import tuning
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing
from simfle_jax.host import host_folder
from simfle_jax.runs.at_hand import ALL, borrowed
from simfle_jax.storage import Bucket
from simfle_jax.training import loop
from simfle_jax.training.loop import Run, train


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(("train/angry", "train/happy", "val/angry", "val/happy")):
        small.write_images(root / name, 8, seed=number)
    return root


def config(path, **changes):
    return small.config(method="byol", checkpoint_steps=2, data={"path": str(path), "canvas": 0}, **changes)


@pytest.fixture(scope="module")
def on_disk(faces, tmp_path_factory):
    """The end of an uninterrupted run of eight steps on a disk, and its folder."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    train(config(faces), str(workdir))
    return end_of(workdir), workdir


def bucket_end(location: str) -> dict[str, object]:
    with borrowed(location, checkpoints=ALL) as folder:
        return end_of(folder)


def end_of(folder: Path) -> dict[str, object]:
    """What a run came to, wherever its images lie."""
    found = end(folder)
    found["metadata"].pop("config")
    return found


def first_difference(found: dict[str, object], expected: dict[str, object]) -> str:
    """Where two runs part, for a message; '' where they are equal to the bit."""
    names = sorted(differing(found, expected), key=lambda name: (len(name), name) if "step" in name else (10**6, name))
    return f"{len(names)} things, e.g. {names[0]}: {found.get(names[0])} for {expected.get(names[0])}" if names else ""


class Lost(Exception):
    """The process is gone, as far as the bucket knows."""


def stop_at(step: int, monkeypatch, each=lambda: None) -> None:
    """Lets the run die after a step, before anything more is written; whoever holds the lock has died, too.

    each: called after every step.
    """
    after = Run._after_step

    def dies(self, now, *rest):
        after(self, now, *rest)
        each()
        if now == step:
            raise Lost

    monkeypatch.setattr(Run, "_after_step", dies)


def test_a_run_in_a_bucket_is_the_run_on_a_disk(server, faces, on_disk, monkeypatch, tmp_path):
    where, run = "gs://bucket/faces", "s3://bucket/runs/one"
    pack(str(faces), where)
    size, reads, server.calls = server.received, set[int](), collections.Counter()
    with monkeypatch.context() as patched:
        stop_at(5, patched, lambda: reads.add(server.calls["GET faces"]))
        with pytest.raises(Lost):
            train(config(where), run)
    assert "runs/one/checkpoints/4.json" in server.buckets["bucket"]
    files = len(Bucket(run).names("checkpoints/4-"))
    print(f"first start, more than an epoch, 2 checkpoints of {files} files: {dict(server.calls)}; "
          f"{server.sent / size:.3f} times the pack read")  # fmt: skip
    assert size <= server.sent <= 1.1 * size and len(reads) == 1, (
        "more than one reading, and that before the first step"
    )
    server.calls = collections.Counter()
    with pytest.raises(UserError, match=f"^{run} is a run with facemae.alpha"):
        train(config(where, alpha=0.7), run)
    before = server.calls["PUT"]
    train(config(where, tensorboard=True), run)
    assert server.calls["PUT"] - before < 60, "more requests than two checkpoints are worth"
    print(f"second start, 2 checkpoints and the end: {dict(server.calls)}")
    assert server.calls["GET faces"] <= 2 * 5, (
        "two starts, one refused: each asks for indices and crop, and for no image"
    )
    assert first_difference(bucket_end(run), on_disk[0]) == ""
    names = Bucket(run).names()
    assert sorted(name for name in names if not name.startswith("checkpoints/")) == [
        "config.json", "encoder.safetensors", "environment.json", "metrics.jsonl", *events_in(run),
    ]  # fmt: skip
    assert [name for name in names if name.endswith(".json") and "/" in name] == [
        "checkpoints/6.json",
        "checkpoints/8.json",
    ]
    before, told = len(server.buckets["bucket"]), []
    with monkeypatch.context() as patched:
        patched.setattr(loop, "export_encoder", lambda *_: told.append("the encoder was written again"))
        train(config(where), run)
    assert not told and len(server.buckets["bucket"]) == before, "it was complete"
    probed_and_embedded(run, where, faces, on_disk[1], tmp_path)
    reported_and_converted(run, where)
    for name in [name for name in server.buckets["bucket"] if name.startswith("faces/")]:
        del server.buckets["bucket"][name]
    pack(str(small.write_images(tmp_path / "others", 16, seed=7)), where)
    with pytest.raises(UserError, match=f"^{run} was begun with other images"):
        train(config(where), run)


def events_in(run: str) -> list[str]:
    """What TensorBoard reads: it is in the bucket, and tells the steps that were done since."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with borrowed(run) as folder:
        events = reader.EventAccumulator(str(folder / "tensorboard")).Reload()
        assert [event.step for event in events.Scalars("loss/total")] == [5, 6, 7, 8]
        return [path.relative_to(folder).as_posix() for path in (folder / "tensorboard").iterdir()]


def probed_and_embedded(run: str, where: str, faces: Path, on_disk: Path, tmp_path: Path) -> None:
    """Probe and features from and to the bucket are those of the disk."""
    found = []
    for encoder, path, workdir in ((run, where, "gs://bucket/probe"), (on_disk, faces, tmp_path / "probe")):
        settings = probe_settings.get_config()
        settings.update_from_flattened_dict(
            {"encoder": str(encoder), "data.path": str(path), "protocol": "knn", "data.threads": 1}
        )
        run_probe(probing(settings), str(workdir))
        out = str(workdir).replace("probe", "f/features.npz")
        embed.main([str(path), "--encoder", str(encoder), "--out", out])
        with borrowed("gs://bucket/probe") as probed, borrowed("gs://bucket/f/features.npz") as features:
            if found:
                probed, features = tmp_path / "probe", tmp_path / "f/features.npz"
            told = json.loads((probed / "results.json").read_text())
            found.append([told["confusion"], told["encoder_hash"], told["data_fingerprint"]])
            found[-1].append(np.load(features)["features"].tobytes())
    assert found[0] == found[1]
    settings.update_from_flattened_dict({"encoder": "", "features": "gs://bucket/f/features.npz", "data.path": where})
    assert run_probe(probing(settings), "s3://bucket/of-features")["confusion"] == found[0][0]
    with pytest.raises(SystemExit):
        embed.main([where, "--encoder", run, "--out", "gs://bucket/f/features.npz"])


def test_fine_tuning_in_a_bucket_goes_on_where_it_was_stopped(server, faces, tmp_path, monkeypatch):
    class Stopped(tuning.Stop):
        def asked(self, step):
            return step == 3

    config = probe_settings.get_config()
    config.update_from_flattened_dict({
        "encoder": str(write_encoder(tmp_path / "encoder.safetensors")), "data.path": str(faces), "protocol": "finetune",
        "epochs": 2, "batch_size": 8, "finetune.warmup_epochs": 0.0,
    })  # fmt: skip
    begun, batches = [], tuning.TrainBatches
    monkeypatch.setattr(tuning, "TrainBatches", lambda *a, **k: begun.append(k["start_step"]) or batches(*a, **k))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(tuning, "Stop", Stopped)
        run_probe(probing(config), "gs://bucket/tuned")
    assert run_probe(probing(config), "gs://bucket/tuned")["protocol"] == "finetune" and begun == [0, 3]


def reported_and_converted(run: str, where: str) -> None:
    """Commands that take runs, probes, images and files take those of buckets, and name them so."""
    held, left = Bucket("gs://bucket"), set(host_folder("work").iterdir())
    assert small.status(report, [run, "--probe", "gs://bucket/probe", "--out", "gs://bucket/r/page.html"]) == 0
    page = (held.read("r/page.html") or b"").decode()
    assert "Features and neighbours" in page and str(host_folder()) not in page
    assert re.findall(r"is not shown: [^<>]*", page) == []
    assert small.status(convert, [run, "gs://bucket/c/target.safetensors", "--branch", "target"]) == 0
    one, other = load_encoder("gs://bucket/c/target.safetensors"), load_encoder(run, branch="target")
    assert one.hash == other.hash and one.metadata["branch"] == "target"
    assert small.status(convert, [run, "gs://bucket/c/target.safetensors"]) == 2, "it is there already"
    assert small.status(convert, [run, "s3://bucket/hub", "--probe", "gs://bucket/probe"]) == 0
    assert sorted(Bucket("s3://bucket/hub").names())[-1] == "preprocessor_config.json"
    assert load_encoder("s3://bucket/hub").hash == load_encoder(run).hash
    assert small.status(convert, [run, "s3://bucket/hub"]) == 2
    assert small.status(masks, [where, "--encoder", run, "--out", "s3://bucket/m.png"]) == 2
    assert "m.png" not in held.names() and set(host_folder("work").iterdir()) == left


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_wrong_place_is_told_before_anything_is_written(kind, server, faces, tmp_path):
    server.put("file", b"1")
    for place, said in (
        (f"{kind}://nosuch/a", f"there is no bucket {kind}://nosuch: create it"),
        (f"{kind}:/bucket/a", f"{kind}:/bucket/a names no bucket: write it with two slashes, {kind}://bucket/a"),
        (f"{kind}://bucket/file", f"{kind}://bucket/file is an object and no folder: give another name"),
        (f"{kind}://bucket/denied", f"{kind}://bucket/denied: no permission"),
    ):
        server.denied = place.endswith("denied")
        for images, workdir in ((place, str(tmp_path / "run")), (str(faces), place)):
            with pytest.raises(UserError, match=f"^{said}[^\n]*$"):
                train(config(images), workdir)
    assert list(server.buckets["bucket"]) == ["file"] and not (tmp_path / "run").exists()


def test_a_bucket_that_lets_nobody_in_any_more_ends_the_run_with_a_checkpoint(server, faces, monkeypatch):
    after = Run._after_step

    def expire(self, now, *rest):
        after(self, now, *rest)
        if now == 3:
            self.checkpoints._finish()
            server.denied = True

    monkeypatch.setattr(Run, "_after_step", expire)
    with pytest.raises(UserError, match=r"s3://bucket/runs/one: no permission .* goes on from step 2$"):
        train(config(faces), "s3://bucket/runs/one")
    assert "runs/one/checkpoints/2.json" in server.buckets["bucket"]


# ---------------------------------------------------------------- the long proofs: processes, signals, faults


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Compiled programs that nobody else renews meanwhile: those compiled anew may round otherwise."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("programs")))
        yield


@pytest.fixture(scope="module")
def two_on_disk(faces, programs, tmp_path_factory):
    """The end of an uninterrupted run of two processes on a disk."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    ended = processes.finish(start(faces, workdir))
    assert [status for status, _ in ended] == [0, 0], ended
    return end_of(workdir)


def start(images, workdir, *flags: str):
    return processes.start(
        images, workdir, "--config.epochs=12", "--config.checkpoint_steps=6", "--peer_timeout=200", *flags, devices=1
    )


def steps_in(where: str) -> int:
    """The newest checkpoint in the bucket."""
    names = Bucket(where).names("checkpoints/")
    return max((int(Path(name).stem) for name in names if name.count("/") == 1 and name.endswith(".json")), default=0)


def kill_one_and_go_on(run: str, pack_at: str) -> None:
    started, until = start(pack_at, run), time.monotonic() + 300
    while not steps_in(run):
        assert time.monotonic() < until and all(process.poll() is None for process in started), processes.finish(
            started
        )
        time.sleep(0.05)
    started[0].send_signal(signal.SIGKILL)
    ended = processes.finish(started)
    assert ended[0][0] == -signal.SIGKILL and ended[1][0] != 0, ended
    saved = steps_in(run)
    ended = processes.finish(start(pack_at, run), timeout=500)
    assert [status for status, _ in ended] == [0, 0], ended
    assert f"{run} goes on from step {saved}" in ended[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_two_processes_of_which_one_is_killed(kind, server, faces, two_on_disk):
    pack(str(faces), f"{kind}://bucket/faces")
    kill_one_and_go_on(f"{kind}://bucket/run", f"{kind}://bucket/faces")
    assert first_difference(bucket_end(f"{kind}://bucket/run"), two_on_disk) == ""


@pytest.mark.slow
def test_the_same_with_moto(moto, faces, two_on_disk):
    pack(str(faces), "s3://bucket/faces")
    kill_one_and_go_on("s3://bucket/run", "s3://bucket/faces")
    assert first_difference(bucket_end("s3://bucket/run"), two_on_disk) == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_faults_on_the_way_change_nothing(kind, server, faces, two_on_disk, monkeypatch):
    pack(str(faces), f"{kind}://bucket/faces")
    run = f"{kind}://bucket/run"
    with FaultProxy(server.url, busy=0.05, hung=0.01, cut=0.01, hang=30) as proxy:
        for name, value in bucket_server.environment(proxy.url).items():
            monkeypatch.setenv(name, value)
        # The run ends within the minute that the bucket is away, and must wait for it.
        started = start(f"{kind}://bucket/faces", run)
        until = time.monotonic() + 300
        while not steps_in(run):
            assert time.monotonic() < until and started[0].poll() is None, processes.finish(started)
            time.sleep(0.05)
        proxy.away.set()
        threading.Timer(60, proxy.away.clear).start()
        ended = processes.finish(started, timeout=550)
        assert [status for status, _ in ended] == [0, 0], ended
        print(kind, proxy.faults)
        assert proxy.faults["busy"] and proxy.faults["away"], proxy.faults
        assert first_difference(bucket_end(run), two_on_disk) == ""
