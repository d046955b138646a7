import os

import pytest

from simfle_jax.data.bad_list import escaped, read_bad_list, unescaped, write_bad_list

NAMES = [
    "a.jpg",
    "ümläut-日本.jpg",
    os.fsdecode(b"latin1-\xe9.jpg"),
    "line\nbreak.jpg",
    "tab\there\\x41.jpg",
    "bell\x07 \u2028.jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_fits_one_line_and_comes_back(name):
    text = escaped(name)
    assert text.isprintable() and text.encode() and unescaped(text) == name


def test_plain_names_stay_as_they_are():
    assert [escaped(name) for name in NAMES[:3]] == ["a.jpg", "ümläut-日本.jpg", r"latin1-\xe9.jpg"]


def test_a_list_is_read_as_it_was_written_and_an_empty_one_is_no_file(tmp_path):
    bad = dict.fromkeys(NAMES, "cannot be used")
    write_bad_list(tmp_path / "bad.txt", bad)
    assert (tmp_path / "bad.txt").read_bytes().count(b"\n") == len(NAMES)
    assert read_bad_list(tmp_path / "bad.txt") == bad
    (tmp_path / "bad.txt").write_bytes(b"damaged-\xe9.jpg\tempty file\n")
    assert read_bad_list(tmp_path / "bad.txt") == {os.fsdecode(b"damaged-\xe9.jpg"): "empty file"}
    write_bad_list(tmp_path / "bad.txt", {})
    assert not os.listdir(tmp_path) and read_bad_list(tmp_path / "bad.txt") == {}
