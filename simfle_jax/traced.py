"""Traced and lowered programs, kept beside the compiled ones: a second start then skips the tracing too."""

import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax import export

from simfle_jax.writing import write_whole

DIGEST = 32  # bytes of SHA-256 in front of every file


def kept(trace: Callable[[], export.Exported], identity: Any) -> export.Exported:
    """`trace()`, or what it gave to an earlier process for this identity.

    identity: what the program depends on besides this package's sources, the versions of its libraries, JAX's settings
        and the devices; its `repr` has to name all of it.

    Programs lie in the folder `traced` of JAX's compilation cache; without that folder, or where it is not a local one,
    nothing is kept. A file that is damaged or cannot be written only costs the time to trace. JAX itself keeps compiled
    programs, but has to trace and lower a program before it can ask for it.
    """
    folder = jax.config.values.get("jax_compilation_cache_dir")
    if not folder or "://" in folder or _sources() != SOURCES:  # edited since: what this process runs is older
        return trace()
    path = Path(folder, "traced", hashlib.sha256(repr((identity, _surroundings())).encode()).hexdigest())
    program = _read(path)
    if program is None:
        # What was read back is what runs, in this process as in the next: JAX then finds the compiled program of it.
        serialised = trace().serialize()
        _write(path, serialised)
        program = export.deserialize(serialised)
    return program


def _surroundings() -> tuple[Any, ...]:
    """What decides how a function of this package is traced and lowered, besides the function."""
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")]
    # The attribute is what holds here and now: a context manager changes it and not the value.
    settings = sorted((name, str(getattr(jax.config, name, value))) for name, value in jax.config.values.items())
    devices = [(device.platform, device.device_kind) for device in jax.devices()]
    return SOURCES, versions, settings, devices, jax.process_count()


def _sources() -> str:
    """A digest of this package's sources."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


SOURCES = _sources()  # when this process imported them


def _read(path: Path) -> export.Exported | None:
    """The program in a file, or None."""
    try:
        content = path.read_bytes()
        digest, serialised = content[:DIGEST], content[DIGEST:]
        if hashlib.sha256(serialised).digest() == digest:
            return export.deserialize(bytearray(serialised))
        logging.warning("%s is damaged; the program is traced anew", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        logging.warning("%s cannot be read (%s); the program is traced anew", path, error)
    return None


def _write(path: Path, serialised: bytearray) -> None:
    """Writes a program whole or not at all, whoever else writes the same."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, hashlib.sha256(serialised).digest() + serialised)
    except OSError as error:
        logging.warning("the traced program could not be kept: %s", error)
