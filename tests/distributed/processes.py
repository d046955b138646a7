"""Starts train.py or probe.py as several processes on this host, two fake devices each, joined by hand."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# A device that waits for another holds a thread of XLA's pool (as many as NPROC): with too few all may wait for ever. And
# it gives up after 40 s, which a busy machine may take.
PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=600 --xla_cpu_collective_timeout_seconds=600"


def environment(devices: int = 2) -> dict[str, str]:
    """Without anything of a cluster that these tests themselves may run in."""
    cluster = ("SLURM_", "OMPI_", "PMIX_", "PMI_", "WORLD_SIZE", "RANK", "TORCHELASTIC_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(cluster)}
    return kept | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "JAX_PLATFORMS": "cpu",
        "NPROC": "8",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {PATIENT}",
    }


def command(images: Path, workdir: Path, *flags: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "train.py"), f"--config={ROOT / 'tests/distributed/small_config.py'}",
        f"--config.data.path={images}", f"--workdir={workdir}", "--config.batch_size=8", "--config.data.canvas=0",
        "--config.model.facemae=False", *flags,  # BYOL alone compiles in a third of the time
    ]  # fmt: skip


def start(
    images: Path, workdir: Path, *flags: str, count: int = 2, devices: int = 2, own=None
) -> list[subprocess.Popen]:
    """`own` maps a process's number to further flags of it alone."""
    return launch(command(images, workdir, *flags), count, devices, own)


def launch(call: list[str], count: int = 2, devices: int = 2, own=None, stdout=None) -> list[subprocess.Popen]:
    """The same of any command."""
    port, made = free_port(), []
    for index in range(count):
        joined = (f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--process={index}") if count > 1 else ()
        here = [*call, *joined, *(own or {}).get(index, ())]
        made.append(
            subprocess.Popen(here, env=environment(devices), stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        )
    return made


def finish(processes: list[subprocess.Popen], timeout: float = 240) -> list[tuple[int, str]]:
    """Status and stderr of each; none is left behind."""
    try:
        return [(p.returncode, text) for p in processes for text in [p.communicate(timeout=timeout)[1]]]
    finally:
        for process in processes:
            process.kill()
