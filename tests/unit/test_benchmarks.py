"""What the benchmarks read and count, and that the one for a GPU goes on where it was cut."""

import dataclasses
import importlib
import json
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from flax import nnx

from benchmarks import arms, step_flops
from benchmarks.composed import compose, error, is_of
from benchmarks.kernels import kernels
from simfle_jax.config import named_trunk
from simfle_jax.data.photographs.crop import SIDE, aligned
from simfle_jax.data.synthetic_faces import DEMO, draw_face
from simfle_jax.errors import UserError
from simfle_jax.models.trunks import make_trunk
from simfle_jax.planning.expected import products

ROOT = Path(__file__).parents[2]

PROGRAM = """HloModule jit_train_step, is_scheduled=true

FileNames
1 "/there/simfle_jax/kernels/batch_norm.py"
2 "/there/simfle_jax/augment.py"

FileLocations
1 {file_name_id=1 function_name_id=1 line=5 end_line=5 column=2 end_column=9}
2 {file_name_id=2 function_name_id=1 line=7 end_line=7 column=2 end_column=9}

StackFrames
1 {file_location_id=2}
2 {file_location_id=1 parent_frame_id=1}

%fused_sums (p: bf16[8,4]) -> f32[4] {
  %p = bf16[8,4]{1,0} parameter(0)
  %c = f32[] constant(0)
  ROOT %reduce.1 = f32[4]{0} reduce(%p, %c), dimensions={0}, to_apply=%add, metadata={op_name="sum" stack_frame_id=2}
}

%body (t: (bf16[8,4])) -> (bf16[8,4]) {
  %t = (bf16[8,4]{1,0}) parameter(0)
  %x = bf16[8,4]{1,0} get-tuple-element(%t), index=0
  %copy.2 = bf16[8,4]{0,1} copy(%x), metadata={op_name="crop" stack_frame_id=1}
  ROOT %r = (bf16[8,4]{0,1}) tuple(%copy.2)
}

%cond (t.1: (bf16[8,4])) -> pred[] {
  %t.1 = (bf16[8,4]{1,0}) parameter(0)
  ROOT %on = pred[] constant(true)
}

ENTRY %main (a: bf16[8,4], k: bf16[4,4]) -> f32[4] {
  %a = bf16[8,4]{1,0} parameter(0)
  %k = bf16[4,4]{1,0} parameter(1)
  %conv.3 = (bf16[8,4]{1,0}, u8[4096]{0}) custom-call(%a, %k), window={size=1x1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %y = bf16[8,4]{1,0} get-tuple-element(%conv.3), index=0
  %while.1 = (bf16[8,4]{1,0}) while(%y), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %loop_sums = f32[4]{0} fusion(%y), kind=kInput, calls=%fused_sums
}
"""


