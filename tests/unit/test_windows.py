"""What Windows lacks is nowhere taken for granted: checked here without those names, on whatever system this is."""

import os
import subprocess
import sys
from pathlib import Path

from simfle_jax.data import files

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import os, pkgutil, signal, sys
import jax, flax.nnx, grain, optax, orbax.checkpoint, PIL.Image, matplotlib.figure, ml_collections.config_flags, scipy
import simfle_jax

for module, names in (
    (signal, "SIGUSR1 SIGUSR2 SIGKILL SIGSTOP SIGCONT SIGHUP SIGALRM SIGPIPE SIGQUIT pthread_sigmask"),
    (os, "pread pwrite posix_fallocate posix_fadvise sched_getaffinity getuid geteuid getgid fork mkfifo chown uname "
         "getpgid killpg O_NOFOLLOW O_NONBLOCK O_DIRECTORY O_CLOEXEC statvfs getloadavg sysconf"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # importing it is an ImportError now

for module in pkgutil.walk_packages(simfle_jax.__path__, "simfle_jax."):
    try:
        __import__(module.name)
    except ModuleNotFoundError as error:  # PyTorch need not be there
        assert error.name == "torch", module.name
from simfle_jax.training.stop import Stop
with Stop() as stop:
    assert {s.name for s in stop._before} == {"SIGINT", "SIGTERM"}
"""


def test_every_module_imports_and_signals_are_caught_without_what_windows_lacks():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_images_are_read_as_bytes_where_text_is_the_default(tmp_path, monkeypatch):
    binary, seen, real = 0o100000, [], os.open
    monkeypatch.setattr(os, "O_BINARY", binary, raising=False)
    monkeypatch.setattr(os, "open", lambda path, flags, *more: seen.append(flags) or real(path, flags & ~binary, *more))
    (tmp_path / "image").write_bytes(b"\r\n\x1a\n")
    assert files.read_file(str(tmp_path / "image")) == b"\r\n\x1a\n"
    assert seen and all(flags & binary for flags in seen)
