"""Features of whole sets: the same as image by image, and crops that depend on (seed, epoch, index) alone."""

import numpy as np
import pytest
from small_probe import write_encoder, write_split

from simfle_jax.data.bad_list import read_bad_list
from simfle_jax.data.decode import decode
from simfle_jax.data.sources import FolderSource
from simfle_jax.encoder import Encoder, load_encoder
from simfle_jax.errors import UserError
from simfle_jax.evaluation.features import Extractor


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_encoder(write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.safetensors"))


@pytest.fixture
def source(tmp_path):
    return FolderSource(write_split(tmp_path / "val", {"blue": 5, "green": 4, "red": 2}), labelled=True)


def crops(extractor, source, epoch=0):
    return np.asarray(extractor.augmented(source, epoch, lambda images: None).features)


def in_small_batches(encoder, **settings):
    extractor = Extractor(encoder, **settings)
    extractor.batch_size = 4 * extractor.mesh.size
    return extractor


def test_plain_features_are_those_of_the_encoder(encoder, source):
    images = np.stack([decode(source[i].data, 24) for i in range(len(source))])
    for extractor in (Extractor(encoder), in_small_batches(encoder)):
        found = extractor.plain(source, "val")
        np.testing.assert_allclose(found.features, encoder(images), atol=1e-5)
        np.testing.assert_array_equal(found.labels, source.labels)


def test_an_encoder_of_standardised_views_is_probed_on_such(encoder, source):
    standardising = Encoder(encoder.arrays, encoder.trunk, encoder.metadata | {"standardise": "image"})
    images = np.stack([decode(source[i].data, 24) for i in range(len(source))])
    found = Extractor(standardising).plain(source, "val").features
    np.testing.assert_allclose(found, standardising(images), atol=1e-5)
    assert np.abs(found - encoder(images)).max() > 1e-2


def test_crops_do_not_depend_on_the_batch(encoder, source):
    whole, parts = crops(Extractor(encoder), source), crops(in_small_batches(encoder), source)
    np.testing.assert_allclose(parts, whole, atol=1e-5)


def test_crops_change_with_epoch_and_seed(encoder, source):
    extractor = Extractor(encoder)
    first = crops(extractor, source)
    np.testing.assert_array_equal(crops(extractor, source), first)
    for other in (crops(extractor, source, epoch=1), crops(Extractor(encoder, seed=1), source)):
        assert np.abs(other - first).max(1).min() > 1e-3


def test_too_many_unreadable_images_are_all_listed(encoder, source, tmp_path):
    for number in range(4):
        (tmp_path / "val" / "green" / f"{number:03d}.jpg").write_bytes(b"broken")
    extractor = Extractor(encoder, max_bad_fraction=0.1)
    extractor.bad_list = tmp_path / "bad_images.txt"
    with pytest.raises(UserError, match="4 of 11 images"):
        extractor.plain(source, "val")
    assert sorted(read_bad_list(extractor.bad_list)) == [f"val/green/{number:03d}.jpg" for number in range(4)]


def test_unreadable_images_are_left_out_and_named(encoder, source, tmp_path):
    spoilt = tmp_path / "val" / "green" / "002.jpg"
    spoilt.write_bytes(spoilt.read_bytes()[:40])
    extractor = Extractor(encoder)
    found = extractor.plain(source, "val")
    np.testing.assert_array_equal(found.labels, [0] * 5 + [1] * 3 + [2] * 2)
    assert list(extractor.bad) == ["val/green/002.jpg"]
