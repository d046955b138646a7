"""Hardware that a step can be compiled for without having it: names, figures from data sheets, and the devices."""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from simfle_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device: memory in bytes; FLOP/s in bfloat16; bytes/s of its memory and of an all-reduce among neighbours.

    link: a GPU's in one direction, a TPU's in both, summed over its axes. hop: seconds that the smallest message needs per
    step of a ring. axes, generation: of a TPU's torus, and its name among topologies. largest: most devices of a target.
    """

    title: str
    platform: str
    memory: float
    peak: float
    bandwidth: float
    link: float
    hop: float
    axes: int = 1
    generation: str = ""
    largest: int = 8


# TPU: cloud.google.com/tpu/docs and the 'How to Scale Your Model' book (links: both directions, summed over the axes);
# memory is what the compiler leaves to a program.
# GPU: NVIDIA's data sheets (dense bfloat16; NVLink in one direction).
CHIPS = {
    "tpu-v4": Chip("TPU v4", "tpu", 30.75 * GIB, 275e12, 1.2e12, 270e9, 1e-6, 3, "v4", 4096),
    "tpu-v5e": Chip("TPU v5e", "tpu", 15.75 * GIB, 197e12, 0.82e12, 180e9, 1e-6, 2, "v5e", 256),
    "tpu-v5p": Chip("TPU v5p", "tpu", 95.74 * GIB, 459e12, 2.77e12, 540e9, 1e-6, 3, "v5p", 4096),
    "tpu-v6e": Chip("TPU v6e", "tpu", 31.25 * GIB, 918e12, 1.64e12, 360e9, 1e-6, 2, "v6e", 256),
    "h100": Chip("H100 SXM", "cuda", 84942979072, 989e12, 3.35e12, 450e9, 2e-6),
    "h200": Chip("H200", "cuda", 151397597184, 989e12, 4.8e12, 450e9, 2e-6),
    "cpu": Chip("CPU", "cpu", math.inf, math.nan, math.nan, math.nan, math.nan, largest=64),
}

# libtpu looks for the TPU host that it runs on; there is none to ask, nor to keep other processes from.
ABSENT_HOST = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

# What XLA wants to know of a Hopper card in order to compile without one.
HOPPER = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f}
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: {memory:.0f}
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "NVIDIA {title}"
"""


@dataclasses.dataclass(frozen=True)
class Target:
    """So many devices of one kind, e.g. tpu-v5e-256."""

    name: str
    chip: Chip
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Chips along each axis of a TPU's torus, as square as can be, the last axis the longest; else (count,)."""
        if self.chip.platform != "tpu":
            return (self.count,)
        power, axes = self.count.bit_length() - 1, self.chip.axes
        if axes == 3 and power == 2:
            return 2, 2, 1
        return tuple(2 ** ((power + i) // axes) for i in range(axes))

    def announce(self) -> None:
        """Tells JAX how many devices a CPU is to be; only before it has any."""
        if self.chip.platform == "cpu":
            jax.config.update("jax_num_cpu_devices", self.count)

    def devices(self) -> Sequence[Any]:
        """The devices, which can be compiled for but not used (those of `cpu-N` can).

        Raises:
            UserError: the package that knows this hardware is not installed.
        """
        if self.chip.platform == "cpu":
            return jax.devices("cpu")[: self.count]
        try:
            return self._topology().devices
        except (RuntimeError, ValueError, ImportError) as error:
            packages = "libtpu (pip install 'simfle-jax[tpu]')"
            if self.chip.platform == "cuda":
                packages = "jax-cuda13-plugin and jax-cuda13-pjrt of jax's version (pip install --no-deps)"
            reason = str(error).split("\n")[0][:200]
            raise UserError(f"--target={self.name} needs {packages}: {reason}") from None

    def _topology(self) -> Any:
        if self.chip.platform == "tpu":
            for key, value in ABSENT_HOST.items():
                os.environ.setdefault(key, value)
            # Two cores of a v4 act as one device, as they do when a program runs there.
            options = {"chip_config_name": "megacore"} if self.chip.generation == "v4" else {}
            name = f"{self.chip.generation}:{'x'.join(map(str, self.shape))}"
            return topologies.get_topology_desc(name, platform="tpu", **options)
        card = HOPPER.format(**dataclasses.asdict(self.chip))
        return topologies.get_topology_desc("", platform="cuda", topology=f"1x1x{self.count}", target_config=card)

    def compiler_options(self) -> dict[str, Any] | None:
        """What compiling without the device needs: XLA:GPU chooses Triton's tiles by running them, so cuBLAS it is."""
        if self.chip.platform == "cuda":
            return {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}
        if self.chip.platform == "cpu":  # never run, so the machine code need not be fast
            return {"xla_backend_optimization_level": 0}
        return None


def find(name: str) -> Target:
    """The target of a name such as tpu-v5e-256 or h200-8; raises UserError that names those there are."""
    match = re.fullmatch(r"(.+)-(\d+)", name)
    chip = CHIPS.get(match[1]) if match else None
    if match is None or chip is None:
        known = ", ".join(f"{kind}-N" for kind in CHIPS)
        raise UserError(f"--target={name} is not known; known are {known}, N chips, e.g. tpu-v5e-256 or h200-8")
    count = int(match[2])
    tpu = chip.platform == "tpu"
    if not (4 if tpu else 1) <= count <= chip.largest or (tpu and count & (count - 1)):
        allowed = f"a power of two from 4 to {chip.largest}" if tpu else f"1 to {chip.largest}"
        raise UserError(f"--target={name}: {chip.title} come in numbers of {allowed}")
    return Target(name, chip, count)
