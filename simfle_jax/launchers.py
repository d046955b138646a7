"""What the programs that start several processes tell each of them in its environment.

A launcher's variables are inherited by all that its processes start, so that those of several may stand side by side:
`mpirun` in a shell of `srun`, `torchrun` in a step of Slurm. The innermost launcher started this very process.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping

from simfle_jax.errors import UserError

FIRST_PORT, PORTS = 61440, 4096  # a job takes the port of its number, so that two jobs on a host do not meet
# The number of processes, this one's, this one's on its host, and how many are on its host.
OPEN_MPI = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
HYDRA = ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")  # of MPICH and Intel MPI
TORCHRUN = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was decided and why; without a coordinator JAX's own detection fills in the rest (TPU)."""

    on: bool
    why: str
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    devices: tuple[int, ...] | None = None  # local ones of this process; None: all


def found(environ: Mapping[str, str]) -> list[Decision]:
    """What each launcher says whose variables are whole, the innermost first; a coordinator is None where none is told.

    MPI and torchrun come before Slurm: they are started in its steps, and Open MPI starts its own daemons by `srun`.
    """
    started = [one for one in (_open_mpi(environ), _hydra(environ), _slurm(environ)) if one]
    torch = _torchrun(environ)
    if torch is None:
        return started
    # torchrun leaves the number of its run. Without it a script set the rest, perhaps once for all tasks of a step.
    if "TORCHELASTIC_RUN_ID" in environ or all(one.processes == 1 for one in started):
        return [torch, *started]
    return [*started, torch]


def innermost(decisions: list[Decision]) -> Decision | None:
    """The first of them. It says which others disagree; one that agrees may tell where process 0 is."""
    if not decisions:
        return None
    place = decisions[0].processes, decisions[0].process
    agreeing = [one for one in decisions if (one.processes, one.process) == place]
    chosen = next((one for one in agreeing if one.coordinator), agreeing[0])
    around = "".join(f", inside a {one.why}" for one in decisions if one not in agreeing)
    return dataclasses.replace(chosen, why=chosen.why + around)


def refuse_half(environ: Mapping[str, str]) -> None:
    """Raises UserError where a launcher says that there are more processes than one, but not which this one is.

    This process would train alone, and so would each of the others, in the same folder.
    """
    for name in ("JAX_NUM_PROCESSES", OPEN_MPI[0], HYDRA[0], TORCHRUN[0]):
        count = number(environ, name)
        if count is not None and count > 1 and not any(one.processes == count for one in found(environ)):
            raise UserError(f"{name} is {count}, but which of them this process is {_REMEDY}")
    # PMIx has no variable for the number. Slurm starts processes by it, and says the number in its own way.
    of_slurm = environ.get("PMIX_NAMESPACE", "").startswith("slurm") and _slurm(environ)
    if "PMIX_RANK" in environ and not (of_slurm or _open_mpi(environ)):
        raise UserError(f"PMIX_RANK is {environ['PMIX_RANK']}, but of how many processes {_REMEDY}")


_REMEDY = (
    "is not said: unset it where this runs alone (train and probe: or give --distributed=off), else give them "
    "--coordinator=HOST:PORT, --processes=N and --process=I"
)


def number(environ: Mapping[str, str], name: str) -> int | None:
    """The number in a variable, or None."""
    text = environ.get(name, "")
    return int(text) if text.isdigit() else None


def _slurm(environ: Mapping[str, str]) -> Decision | None:
    """A task that srun started; SLURM_NTASKS alone also stands in shells and batch scripts."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID")
    if any(name not in environ for name in names):
        return None
    job, count, index, local = (number(environ, name) for name in names if name != "SLURM_STEP_NODELIST")
    if job is None or count is None or index is None or local is None or index >= count:
        return None
    host = re.sub(r"\[(\w+).*", r"\1", re.split(r",(?![^\[]*\])", environ["SLURM_STEP_NODELIST"])[0])
    devices = _devices(environ, local, _tasks_here(environ, count))
    return Decision(
        True, f"Slurm step of {_counted(count, 'task')}", f"{host}:{_port(str(job))}", count, index, devices
    )


def _tasks_here(environ: Mapping[str, str], count: int) -> int:
    """Tasks of this step on this node, from e.g. '2(x3),1'."""
    tasks = list[int]()
    for tasks_each, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "")):
        tasks += [int(tasks_each)] * int(times or 1)
    node = number(environ, "SLURM_NODEID") or 0
    return tasks[node] if node < len(tasks) else count


def _open_mpi(environ: Mapping[str, str]) -> Decision | None:
    host = re.search(r"tcp6?://\[?([^,\]:]+)", environ.get("OMPI_MCA_orte_hnp_uri", ""))
    job = environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid") or ""
    return _rank(environ, "mpirun", OPEN_MPI, host and host[1], job)


def _hydra(environ: Mapping[str, str]) -> Decision | None:
    return _rank(environ, "mpiexec", HYDRA, None, environ.get("SLURM_JOB_ID", ""))


def _torchrun(environ: Mapping[str, str]) -> Decision | None:
    # torchrun itself holds MASTER_PORT.
    job = environ.get("TORCHELASTIC_RUN_ID", "") + environ.get("MASTER_PORT", "")
    return _rank(environ, "torchrun", TORCHRUN, environ.get("MASTER_ADDR"), job)


def _rank(
    environ: Mapping[str, str], launcher: str, names: tuple[str, ...], host: str | None, job: str
) -> Decision | None:
    """One of the processes that `launcher` counts in the variables of these names; process 0 is on `host`, if known."""
    count, index, local, here = (number(environ, name) for name in names)
    if count is None or index is None or index >= count:
        return None
    host = "127.0.0.1" if count == 1 or (here is not None and here >= count) else host
    devices = None if local is None or here is None else _devices(environ, local, here)
    why = f"{launcher} of {_counted(count, 'process', 'processes')}"
    return Decision(True, why, host and f"{host}:{_port(job)}", count, index, devices)


def _devices(environ: Mapping[str, str], local: int, here: int) -> tuple[int, ...] | None:
    """All devices for a lone process of a node, or where the launcher already hands each process its own; else one."""
    visible = len([name for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name])
    handed = 0 < visible < here or visible == 1 or (visible and visible == number(environ, "SLURM_GPUS_PER_TASK"))
    return None if here == 1 or handed else (local,)


def _port(job: str) -> int:
    return FIRST_PORT + (int(job) if job.isdigit() else zlib.crc32(job.encode())) % PORTS


def _counted(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"
