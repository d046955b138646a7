"""What convert makes is told by its two names, and an option that says nothing there is refused."""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pytest

from simfle_jax.commands import convert, embed, push
from simfle_jax.errors import UserError
from simfle_jax.weights.files import write_safetensors

NAMES = {"": "folder", ".pth": "x.pth.tar", ".safetensors": "x.safetensors", ".onnx": "x.onnx", ".md": "CARD.md"}


@pytest.fixture
def sources(tmp_path):
    """A probe's folder, a run's, and a file, as far as their kind can be seen."""
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "probe.safetensors").write_bytes(b"")
    (tmp_path / "run").mkdir()
    write_safetensors(tmp_path / "trunk.safetensors", {"conv1.weight": np.zeros(3, np.float32)}, {})
    return {
        kind: tmp_path / name for kind, name in {"probe": "probe", "run": "run", "file": "trunk.safetensors"}.items()
    }


@pytest.mark.parametrize(
    "kind, ending, what",
    [
        ("probe", "", "the hub's folder of a classifier"),
        ("probe", ".pth", "a classifier"),
        ("probe", ".onnx", "an ONNX classifier"),
        ("run", "", "the hub's folder of a trunk"),
        ("run", ".pth", "a published checkpoint"),
        ("run", ".safetensors", "a file with a trunk"),
        ("run", ".md", "a model card"),
        ("file", "", "a probe"),
        ("file", ".onnx", "an ONNX trunk"),
    ],
)
def test_two_names_tell_what_is_made(sources, kind, ending, what):
    assert convert.kind_of(sources[kind], Path(NAMES[ending])).what == what


@pytest.mark.parametrize(
    "kind, target", [("probe", "CARD.md"), ("run", "x.h5"), ("file", "x.h5"), ("file", "x.pth"), ("file", "CARD.md")]
)
def test_another_ending_is_refused(sources, kind, target):
    with pytest.raises(UserError, match=target):
        convert.kind_of(sources[kind], Path(target))


@pytest.mark.parametrize(
    "kind, target, flags, flag",
    [
        ("probe", "x.onnx", ["--branch", "target"], "--branch"),
        ("probe", "folder", ["--branch", "target"], "--branch"),
        ("run", "x.pth", ["--branch", "target"], "--branch"),
        ("run", "x.safetensors", ["--probe", "p"], "--probe"),
        ("run", "x.safetensors", ["--with-preprocessing"], "--with-preprocessing"),
        ("file", "folder", ["--set", "epochs=3"], "--set"),
        ("file", "x.safetensors", ["--classes", "a", "b"], "--classes"),
    ],
)
def test_an_option_that_says_nothing_is_refused(sources, tmp_path, kind, target, flags, flag):
    args = convert.make_parser().parse_args([str(sources[kind]), str(tmp_path / target), *flags])
    with pytest.raises(UserError, match=rf"^{flag} says nothing where .*{target} becomes .*: leave it out"):
        convert.convert(args)


def test_every_option_says_something_somewhere(sources):
    kinds = [
        convert.kind_of(source, Path(NAMES[ending]))
        for source, ending in itertools.product(sources.values(), ("", ".onnx"))
    ]
    kinds += [convert.kind_of(sources["run"], Path(NAMES[ending])) for ending in (".pth", ".md")]
    heard = {option for kind in kinds for option in kind.options} | {"config", "set"}  # these two of published files
    options = {action.dest for action in convert.make_parser()._actions} - {"help", "source", "target"}
    assert heard == options


def test_a_folder_of_convert_is_pushed_as_it_is(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    args = push.make_parser().parse_args([str(tmp_path), "owner/name", "--probe", str(tmp_path)])
    with pytest.raises(UserError, match="is uploaded as it is: leave --probe, --encoder and --branch out"):
        push.push(args)


def test_a_detector_without_align_is_refused(tmp_path):
    with pytest.raises(UserError, match="--detector says nothing without --align"):
        embed.asked_for(argparse.Namespace(), align=False, detector="yunet.onnx")


@pytest.mark.parametrize("kind, flags", [("probe", ["--branch", "target"]), ("run", ["--encoder", "elsewhere"])])
def test_what_push_would_not_listen_to_is_refused(sources, kind, flags):
    args = push.make_parser().parse_args([str(sources[kind]), "owner/name", *flags])
    with pytest.raises(UserError, match=rf"^{flags[0]} is of a .* is none"):
        push.push(args)
