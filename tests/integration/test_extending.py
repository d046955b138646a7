"""docs/extending.md's first recipe, followed word for word in a copy: a method is one file and a config."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import small

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/extending.md").read_text()
FILES = dict(re.findall(r"as\s`([\w/]+\.py)`:\n\n```python\n(.*?)```", TEXT, re.DOTALL))


def test_a_method_is_one_file_of_under_80_lines_and_a_config(tmp_path):
    for name in ("simfle_jax", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", tmp_path)
    for name in ("simfle_jax/methods/barlow_twins.py", "configs/barlow_twins.py"):
        (tmp_path / name).write_text(FILES[name])
    assert len(FILES["simfle_jax/methods/barlow_twins.py"].splitlines()) < 80
    small.write_images(tmp_path / "FACES_SMALL" / "train", 64)

    (command,) = re.findall(
        r"^    python (train.py --config=configs/barlow_twins.py --config.data.path=FACES_SMALL/train .*)$",
        TEXT,
        re.MULTILINE,
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-800:]
    last = json.loads((tmp_path / "RUN" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4 and {"loss/invariance", "loss/redundancy", "features/effective_rank"} <= set(last)
    assert (tmp_path / "RUN" / "encoder.safetensors").is_file()
