"""A program is traced once for an identity, and anew for another or where its file is of no use."""

import contextlib
import logging

import jax
import jax.numpy as jnp
import pytest
from absl import logging as absl_logging
from jax import export

from simfle_jax import traced

X = jax.ShapeDtypeStruct((3,), jnp.float32)


class Doubling:
    """Traces x -> 2 x, and counts how often."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return export.export(jax.jit(lambda x: 2 * x))(X)


@pytest.fixture
def trace():
    return Doubling()


@contextlib.contextmanager
def cache_in(folder):
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", folder)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def cache(tmp_path):
    with cache_in(str(tmp_path)):
        yield tmp_path / "traced"


@pytest.fixture
def warnings(caplog):
    absl_logging.use_python_logging(quiet=True)
    with caplog.at_level(logging.WARNING, logger="absl"):
        yield caplog


def doubles(program) -> bool:
    return program.call(jnp.arange(3.0)).tolist() == [0, 2, 4]


def test_it_is_traced_once(trace, cache):
    programs = [traced.kept(trace, "doubling") for _ in range(3)]
    assert all(map(doubles, programs)) and trace.count == 1
    assert len(list(cache.iterdir())) == 1


def test_another_identity_is_another_program(trace, cache):
    for identity in ("doubling", ("doubling", 1), ("doubling", 2)):
        traced.kept(trace, identity)
    assert trace.count == 3


@pytest.mark.parametrize("what", ["sources", "a setting", "a version", "devices"])
def test_other_surroundings_are_another_program(trace, cache, what, monkeypatch):
    traced.kept(trace, "doubling")
    if what == "sources":
        monkeypatch.setattr(traced, "_sources", lambda: "other")
        monkeypatch.setattr(traced, "SOURCES", "other")
    elif what == "a version":
        monkeypatch.setattr(traced.importlib.metadata, "version", lambda name: "0.0")
    elif what == "devices":
        monkeypatch.setattr(jax, "devices", lambda: [])
    if what == "a setting":
        with jax.default_matmul_precision("float32"):
            traced.kept(trace, "doubling")
    else:
        traced.kept(trace, "doubling")
    assert trace.count == 2


def test_the_digest_of_sources_is_that_of_their_text(tmp_path, monkeypatch):
    monkeypatch.setattr(traced, "__file__", str(tmp_path / "traced.py"))
    (tmp_path / "traced.py").write_text("one")
    (tmp_path / "inner").mkdir()
    first = traced._sources()
    (tmp_path / "inner/more.py").write_text("two")
    second = traced._sources()
    (tmp_path / "inner/more.py").write_text("three")
    assert len({first, second, traced._sources()}) == 3


@pytest.mark.parametrize("damage", [lambda b: b[:-7], lambda b: b"", lambda b: b[:40] + b"!" + b[41:]])
def test_a_damaged_file_is_replaced(trace, cache, damage, warnings):
    traced.kept(trace, "doubling")
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert doubles(traced.kept(trace, "doubling")) and trace.count == 2
    assert "damaged" in warnings.text and str(path) in warnings.text
    assert doubles(traced.kept(trace, "doubling")) and trace.count == 2


def test_a_folder_that_cannot_be_written_costs_only_time(trace, cache, warnings):
    cache.write_text("a file where the folder should be")
    assert doubles(traced.kept(trace, "doubling")) and doubles(traced.kept(trace, "doubling"))
    assert trace.count == 2 and "could not be kept" in warnings.text


@pytest.mark.parametrize("folder", [None, "gs://bucket/cache"])
def test_without_a_local_cache_nothing_is_kept(trace, folder):
    with cache_in(folder):
        programs = [traced.kept(trace, "doubling") for _ in range(2)]
    assert all(map(doubles, programs)) and trace.count == 2


def test_a_program_of_sources_that_were_edited_since_is_not_kept(trace, cache, monkeypatch):
    """It is of the code that this process imported, and would pass for that of the code as it is now."""
    with monkeypatch.context() as edited:
        edited.setattr(traced, "_sources", lambda: "new")
        assert doubles(traced.kept(trace, "doubling")) and not cache.exists()
    traced.kept(trace, "doubling")
    assert trace.count == 2 and len(list(cache.iterdir())) == 1
