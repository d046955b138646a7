"""Damaged files end in one line, whatever their readers raise."""

import io
import zipfile

import numpy as np
import pytest

from simfle_jax.data.read_back import parse_json, read_npz
from simfle_jax.errors import UserError


def whole(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def zipped(content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.npy", content)
    return buffer.getvalue()


def header(text: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


DAMAGED = {
    "empty": b"",
    "cut short": whole(a=np.ones(100))[:200],
    "another name": whole(b=np.ones(3)),
    "an object": whole(a=np.array([{}, None])),
    "a member that is no array": zipped(b"nothing"),
    "a header that is no Python": zipped(header(b"{'descr': <f4, \n")),
    "a header of another thing": zipped(header(b"[]\n")),
    "more than any memory": zipped(
        header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2**0, 99999999999999)}\n")
    ),
    "compressed badly": zipped(bytes(1000), zipfile.ZIP_DEFLATED).replace(b"\x63\x60", b"\xff\xff"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_npz_is_told_in_a_line(tmp_path, name):
    (tmp_path / "x.npz").write_bytes(DAMAGED[name])
    with pytest.raises(UserError, match=r"x.npz (is damaged|cannot be read) \(.+\): do this$") as told:
        read_npz(tmp_path / "x.npz", ("a",), "do this")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, b"\xff"])
def test_a_text_that_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)
