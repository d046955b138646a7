"""Whether this process is one of several, and how they find each other.

`decide` is a function of flags and environment alone. It does not trust a half-set environment: a shell inside a Slurm
job, a batch script, or a job of one task are lone hosts, and a count of processes without this one's number is refused.
"""

import dataclasses
import glob
import importlib.util
import os
import re
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from absl import flags

from simfle_jax import launchers
from simfle_jax.errors import UserError
from simfle_jax.launchers import Decision, number

GOOGLE = "0x1ae0"  # PCI vendor of TPUs, and of the disks and network cards of its virtual machines
DEVICES = "/sys/bus/pci/devices"
OTHER_CLASSES = ("0x01", "0x02")  # PCI classes of the latter


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says: mode is 'auto', 'on' or 'off'; the rest is None where it was not given."""

    mode: str = "auto"
    coordinator: str | None = None  # HOST:PORT of process 0
    processes: int | None = None
    process: int | None = None


def define_flags() -> None:
    """The flags of a run on several processes."""
    flags.DEFINE_enum(
        "distributed", "auto", ["auto", "on", "off"], "Run as one of several processes: see docs/scaling.md."
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where no cluster tells it.")
    flags.DEFINE_integer("processes", None, "Number of processes, where no cluster tells it.", lower_bound=1)
    flags.DEFINE_integer("process", None, "Number of this process, from 0, where no cluster tells it.", lower_bound=0)
    flags.DEFINE_integer("init_timeout", 300, "Seconds to wait for all processes at the start.", lower_bound=1)
    flags.DEFINE_integer("peer_timeout", 300, "Seconds without a sign of life after which a run ends.", lower_bound=5)


def decide(options: Options, environ: Mapping[str, str], tpu: bool = False) -> Decision:
    """Whether to join other processes.

    Args:
        options: of the command line; they win over the environment.
        environ: the environment variables.
        tpu: whether this is a host with Cloud TPUs, on which JAX asks the machine itself for its neighbours.

    Raises:
        UserError: something is given by half, process 0 cannot be found, or 'on' where no cluster is.
    """
    if options.mode == "off":
        return Decision(False, "--distributed=off")
    by_hand = _by_hand(options, environ)
    found = launchers.innermost(([by_hand] if by_hand else []) + launchers.found(environ))
    if found is None and tpu:
        found = _tpu(environ)
    if found is not None and options.coordinator:
        found = dataclasses.replace(found, coordinator=options.coordinator)
    if found is not None and found.processes != 1:
        if found.processes and not found.coordinator:
            raise UserError(f"this {found.why} does not say where process 0 is: give --coordinator=HOST:PORT")
        return found
    if not by_hand:
        launchers.refuse_half(environ)
    if found is None and options.coordinator is not None:
        raise UserError(
            "--coordinator is given, and nothing says how many processes there are: --processes=N and --process=I must be "
            "given too, to join them by hand"
        )
    if found is not None and options.mode == "on":
        return found
    if options.mode == "on":
        raise UserError(
            "--distributed=on, but no Slurm step, mpirun or TPU pod is found: give --coordinator=HOST:PORT, "
            "--processes=N and --process=I"
        )
    if found is None:
        return Decision(False, "no cluster found")
    return Decision(False, "one process" + (f": {found.why}" if "inside" in found.why else ""))


def _tpu(environ: Mapping[str, str]) -> Decision | None:
    """A Cloud TPU host: in Kubernetes variables name the others, elsewhere JAX asks the machine."""
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in hosts or (number(environ, "MEGASCALE_NUM_SLICES") or 1) > 1:
        return Decision(True, "Cloud TPU hosts of a pod")
    return None if "TPU_SKIP_MDS_QUERY" in environ else Decision(True, "Cloud TPU host")


def _by_hand(options: Options, environ: Mapping[str, str]) -> Decision | None:
    """Flags, or the variables that a pod's description sets."""
    coordinator = options.coordinator or environ.get("JAX_COORDINATOR_ADDRESS")
    count = options.processes if options.processes is not None else number(environ, "JAX_NUM_PROCESSES")
    index = options.process
    for name in ("JAX_PROCESS_ID", "JOB_COMPLETION_INDEX"):
        index = number(environ, name) if index is None else index
    given = {"--coordinator": options.coordinator, "--processes": options.processes, "--process": options.process}
    if coordinator is None or count is None or index is None:
        if options.processes is not None or options.process is not None:
            missing = [n for n, v in zip(given, (coordinator, count, index), strict=True) if v is None]
            raise UserError(f"{' and '.join(missing)} must be given too, to join the processes by hand")
        return None
    if not re.fullmatch(r".+:\d{1,5}", coordinator) or not 0 < int(coordinator.rpartition(":")[2]) < 65536:
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT, with a port from 1 to 65535")
    if not index < count:
        raise UserError(f"--process={index} does not exist among --processes={count}: they count from 0")
    return Decision(True, "given by hand", coordinator, count, index)


