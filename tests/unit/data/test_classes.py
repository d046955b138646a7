"""Labels of one source in the class order of another."""

import unicodedata

import numpy as np
import pytest
from images import write_classes

from simfle_jax.data.classes import with_classes
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "g\u00eane") for form in ("NFC", "NFD"))


@pytest.fixture
def source(tmp_path):
    write_classes(tmp_path, {"anger": 2, "fear": 1, "joy": 3})
    return FolderSource(tmp_path, labelled=True)


def test_labels_follow_the_names(source):
    mapped = with_classes(source, ("joy", "anger", "fear"), "val")
    assert mapped.classes == ("joy", "anger", "fear")
    assert [mapped.classes[label] for label in mapped.labels] == ["anger"] * 2 + ["fear"] + ["joy"] * 3
    for index in range(len(source)):
        assert mapped.name(index) == source.name(index) and mapped[index].data == source[index].data
        assert mapped[index].label == mapped.labels[index]
    assert mapped.fingerprint == source.fingerprint


def test_the_same_order_is_the_same_source(source):
    assert with_classes(source, source.classes, "val") is source


def test_unicode_forms_and_spaces_at_the_ends_are_one_name(tmp_path):
    write_classes(tmp_path, {DECOMPOSED: 1, "honte ": 2})
    mapped = with_classes(FolderSource(tmp_path, labelled=True), ("honte", COMPOSED), "val")
    np.testing.assert_array_equal(mapped.labels, [1, 0, 0])
    assert mapped.classes == ("honte", COMPOSED)


def test_names_that_look_alike_are_spelt_out(tmp_path):
    write_classes(tmp_path, {COMPOSED: 1, DECOMPOSED: 1})
    with pytest.raises(UserError, match=r"val has classes whose names look alike: .*g\\xeane"):
        with_classes(FolderSource(tmp_path, labelled=True), ("a", "b"), "val")
    write_classes(tmp_path / "other", {"joy\u200b": 1, "anger": 1})
    with pytest.raises(UserError, match=r"lacks joy and has 'joy\\u200b' besides"):
        with_classes(FolderSource(tmp_path / "other", labelled=True), ("anger", "joy"), "val")
