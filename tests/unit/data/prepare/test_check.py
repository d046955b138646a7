"""A check finds what was planted."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import layout_fakes as fakes
import numpy as np
from PIL import Image
from small import status

from simfle_jax.commands import prepare as command
from simfle_jax.data.prepare.check import check, table

ROOT = Path(__file__).parents[4]
GOOD = fakes.encode(fakes.picture(1, (64, 64)), "JPEG")
PNG = fakes.encode(fakes.picture(1, (64, 64)))


def huge_png() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return PNG[:8] + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + PNG[33:]


def broken_checksum() -> bytes:
    place = PNG.index(b"IDAT") + 10
    return PNG[:place] + bytes([PNG[place] ^ 0xFF]) + PNG[place + 1 :]


CORRUPT = {
    "empty.jpg": b"",
    "truncated.jpg": GOOD[: len(GOOD) // 2],
    "header_only.jpg": GOOD[:20],
    "start_only.jpg": b"\xff\xd8",
    "text.jpg": b"404 not found\n",
    "page.jpg": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "random.jpg": np.random.default_rng(0).bytes(3000),
    "zeros.png": bytes(4096),
    "truncated.png": PNG[: len(PNG) // 2],
    "checksum.png": broken_checksum(),
    "huge.png": huge_png(),
    "truncated.webp": fakes.encode(fakes.picture(1, (64, 64)), "WEBP")[:60],
}


def many(folder, count, seed):
    """Distinct small images, quickly: one picture each from its own noise."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    for place in range(count):
        Image.fromarray(noise[place]).resize((16, 16)).save(folder / f"{place:04}.png", compress_level=1)


def test_one_percent_of_corrupt_files_of_twelve_kinds_are_all_listed(tmp_path):
    many(tmp_path / "in/calm", 990, seed=3)
    many(tmp_path / "in/joy", 990, seed=4)
    planted = {}
    for place, (name, data) in enumerate([*CORRUPT.items(), *list(CORRUPT.items())[:8]]):
        path = f"{'calm' if place % 2 else 'joy'}/{place}_{name}"
        (tmp_path / "in" / path).write_bytes(data)
        planted[path] = data
    report = check(tmp_path / "in")
    assert report["images"] == 2000
    assert {entry["path"] for entry in report["unreadable"]} == set(planted)
    assert all(entry["reason"] for entry in report["unreadable"])
    assert sum(report["counts"][""].values()) == 1980


def test_jpegs_without_an_end_are_counted_and_odd_names_stay_on_their_lines(tmp_path):
    fakes.put(tmp_path / "whole.jpg", 1, (64, 64))
    (tmp_path / "endless.jpg").write_bytes(fakes.encode(fakes.picture(2, (64, 64)), "JPEG")[:-2])
    (tmp_path / os.fsdecode(b"line\nbreak-\xe9.jpg")).write_bytes(b"")
    report = check(tmp_path)
    assert report["without_end_marker"] == ["endless.jpg"]
    lines = table(report).splitlines()
    place = lines.index("  JPEGs used without their end marker: 1")
    assert lines[place - 1 : place + 2 : 2] == [r"    line\x0abreak-\xe9.jpg: empty file", "    endless.jpg"]


def test_planted_leaks_are_found(tmp_path):
    for seed in range(30):
        fakes.put(tmp_path / f"train/{'ab'[seed % 2]}/{seed}.png", seed, (80, 80))
        fakes.put(tmp_path / f"val/{'ab'[seed % 2]}/{seed}.png", 1000 + seed, (80, 80))
    (tmp_path / "val/a/exact.png").write_bytes((tmp_path / "train/a/4.png").read_bytes())
    small = fakes.picture(7, (80, 80)).resize((51, 51), Image.Resampling.BICUBIC)
    small.save(tmp_path / "val/a/near.jpg", quality=60)
    fakes.picture(8, (80, 80)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "val/a/mirror.png")
    (tmp_path / "train/b/again.png").write_bytes((tmp_path / "train/a/6.png").read_bytes())
    report = check(tmp_path)
    assert report["leaks"] == [
        {"kind": "exact", "train": ["train/a/4.png"], "val": ["val/a/exact.png"]},
        {"kind": "near", "train": ["train/b/7.png"], "val": ["val/a/near.jpg"]},
        {"kind": "mirrored", "train": ["train/a/8.png"], "val": ["val/a/mirror.png"]},
    ]
    assert report["exact_duplicates"] == [
        ["train/a/4.png", "val/a/exact.png"],
        ["train/a/6.png", "train/b/again.png"],
    ]
    assert report["conflicting_labels"] == [["train/a/6.png", "train/b/again.png"]]
    assert "leaks between train and val: 3" in table(report)