def test_the_kernels_of_a_program():
    found = {kernel.name: kernel for kernel in kernels(PROGRAM)}
    assert list(found) == ["conv.3", "copy.2", "loop_sums"]
    assert found["conv.3"]._asdict() == {
        "name": "conv.3", "kind": "convolution", "part": "other", "dtype": "bf16", "times": 1,
        "detail": "convForward b01f_o01i->b01f", "bytes": 2 * (32 + 16 + 32),  # without the library's scratch
    }  # fmt: skip
    assert found["copy.2"][1:] == ("copy or transpose", "augmentation", "bf16", "", 128, 3)
    assert found["loop_sums"][1:] == ("fusion with sums", "BatchNorm", "f32", "", 64 + 16, 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_small_patch16_224"])
def test_flops_by_hand_are_those_of_the_trunk(name):
    config = small.config()
    sizes = named_trunk(name)
    shorter = (2,) if sizes["kind"] == "vit" else (1, 2)
    trunk = dataclasses.replace(config.trunk, **sizes | {"stage_sizes": shorter})

    counted = products(jax.make_jaxpr(lambda x: _features(trunk, x))(jnp.zeros((1, 64, 64, 3))).jaxpr)
    assert step_flops.trunk(dataclasses.replace(config, trunk=trunk), 64) == pytest.approx(counted, rel=0.01)


def _features(trunk, images):
    return make_trunk(trunk, 64, False, nnx.Rngs(0))(images, train=False).pooled


# Stands for every program that gpu.sh starts: takes its seconds, and leaves the file that it is told to.
PYTHON = """#!/usr/bin/env bash
echo "$@" >> "$CALLS"
while [ $# -gt 0 ]; do case $1 in --out) out=$2 ;; --workdir=*) mkdir -p "${1#*=}"; touch "${1#*=}/encoder.safetensors" ;; esac; shift; done
case ${out:-} in
    "") ;;
    */$STUCK.json) echo '{"complete": false}' > "$out"; sleep 60 ;;
    *) echo '{"complete": true}' > "$out" ;;
esac
"""


@pytest.fixture
def gpu_sh(tmp_path):
    """Runs the script with a program that does nothing; gives what that was called with."""
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(call, stuck="none", seconds="360"):
        calls = tmp_path / "calls"
        calls.write_text("")
        told = {"CALLS": calls, "STUCK": stuck, "PYTHON": python, "WORK": tmp_path / "work", "CALL_SECONDS": seconds}
        command = ["benchmarks/gpu.sh", call, str(tmp_path / "out"), str(tmp_path)]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {k: str(v) for k, v in told.items()}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return [line.split()[0] for line in calls.read_text().splitlines() if not line.startswith("-m pip")]

    return run


def test_gpu_sh_does_again_what_is_not_complete(gpu_sh, tmp_path):
    step, laws, torch = (f"benchmarks/gpu_{name}.py" for name in ("step", "laws", "torch"))
    assert gpu_sh("first") == [step, laws, "-m", torch, torch]
    parts = {path.stem for path in (tmp_path / "out").glob("*.json")}
    assert parts == {"profile", "laws", "torch", "torch_compiled"}
    (tmp_path / "out" / "torch.json").write_text('{"complete": false}')
    assert gpu_sh("first") == ["-m", torch], "and pytest, which leaves no results"
    train = ["train.py", "probe.py", "probe.py", "benchmarks/gpu_run.py"]
    assert gpu_sh("second") == [*train, *train, step]
    assert gpu_sh("second") == []


def test_gpu_sh_ends_a_part_that_is_stuck_and_keeps_what_it_wrote(gpu_sh, tmp_path):
    """Of a call of 30 seconds a part gets a fourteenth of its usual limit, and no part begins in the last ones."""
    assert gpu_sh("first", stuck="profile", seconds="30")[0] == "benchmarks/gpu_step.py"
    assert json.loads((tmp_path / "out" / "profile.json").read_text()) == {"complete": False}
    told = (tmp_path / "out" / "log.txt").read_text()
    assert "profile ended with status 124" in told and "torch_compiled is left out: no time" in told


@pytest.mark.parametrize("half", [False, True])
def test_the_faces_of_composed_photographs_are_where_they_are_said_to_be(half):
    strengths = dataclasses.replace(DEMO, closeup=0.0)
    photograph = compose(np.random.default_rng(1), "val", 3, 1, strengths, half=half, seed=4)
    drawn, (face,) = draw_face(4, "val", 3, 112, strengths), photograph.faces
    eyes = np.stack([drawn.landmarks[36:42].mean(0), drawn.landmarks[42:48].mean(0)])
    crops = [aligned(*each, 64).astype(int) for each in ((drawn.image, eyes), (photograph.pixels, face.eyes))]
    assert np.abs(crops[0] - crops[1])[20:50, 20:45].mean() < 6
    assert photograph.pixels.shape == ((240, 320, 3) if half else (480, 640, 3))
    moved = face._replace(eyes=face.eyes + 0.1 * (face.eyes[1] - face.eyes[0]))
    assert error(face, face) < 1e-9 and error(moved, face) == pytest.approx(0.03, rel=1e-6), "of the crop's side"
    assert is_of(moved, face) and not is_of(face._replace(eyes=face.eyes + SIDE), face)


def test_scores_of_something_else_are_not_gone_on_with(tmp_path):
    about = {"settings": ["--config.epochs=5"], "arms": {"BYOL": ["--config.method=byol"]}}
    table = arms.Table(tmp_path / "scores.json", about)
    table.add("BYOL", 0, {"probe": 0.5})
    more = {**about, "arms": {**about["arms"], "SimFLE": ("a",)}}
    assert arms.Table(tmp_path / "scores.json", more).has("BYOL", 0), "an arm more changes none that is there"
    for other in ({**about, "settings": ["--config.epochs=20"]}, {**about, "arms": {"BYOL": []}}):
        with pytest.raises(UserError, match=r"scores\.json holds scores of other (settings|arms): give another --out"):
            arms.Table(tmp_path / "scores.json", other)


@pytest.mark.parametrize("name", ["photographs", "ties", "align", "demo_seeds"])
def test_a_comparison_writes_into_its_own_folder(name, tmp_path, monkeypatch):
    """Not over, and not on from, the results of the repository."""
    module, written = importlib.import_module(f"benchmarks.{name}"), []
    monkeypatch.setattr(module, "run", lambda *args: written.extend(args))
    module.main(["--workdir", str(tmp_path), *(["--data", "DIR"] if name == "photographs" else [])])
    out = written[0].out if name == "demo_seeds" else written[-1]
    assert out == tmp_path / "scores.json"
