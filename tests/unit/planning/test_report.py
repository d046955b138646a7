"""The table and the JSON of a plan, and the compiler's messages and estimates."""

import json

import pytest
import small

from simfle_jax.commands import plan as command
from simfle_jax.planning import targets
from simfle_jax.planning.collectives import Collective
from simfle_jax.planning.report import Memory, Plan

GIB = 2**30


def plan(name="tpu-v5e-256", workspace=3 * GIB, seconds=0.05) -> Plan:
    return Plan(
        target=targets.find(name),
        batch_size=4096,
        dtype="bfloat16",
        memory=Memory(GIB, 0, GIB, 0, 0, workspace, 0),
        collectives=[Collective("all-reduce", (("f32", 10**8),), 1), Collective("all-reduce", (("f32", 250),), 2)],
        expected={"gradients": 4 * 10**8, "statistics": 1000},
        flops=1.97e12,
        compiler_flops=None,
        compiler_bytes=None,
        compiler_seconds=seconds,
    )


def test_the_estimate_is_computation_and_exchange_one_after_the_other():
    found = plan().as_dict()
    exchange = 2 * (4e8 + 2 * 1000) * 255 / 256 / 180e9 + 3 * 32e-6  # three messages around a torus of 16 x 16
    assert found["exchange_seconds"] == pytest.approx(exchange)
    assert found["images_per_second"] == pytest.approx(4096 / (0.05 + exchange))
    assert found["share_of_peak"] == pytest.approx(0.01 / (0.05 + exchange))
    assert found["collectives"] == {"all-reduce": {"count": 3, "bytes": 400_002_000, "largest": 400_000_000}}


def test_without_the_compilers_estimate_products_take_the_peak():
    assert plan("h200-8", seconds=None).compute_seconds == pytest.approx(1.97e12 / 989e12)


def test_the_table_says_whether_the_step_fits():
    assert "5.00 GiB of 15.75 GiB: fits" in plan().table()
    assert "22.00 GiB of 15.75 GiB: DOES NOT FIT" in plan(workspace=20 * GIB).table()


def test_a_gpu_of_which_jax_takes_three_quarters():
    """151.4e9 bytes are 141 GiB, three quarters of them 105.75."""
    assert "XLA_CLIENT" not in plan("h200-8", workspace=103 * GIB).table()
    assert "fits with XLA_CLIENT_MEM_FRACTION=.95 in the environment" in plan("h200-8", workspace=105 * GIB).table()
    assert "DOES NOT FIT\n" in plan("h200-8", workspace=140 * GIB).table()


def test_what_a_cpu_does_not_know_is_left_out_and_null_in_json():
    unknown = plan("cpu-8", seconds=None)
    assert "images/s" not in unknown.table()
    assert json.loads(json.dumps(unknown.as_dict(), allow_nan=False))["share_of_peak"] is None


def test_too_little_memory_names_sizes_and_settings():
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (161.02G) exceeds "
        "available HBM (15.75G)."
    )
    config = small.config(batch_size=64, remat=True)
    told = command.too_large(message, config, 8)
    assert told.startswith("the step needs 161.02 GiB of 15.75 GiB on each device; try --config.dtype=bfloat16")
    assert "remat" not in told and "--config.batch_size=32" in told
    assert "more memory than what there is" in command.too_large("RESOURCE_EXHAUSTED: another wording", config, 8)


def test_calls_that_the_compiler_cannot_judge_leave_its_estimate():
    text = '%a = f32[] custom-call(), custom_call_target="ConcatBitcast"\n' * 3
    assert command.estimated_seconds({"optimal_seconds": -2.75}, text) == pytest.approx(0.25)
    assert command.estimated_seconds({"optimal_seconds": 0.25}, text) == 0.25
    assert command.estimated_seconds({}, text) is None
