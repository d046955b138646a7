"""The cache keeps programs for other numbers of cores apart; a weight gradient is not YNNPACK's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from simfle_jax import compilation
from simfle_jax.errors import UserError
from simfle_jax.kernels.convolution import by_lax


@pytest.fixture
def no_folder(tmp_path, monkeypatch):
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this operating system")
def test_programs_for_other_numbers_of_cores_are_kept_apart(no_folder, monkeypatch):
    folders = []
    for cores, threads in ({0}, ""), ({0, 1}, ""), ({0, 1}, "8"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        monkeypatch.setenv("NPROC", threads)
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.use_cache()
        folders.append(jax.config.values["jax_compilation_cache_dir"])
    assert folders == [str(no_folder / f"simfle_jax/{count}-cores") for count in (1, 2, 8)]


def test_only_programs_that_nobody_uses_any_more_are_forgotten(no_folder, monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    folder = no_folder / "simfle_jax" / "3-cores"
    ages = {"used": (1, 400), "written": (400, 1), "old": (90, 90), "traced/old": (61, 90), "traced/new": (59, 90)}
    now = time.time()
    for name, (read, written) in ages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"a program")
        os.utime(folder / name, (now - read * 86400, now - written * 86400))
    compilation.use_cache()
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "used", "written", "traced/new"
    }  # fmt: skip


def test_copies_of_what_is_in_buckets_are_not_forgotten(no_folder, monkeypatch):
    """They lie in the same folder of the user's, and have their own rules."""
    monkeypatch.setattr(compilation, "require_device", lambda: "gpu")
    shard = no_folder / "simfle_jax" / "buckets" / "packs" / "abc" / "00000-of-00001.array_record"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"a shard")
    os.utime(shard, (0, 0))
    compilation.use_cache()
    assert shard.exists()
    assert jax.config.values["jax_compilation_cache_dir"] == str(no_folder / "simfle_jax" / "gpu-programs")


def test_a_folder_that_jax_was_told_of_is_kept(no_folder):
    jax.config.update("jax_compilation_cache_dir", str(no_folder / "own"))
    compilation.use_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == str(no_folder / "own")


@pytest.mark.parametrize("home", ["none", "not to be written"])
def test_a_user_without_a_home_has_no_cache_and_one_warning(home, no_folder, monkeypatch, capsys):
    monkeypatch.delenv("XDG_CACHE_HOME")
    if home == "none":  # as pathlib does without HOME and without an entry in passwd
        monkeypatch.setattr(Path, "home", lambda: Path("~nobody-here").expanduser())
    else:
        (no_folder / "file").touch()
        monkeypatch.setenv("HOME", str(no_folder / "file"))
    compilation.use_cache()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "warning: compiled programs are not kept" in told


COMMANDS = {
    "train": ["train.py", "--config=tests/small_config.py", "--config.data.path=.", "--workdir=no"],
    "train, monitored": [
        "train.py",
        "--config=tests/small_config.py",
        "--config.data.path=.",
        "--workdir=no",
        "--config.monitor.path=.",
    ],
    "embed": ["-m", "simfle_jax.embed", "README.md", "--encoder=no", "--out=no.npz"],
    "convert": ["-m", "simfle_jax.convert", "configs", "no.safetensors"],
    "plan": ["-m", "simfle_jax.plan", "--config=tests/small_config.py", "--target=cpu-8"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_platform_that_is_not_there_is_one_line_that_names_those_that_are(command):
    root = Path(__file__).parents[2]
    environment = os.environ | {"JAX_PLATFORMS": "rocm", "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    call = [sys.executable, *COMMANDS[command]]
    done = subprocess.run(call, cwd=root, env=environment, capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if not line.startswith("distributed: off")]
    assert done.returncode == 2 and len(told) == 1, done.stderr
    assert told[0].startswith("error: JAX_PLATFORMS=rocm, but the platforms here are ") and "cpu" in told[0]


def test_64_bits_are_refused():
    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(UserError, match=r"JAX_ENABLE_X64 is set.*unset it"):
            compilation.use_cache()
    finally:
        jax.config.update("jax_enable_x64", False)


def test_a_weight_gradient_is_left_to_eigen():
    x, kernel = jnp.ones((2, 16, 16, 8)), jnp.ones((3, 3, 8, 8))

    def gradient(x, kernel):
        return jax.grad(lambda kernel: by_lax(x, kernel, 1).sum())(kernel)

    options = compilation.training_options()
    program = jax.jit(gradient, compiler_options=options).lower(x, kernel).compile().as_text()
    assert options and "__ynn_fusion" not in program


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    compilation.training_options.cache_clear()
    jit = jax.jit
    monkeypatch.setattr(jax, "jit", lambda call, compiler_options: jit(call, compiler_options={"xla_cpu_unknown": "1"}))
    assert compilation.training_options() is None
    monkeypatch.undo()
    compilation.training_options.cache_clear()
    assert compilation.training_options()
