"""The decision to join other processes: a function of flags and environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simfle_jax import distributed
from simfle_jax.distributed import Options, decide
from simfle_jax.errors import UserError

STEP = {
    "SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "gpu[07-09],login1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_NTASKS": "4",
}  # fmt: skip
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "12345",
}  # fmt: skip
POD = {"JAX_COORDINATOR_ADDRESS": "run-workers-0-0.run:1234", "JAX_NUM_PROCESSES": "8", "JOB_COMPLETION_INDEX": "3"}
LONE = [
    {},
    {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a batch script, a shell
    STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun --pty bash in a job of four
    STEP | {"SLURM_STEP_NUM_TASKS": ""},
    STEP | {"SLURM_PROCID": "9"},  # left over from another job
    {"OMPI_COMM_WORLD_SIZE": "1"},
    MPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"},  # one of many runs, not a part of one
    {"JAX_COORDINATOR_ADDRESS": "host:1"},
]


@pytest.mark.parametrize("environ", LONE, ids=str)
def test_a_lone_host_stays_alone(environ):
    decision = decide(Options(), environ)
    assert not decision.on and decision.why in ("no cluster found", "one process")


def test_a_slurm_step():
    decision = decide(Options(), STEP)
    assert (decision.on, decision.processes, decision.process) == (True, 4, 2)
    assert decision.coordinator == f"gpu07:{61440 + 77}"
    assert decision.devices is None, "a lone process of a node drives all its devices"


@pytest.mark.parametrize("nodes, first", [("a1", "a1"), ("a1,b2", "a1"), ("a[3,5-7],b", "a3"), ("n-[01-02]", "n-01")])
def test_the_coordinator_is_on_the_first_node(nodes, first):
    decision = decide(Options(), STEP | {"SLURM_STEP_NODELIST": nodes})
    assert decision.coordinator is not None and decision.coordinator.split(":")[0] == first


@pytest.mark.parametrize(
    "tasks, visible, devices", [("2(x2)", "", (1,)), ("2(x2)", "0,1", (1,)), ("2(x2)", "1", None), ("3,1", "", None)]
)
def test_a_process_per_device(tasks, visible, devices):
    environ = STEP | {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": visible}
    assert decide(Options(), environ).devices == devices


def test_several_devices_that_slurm_hands_to_each_task_are_all_its_own():
    four = STEP | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_LOCALID": "3"}
    assert decide(Options(), four | {"CUDA_VISIBLE_DEVICES": "0,1"}).devices is None
    two = STEP | {"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1", "SLURM_GPUS_PER_TASK": "2"}
    assert decide(Options(), two | {"CUDA_VISIBLE_DEVICES": "0,1"}).devices is None
    assert decide(Options(), two | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}).devices == (1,)


def test_mpirun_on_one_host_and_on_several():
    here = decide(Options(), MPI)
    assert here.on and here.process == 1 and here.coordinator == f"127.0.0.1:{61440 + 12345 % 4096}"
    several = MPI | {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.9,10.1.0.9:34911"}
    assert (decide(Options(), several).coordinator or "").startswith("10.0.0.9:")
    with pytest.raises(UserError, match="give --coordinator=HOST:PORT"):
        decide(Options(), MPI | {"OMPI_COMM_WORLD_SIZE": "4"})
    assert decide(Options(coordinator="h:1"), MPI | {"OMPI_COMM_WORLD_SIZE": "4"}).coordinator == "h:1"


TORCHRUN = {
    "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "n1",
    "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
HYDRA = {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
SHELL = STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_TASKS_PER_NODE": "1"}  # srun --pty bash


@pytest.mark.parametrize(
    "environ, processes, process, said",
    [
        (SHELL | MPI, 2, 1, "mpirun of 2 processes, inside a Slurm step of 1 task"),
        (STEP | MPI, 2, 1, "mpirun of 2 processes, inside a Slurm step of 4 tasks"),  # Open MPI's daemons of 4 nodes
        (SHELL | HYDRA, 2, 1, "mpiexec of 2 processes, inside a Slurm step of 1 task"),
        (STEP | TORCHRUN, 4, 3, "torchrun of 4 processes, inside a Slurm step of 4 tasks"),
        (MPI | TORCHRUN, 4, 3, "torchrun of 4 processes, inside a mpirun of 2 processes"),
        (STEP | POD, 8, 3, "given by hand, inside a Slurm step of 4 tasks"),
    ],
)
def test_the_innermost_launcher_wins_and_the_others_are_named(environ, processes, process, said):
    for options in (Options(), Options("on")):
        decision = decide(options, environ)
        assert (decision.on, decision.processes, decision.process, decision.why) == (True, processes, process, said)


def test_a_lone_process_of_mpirun_in_a_larger_step_says_so():
    alone = decide(Options(), STEP | MPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"})
    assert not alone.on and alone.why == "one process: mpirun of 1 process, inside a Slurm step of 4 tasks"


def test_launchers_that_agree_are_one():
    # srun --mpi=pmi2 tells each task its number twice, and only Slurm where process 0 is.
    decision = decide(Options(), STEP | {"PMI_SIZE": "4", "PMI_RANK": "2"})
    assert (decision.why, decision.coordinator) == ("Slurm step of 4 tasks", f"gpu07:{61440 + 77}")
    assert decide(Options(), STEP | {"PMIX_RANK": "2", "PMIX_NAMESPACE": "slurm.pmix.77.0"}) == decide(Options(), STEP)


def test_mpich_and_intel_mpi():
    here = decide(Options(), HYDRA)
    assert (here.on, here.processes, here.process, here.devices) == (True, 2, 1, (1,))
    assert (here.coordinator or "").startswith("127.0.0.1:")
    with pytest.raises(UserError, match=r"this mpiexec of 4 processes does not say where process 0 is: give --coord"):
        decide(Options(), HYDRA | {"PMI_SIZE": "4"})
    assert decide(Options(coordinator="h:1"), HYDRA | {"PMI_SIZE": "4"}).coordinator == "h:1"


def test_torchrun_and_what_sets_its_variables():
    rank = decide(Options(), TORCHRUN)
    assert (rank.on, rank.processes, rank.process, rank.devices) == (True, 4, 3, (1,))
    assert rank.coordinator is not None and rank.coordinator.split(":")[0] == "n1"
    assert not rank.coordinator.endswith(":29500"), "torchrun itself holds that port"
    assert decide(Options(), TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0"}).coordinator == rank.coordinator
    by_script = {name: TORCHRUN[name] for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")}
    assert decide(Options(), by_script).process == 3
    assert decide(Options(), by_script | SHELL).process == 3, "a step of one task a node, started by hand on each"
    assert decide(Options(), by_script | STEP).process == 2, "set once in a batch script, for all tasks"
    assert decide(Options(), {"WORLD_SIZE": "4", "MASTER_ADDR": "n1"} | STEP).process == 2


HALF = [
    {"WORLD_SIZE": "2"}, {"PMI_SIZE": "2"}, {"OMPI_COMM_WORLD_SIZE": "2"}, {"JAX_NUM_PROCESSES": "2"},
    {"WORLD_SIZE": "2", "RANK": "2"}, {"PMIX_RANK": "0", "PMIX_NAMESPACE": "prterun-n1-7@1"},
    {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-n1-7@1"} | SHELL, {"PMI_SIZE": "2"} | SHELL,
]  # fmt: skip


@pytest.mark.parametrize("environ", HALF, ids=str)
@pytest.mark.parametrize("mode", ["auto", "on"])
def test_several_processes_of_which_the_number_is_missing_are_refused(environ, mode):
    with pytest.raises(
        UserError, match=r"process.* is not said: unset it .*--distributed=off.*--coordinator=HOST:PORT, --processes=N"
    ):
        decide(Options(mode), environ)
    assert not decide(Options("off"), environ).on
    assert decide(Options("auto", "host:99", 2, 0), environ).processes == 2


def test_a_pod_and_a_tpu_host():
    pod = decide(Options(), POD)
    assert (pod.on, pod.coordinator, pod.processes, pod.process) == (True, "run-workers-0-0.run:1234", 8, 3)
    assert decide(Options(), {}, tpu=True).on
    assert not decide(Options(), {"TPU_SKIP_MDS_QUERY": "1"}, tpu=True).on


@pytest.mark.parametrize(
    "more", [{"TPU_WORKER_HOSTNAMES": "a,b"}, {"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, {"MEGASCALE_NUM_SLICES": "2"}]
)
def test_kubernetes_names_the_other_tpu_hosts(more):
    alone = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    assert not decide(Options(), alone, tpu=True).on
    found = decide(Options(), alone | more, tpu=True)
    assert found.on and found.processes is None, "JAX counts them"
    assert decide(Options(coordinator="host:1"), alone | more, tpu=True).coordinator == "host:1"
    assert not decide(Options(), alone | more).on, "of another machine, and inherited"


@pytest.mark.parametrize("kind, tpu", [("0xff0000", True), ("0x020000", False), ("0x010802", False)])
def test_a_network_card_of_google_is_no_tpu(kind, tpu, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "DEVICES", str(tmp_path))
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: name == "libtpu")
    for number, (vendor, class_) in enumerate([("0x8086", "0xff0000"), ("0x1ae0", kind)]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(vendor + "\n")
        (tmp_path / str(number) / "class").write_text(class_ + "\n")
    assert distributed.on_tpu_host() == tpu


def test_the_command_line_wins():
    assert not decide(Options("off"), STEP).on
    by_hand = decide(Options("auto", "host:99", 2, 0), STEP)
    assert (by_hand.coordinator, by_hand.processes, by_hand.process) == ("host:99", 2, 0)
    assert decide(Options("on", "host:99", 1, 0), {}).on
    assert decide(Options("on"), {"WORLD_SIZE": "1", "RANK": "0"}).coordinator, "one process needs no address"


@pytest.mark.parametrize(
    "options, message",
    [
        (Options("on"), "no Slurm step, mpirun or TPU pod is found"),
        (Options(processes=2), "--coordinator and --process must be given"),
        (Options("auto", "host", 2, 0), "is not HOST:PORT"),
        (Options("auto", "host:99999", 2, 0), "is not HOST:PORT, with a port from 1 to 65535"),
        (
            Options(coordinator="host:1"),
            "--coordinator is given, .* --processes=N and --process=I must be given too",
        ),
        (Options("auto", "host:1", 2, 2), "--process=2 does not exist among --processes=2"),
    ],
)
def test_what_is_given_by_half_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        decide(options, {})


@pytest.mark.parametrize("environ, found", [(STEP, "Slurm step of 4 tasks"), (MPI, "mpirun of 2 processes")])
def test_a_probe_that_trains_no_trunk_refuses_to_run_in_several_processes(environ, found, tmp_path):
    (tmp_path / "encoder.safetensors").touch()

    def probe(*flags):
        given = (f"--config.encoder={tmp_path}/encoder.safetensors", f"--config.data.path={tmp_path}")
        command = [
            sys.executable,
            "probe.py",
            "--config=configs/probe.py",
            f"--workdir={tmp_path}/probe",
            *given,
            *flags,
        ]
        root = Path(__file__).parents[2]
        return subprocess.run(command, cwd=root, env=os.environ | environ, capture_output=True, text=True, check=False)

    refused = probe()
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    told = (
        "error: a probe that trains no trunk runs in one process and uses all devices of its host, but this is one of"
    )
    assert f"{told} several ({found}): start it once, or with --distributed=off" in refused.stderr
    assert "runs in one process" not in probe("--distributed=off").stderr