def test_counts_sizes_modes_and_statistics(tmp_path):
    pictures = {
        "train/a/1.png": fakes.picture(1, (128, 128)),
        "train/a/2.png": fakes.picture(2, (128, 128)),
        "train/b/3.png": fakes.picture(3, (128, 128)).convert("L"),
        "val/a/4.jpg": fakes.picture(4, (60, 90)),
        "val/c/5.png": fakes.picture(5, (40, 40)).convert("P"),
    }
    for name, image in pictures.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / name)
    report = check(tmp_path)
    assert report["counts"] == {"train": {"a": 2, "b": 1}, "val": {"a": 1, "c": 1}}
    assert report["balance"] == {"train": 2.0, "val": 1.0}
    assert report["classes_in_one_split_only"] == ["b", "c"]
    assert report["modes"] == {"RGB": 3, "L": 1, "P": 1}
    assert report["formats"] == {"PNG": 4, "JPEG": 1}
    assert report["sizes"]["width"] == {"min": 40, "median": 128.0, "max": 128}
    assert report["sizes"]["most_common"] == {"128x128": 3, "60x90": 1, "40x40": 1}
    train = [np.asarray(image.convert("RGB")) / 255 for name, image in pictures.items() if name.startswith("train")]
    values = np.concatenate([image.reshape(-1, 3) for image in train])
    np.testing.assert_allclose(report["mean"], values.mean(0), atol=1e-4)
    np.testing.assert_allclose(report["std"], values.std(0), atol=1e-4)


def test_command_prints_a_table_and_writes_json(tmp_path, capsys):
    for seed in range(4):
        fakes.put(tmp_path / f"in/{seed}.png", seed)
    assert status(command, ["--check", str(tmp_path / "in"), "--json", str(tmp_path / "report.json")]) == 0
    assert "4 images" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["images"] == 4
    assert status(command, ["--check", str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_a_reader_that_closes_the_pipe_loses_no_report(tmp_path):
    for seed in range(4):
        fakes.put(tmp_path / f"in/{seed}.png", seed)
    reading, writing = os.pipe()
    os.close(reading)  # as `| head -1` does, only before the first line
    arguments = ["--check", "in", "--json", "report.json"]
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "simfle_jax.prepare", *arguments],
            cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert (done.returncode, "pipe" in done.stderr.lower()) == (0, False), done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["images"] == 4


def test_a_second_split_of_another_name_is_looked_at(tmp_path):
    many(tmp_path / "train" / "anger", 4, 0)
    many(tmp_path / "validation" / "fear", 2, 9)
    copied = next((tmp_path / "train" / "anger").iterdir())
    (tmp_path / "validation" / "fear" / "copy.png").write_bytes(copied.read_bytes())
    report = check(tmp_path)
    assert report["images"] == 7 and report["counts"]["val"] == {"fear": 3}
    assert [leak["val"] for leak in report["leaks"]] == [["validation/fear/copy.png"]]
    assert "leaks between train and val: not looked for" in table(check(tmp_path / "train"))
    (tmp_path / "test").mkdir()
    assert check(tmp_path)["images"] == 7, "a split without images is passed over"


def test_classes_that_are_called_like_splits_are_classes_where_there_is_no_train(tmp_path):
    for seed, name in enumerate(("anger", "test", "valid")):
        many(tmp_path / name, 2, seed)
    assert check(tmp_path)["images"] == 6
