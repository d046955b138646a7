"""Features of other models, found by the names of their images, and what is refused."""

import numpy as np
import pytest
from small_probe import write_split

from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError
from simfle_jax.evaluation.feature_file import FeatureFile
from simfle_jax.evaluation.feature_table import FeatureTable, read_features

COUNTS = {"blue": 3, "red": 2}


@pytest.fixture
def sources(tmp_path):
    folders = {name: write_split(tmp_path / "data" / name, COUNTS) for name in ("train", "val")}
    return {name: FolderSource(folder, labelled=True) for name, folder in folders.items()}


def names_of(sources, before="some/where/"):
    return [f"{before}{split}/{source.name(i)}" for split, source in sources.items() for i in range(len(source))]


def written(path, names, seed=0):
    """Shuffled, as another program may have them; and the features by name."""
    order = np.random.default_rng(seed).permutation(len(names))
    features = np.random.default_rng(1).standard_normal((len(names), 6)).astype(np.float32)
    np.savez(path, names=np.array(names)[order], features=features[order])
    return dict(zip(names, features))


@pytest.mark.parametrize("before", ["", "some/where/", "/abs/train/"])
def test_features_stand_in_the_order_of_the_listing_with_its_labels(sources, tmp_path, before):
    own = written(tmp_path / "f.npz", names_of(sources, before))
    table = FeatureTable(str(tmp_path / "f.npz"))
    for split, source in sources.items():
        found = table.plain(source, split)
        expected = [own[f"{before}{split}/{source.name(i)}"] for i in range(len(source))]
        np.testing.assert_array_equal(found.features, expected)
        np.testing.assert_array_equal(found.labels, [0, 0, 0, 1, 1])
    assert not table.bad and table.dim == 6


@pytest.mark.parametrize("ending", ["npz", "npy", "parquet"])
def test_every_form_that_embed_writes_is_read(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    names = ["a/x.jpg", "b/\udce9.jpg", "c.png"]
    features = np.arange(12, dtype=np.float32).reshape(3, 4)
    with FeatureFile(tmp_path / f"f.{ending}", names, 4, {}) as file:
        file.append(features[:2], np.array([0, 1]), {}, 2)
        file.append(features[2:], np.array([2]), {}, 3)
        file.finish()
    found, values = read_features(tmp_path / f"f.{ending}")
    np.testing.assert_array_equal(values, features)
    assert FeatureTable(str(tmp_path / f"f.{ending}")).names == ["a/x.jpg", "b/\\xe9.jpg", "c.png"]
    assert len(found) == 3


def test_an_image_that_embed_could_not_read_is_left_out_and_any_other_is_missed(sources, tmp_path):
    names = names_of(sources)
    lost = names.pop(0)
    written(tmp_path / "f.npz", names)
    with pytest.raises(
        UserError, match=r"f\.npz has no features of train/blue/000\.jpg: its names, such as some/where/"
    ):
        FeatureTable(str(tmp_path / "f.npz")).plain(sources["train"], "train")
    (tmp_path / "f.npz.bad.txt").write_text(f"{lost}\ttruncated\n")
    table = FeatureTable(str(tmp_path / "f.npz"))
    assert len(table.plain(sources["train"], "train").labels) == 4
    assert table.bad == {"train/blue/000.jpg": "truncated"}
    np.testing.assert_array_equal(table.rows["train"], [1, 2, 3, 4])


def test_names_of_other_images_and_of_two_folders_are_refused(sources, tmp_path):
    written(tmp_path / "other.npz", [f"x/{i}.jpg" for i in range(5)])
    with pytest.raises(UserError, match=r"has no features of val/blue/000\.jpg: its names, such as x/"):
        FeatureTable(str(tmp_path / "other.npz")).plain(sources["val"], "val")
    written(tmp_path / "two.npz", names_of(sources, "a/") + names_of(sources, "b/"))
    with pytest.raises(UserError, match=r"features of a/val/blue/000\.jpg and of b/val/blue/000\.jpg"):
        FeatureTable(str(tmp_path / "two.npz")).plain(sources["val"], "val")


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"features": np.ones((2, 3))}, "no file of names and features: .*names"),
        ({"features": np.ones((2, 3)), "names": ["a"]}, r"not float64 \[2, 3\] with 1 names"),
        ({"features": np.ones((2, 3, 4)), "names": ["a", "b"]}, r"not float64 \[2, 3, 4\]"),
        ({"features": np.ones((2, 3), int), "names": ["a", "b"]}, r"floating-point .* not int64"),
        ({"features": np.array([[1.0], [np.nan]]), "names": ["a", "b"]}, "the features of b are not finite"),
        ({"features": np.ones((2, 3)), "names": ["a", "a"]}, "holds the name a twice"),
        ({"features": np.array([[{}]]), "names": ["a"]}, "no file of names and features: .*pickle"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "f.npz", **{name: np.asarray(values) for name, values in arrays.items()})
    with pytest.raises(UserError, match=message):
        FeatureTable(str(tmp_path / "f.npz"))


def test_a_damaged_file_and_another_ending_are_refused(tmp_path):
    (tmp_path / "f.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"f\.npz is no file of names and features"):
        read_features(tmp_path / "f.npz")
    with pytest.raises(UserError, match=r"f\.csv must end in \.npz or \.parquet or \.npy"):
        read_features(tmp_path / "f.csv")
