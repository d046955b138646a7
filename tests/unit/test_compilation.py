"""The cache keeps programs for other numbers of cores apart; a weight gradient is not YNNPACK's."""

import os

import jax
import jax.numpy as jnp
import pytest

from simfle_jax import compilation
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
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.use_cache()
        folders.append(jax.config.values["jax_compilation_cache_dir"])
    assert folders == [str(no_folder / "simfle_jax/1-cores"), str(no_folder / "simfle_jax/2-cores")]


def test_a_folder_that_jax_was_told_of_is_kept(no_folder):
    jax.config.update("jax_compilation_cache_dir", str(no_folder / "own"))
    compilation.use_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == str(no_folder / "own")


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
