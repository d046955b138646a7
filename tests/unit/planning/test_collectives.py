"""Reading collectives out of a compiled program's text."""

from simfle_jax.planning.collectives import Collective, collectives, seconds

# Lines of programs for TPU, GPU and CPU, shortened.
TEXT = """HloModule jit_step, is_scheduled=true, num_partitions=4

%step_of_gather (p: bf16[16,256]) -> bf16[64,256] {
  %p = bf16[16,256]{1,0} parameter(0)
  ROOT %all-gather.7 = bf16[64,256]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=11, dimensions={0}
}

%step_of_gather.2 (p.2: bf16[16,256]) -> bf16[64,256] {
  %p.2 = bf16[16,256]{1,0} parameter(0)
  ROOT %all-gather.9 = bf16[64,256]{1,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=11, dimensions={0}
}

%inner (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %all-reduce.3 = f32[8]{0} all-reduce(%a), channel_id=3, to_apply=%sum
}

%body (carry: (s32[], f32[8])) -> (s32[], f32[8]) {
  %carry = (s32[], f32[8]{0}) parameter(0)
  %fused = f32[8]{0} fusion(%carry), kind=kLoop, calls=%inner
}

ENTRY %main.1_spmd (x: f32[64], y: f32[2,3]) -> f32[64] {
  %x = f32[64]{0} parameter(0)
  %all-reduce.1 = (f32[64]{0:T(128)S(1)}, bf16[2,3]{1,0}, /*index=2*/f32[]) all-reduce(%x, %y, %z), channel_id=1, to_apply=%sum
  %all-reduce-start.4 = bf16[100]{0} all-reduce-start(%x), channel_id=4, to_apply=%sum
  %all-reduce-done.4 = bf16[100]{0} all-reduce-done(%all-reduce-start.4)
  %all-gather-start = (f32[16]{0}, f32[64]{0}) all-gather-start(%x), channel_id=5, dimensions={0}
  %reduce-scatter.2 = f32[16]{0} reduce-scatter(%x), channel_id=6, dimensions={0}, to_apply=%sum
  %while.1 = (s32[], f32[8]{0}) while(%tuple), condition=%cond, body=%body
  ROOT %copy = f32[64]{0} copy(%x), metadata={op_name="all-reduce(x)"}
}
"""


def test_kinds_sizes_and_repetitions_are_read():
    assert sorted(collectives(TEXT, devices=4, loop_times=3)) == [
        Collective("all-gather", (("bf16", 64 * 256),), 1),  # one channel in two steps
        Collective("all-gather", (("f32", 64),), 1),  # the result of (operand, result)
        Collective("all-reduce", (("bf16", 100),), 1),
        Collective("all-reduce", (("f32", 8),), 3),  # in a fusion in a loop
        Collective("all-reduce", (("f32", 64), ("bf16", 6), ("f32", 1)), 1),
        Collective("reduce-scatter", (("f32", 64),), 1),  # the whole array, not the share
    ]


def test_bytes_sum_over_the_combined_arrays():
    assert Collective("all-reduce", (("f32", 64), ("bf16", 6), ("f32", 1)), 1).bytes == 64 * 4 + 6 * 2 + 4


def test_a_program_for_one_device_exchanges_nothing():
    assert collectives("ENTRY %main (x: f32[4]) -> f32[4] {\n  ROOT %x = f32[4]{0} parameter(0)\n}\n", devices=1) == []


def test_an_all_reduce_sends_everything_twice_but_the_own_share():
    assert seconds("all-reduce", 800, devices=4, link=100, latency=1) == 2 * 800 * 3 / 4 / 100 + 1
    assert seconds("all-gather", 800, devices=4, link=100, latency=1) == 800 * 3 / 4 / 100 + 1