def on_tpu_host() -> bool:
    """Whether TPUs are plugged in and their library is installed."""
    if importlib.util.find_spec("libtpu") is None:
        return False
    made = (Path(path).parent for path in glob.glob(f"{DEVICES}/*/vendor") if Path(path).read_text().strip() == GOOGLE)
    return any(not (device / "class").read_text().startswith(OTHER_CLASSES) for device in made)


def join_by_flags() -> bool:
    """Decides by the command line and the environment, and joins; JAX must not have been used yet. False: alone."""
    f = flags.FLAGS
    options = Options(f.distributed, f.coordinator, f.processes, f.process)
    decision = decide(options, os.environ, on_tpu_host())
    join(decision, f.init_timeout, f.peer_timeout)
    return decision.on


def peer_timeout() -> float:
    """Seconds of --peer_timeout; 300 where the program was called without a command line."""
    f = flags.FLAGS
    return f.peer_timeout if f.is_parsed() and "peer_timeout" in f else 300.0


def refuse_several(what: str, options: Options | None = None) -> None:
    """Raises UserError where several processes were started for a command that runs in one.

    options: those of a command without the flags of `define_flags`.
    """
    f, remedy = flags.FLAGS, "start it once"
    if options is None:
        options, remedy = (
            Options(f.distributed, f.coordinator, f.processes, f.process),
            f"{remedy}, or with --distributed=off",
        )
    decision = decide(options, os.environ)
    if decision.on and decision.processes != 1:
        raise UserError(
            f"{what} runs in one process and uses all devices of its host, but this is one of several "
            f"({decision.why}): {remedy}"
        )


def join(decision: Decision, init_timeout: int, peer_timeout: int) -> None:
    """Connects the processes, before JAX looks at its devices; says in one line what was decided.

    Raises:
        UserError: the port is taken, or the others were refused.
    """
    if not decision.on:
        print(f"distributed: off ({decision.why})", file=sys.stderr)
        return
    import jax

    place = f"process {decision.process} of {decision.processes}, coordinator {decision.coordinator}"
    place = place if decision.processes else "found by JAX"
    print(f"distributed: on ({decision.why}): {place}", file=sys.stderr, flush=True)
    if decision.coordinator and decision.process == 0:
        _require_free_port(decision.coordinator)
    # JAX ends the whole process with a stack trace when its own time is up: be faster, and say it in a line.
    hurry = threading.Timer(init_timeout, _give_up, [place, init_timeout])
    hurry.daemon = True
    hurry.start()
    try:
        jax.distributed.initialize(
            decision.coordinator, decision.processes, decision.process, decision.devices,
            cluster_detection_method="deactivate" if decision.processes else None,
            initialization_timeout=init_timeout + 60, heartbeat_timeout_seconds=peer_timeout + 30,
            shutdown_timeout_seconds=peer_timeout,
        )  # fmt: skip
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(_join_problem(" ".join(str(error).split()), decision)) from None
    finally:
        hurry.cancel()


def _require_free_port(coordinator: str) -> None:
    """Raises UserError where the coordinator's port is taken: JAX's own service would crash the process (0.10.2)."""
    port = int(coordinator.rpartition(":")[2])
    family, host = (socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else (socket.AF_INET, "0.0.0.0")
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that is only cooling down is free
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            trial.bind((host, port))
        except OSError:
            raise UserError(
                f"the port of {coordinator} is in use on this host: give another --coordinator=HOST:PORT"
            ) from None


def _join_problem(text: str, decision: Decision) -> str:
    return (
        f"the processes could not be joined ({decision.why}): {text[:300]}; where this process runs alone, "
        "--distributed=off says so"
    )


def _give_up(place: str, seconds: int) -> None:
    print(
        f"error: not all processes were there within {seconds} s ({place}): is every one started with the same "
        "count, and can process 0 be reached at that address? --init_timeout=SECONDS waits longer",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    os._exit(2)


def leave(status: int, alone: bool = False) -> None:
    """Ends a process of several after an error: the others get a moment to say the same, then it goes without them.

    alone: there is nobody left to wait for. Where there is only one process nothing happens.
    """
    if not joined():
        return
    import jax

    sys.stderr.flush()
    if alone:
        os._exit(status)
    late = threading.Timer(10, os._exit, [status])
    late.daemon = True
    late.start()
    jax.distributed.shutdown()
    os._exit(status)


def joined() -> bool:
    """Whether this process is one of several that have found each other."""
    if "jax" not in sys.modules:
        return False
    import jax

    try:
        return jax.distributed.is_initialized() and jax.process_count() > 1
    except (RuntimeError, AssertionError):  # this process has no devices, and the others wait for them
        return True
