import re
import shutil
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from images import damaged, encode, write_classes
from small import status

from configs import probe as probe_config
from simfle_jax.data.opening import crop_told, open_source
from simfle_jax.data.pipeline import TrainBatches
from simfle_jax.data.sources import FolderSource
from simfle_jax.errors import UserError
from simfle_jax.evaluation.landmarks.reading import points_in, rows_of
from simfle_jax.evaluation.sets import open_sets
from simfle_jax.evaluation.settings import probing

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds")
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

from simfle_jax.commands import tfds_build  # noqa: E402
from simfle_jax.data import tfds_source  # noqa: E402
from simfle_jax.data.tfds_builders import build  # noqa: E402


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    write_classes(root / "train", {"angry": 9, "happy": 12, "sad": 6})
    write_classes(root / "val", {"angry": 2, "happy": 3, "sad": 2})
    for name, data in damaged().items():
        if not name.startswith("bomb.png"):
            (root / "train" / "happy" / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def built(faces, tmp_path_factory):
    """A data_dir with both forms of the folder."""
    data_dir = str(tmp_path_factory.mktemp("tfds"))
    build(str(faces), data_dir)
    build(str(faces), data_dir, config="unlabelled")
    return data_dir


@pytest.mark.parametrize("split", ["train", "val"])
def test_holds_what_the_folder_holds(faces, built, split):
    folder, kept = FolderSource(faces, True, split), open_source("tfds:simfle_folder", built, True, split)
    assert kept.classes == ("angry", "happy", "sad") and len(kept) == len(folder)
    np.testing.assert_array_equal(kept.labels, folder.labels)
    for index in range(len(folder)):
        assert kept[index] == folder[index] and kept.name(index) == folder.name(index)


def test_twenty_batches_are_those_of_the_folder(faces, built):
    settings = {"seed": 3, "batch_size": 8, "canvas": 20, "threads": 2}
    folder, kept = FolderSource(faces), open_source("tfds:simfle_folder/unlabelled:train", built)
    with TrainBatches(folder, **settings) as expected, TrainBatches(kept, **settings) as got:
        for _ in range(20):
            one, other = next(expected), next(got)
            for key in ("image", "index"):
                np.testing.assert_array_equal(one[key], other[key])
        assert got.bad == expected.bad and len(got.bad) == 11


def test_a_split_can_be_a_part_and_val_is_found_whatever_is_named(built):
    assert len(open_source("tfds:simfle_folder:train[:50%]", built)) in (19, 20)
    assert len(open_source("tfds:simfle_folder/labelled:1.0.0:train+val", built)) == 45
    assert len(open_source("tfds:simfle_folder:train[:50%]", built, True, "val")) == 7


@pytest.mark.parametrize("config", ["labelled", "unlabelled"])
def test_the_crop_of_a_prepared_folder_is_kept(faces, built, config, tmp_path):
    shutil.copytree(faces / "val", tmp_path / "prepared" / "train")
    (tmp_path / "prepared" / "manifest.json").write_text('{"rules": {"align": "eyes-1"}}')
    build(str(tmp_path / "prepared"), str(tmp_path), config)
    source = f"tfds:simfle_folder/{config}:train"
    assert crop_told([(source, str(tmp_path))]) == "eyes-1"
    assert crop_told([(source, built)]) == "as given", "a folder without a manifest"
    assert crop_told([(source, built), (source, str(tmp_path)), ("folder", "nowhere")]) == "as given, eyes-1"


def test_no_split_is_both_trained_and_reported_on(built):
    """Whatever serves as val is not among what is trained on, if only by its name."""
    for trained in ("train+val", "val"):
        with pytest.raises(
            UserError, match=rf"no split is left beside '{re.escape(trained)}' to report on: .* \?val=SPLIT"
        ):
            open_source(f"tfds:simfle_folder/labelled:{trained}", built, True, "val")
    config = probe_config.get_config()
    config.update(encoder=built, data={"path": built})
    for spec in ("train?val=train", "train+val?val=val"):
        config.data.source = f"tfds:simfle_folder/labelled:{spec}"
        with pytest.raises(UserError, match="is trained and reported on: give others"):
            open_sets(probing(config))
    config.data.source = "tfds:simfle_folder/labelled:train[:50%]?val=train[50%:]"
    sets = open_sets(probing(config))
    assert len(sets.train) + len(sets.apart["val"]) == 38


def test_another_folder_gets_a_data_set_of_its_own(faces, built, tmp_path):
    assert build(str(faces), built).info.splits["val"].num_examples == 7
    shutil.copytree(faces, tmp_path / "other")
    (tmp_path / "other/val/sad/000.jpg").rename(tmp_path / "other/val/sad/renamed.jpg")
    with pytest.raises(UserError, match=r"holds the data set of other images than .*other: give another --data-dir"):
        build(str(tmp_path / "other"), built)


def test_a_further_set_is_never_the_split_that_is_trained_on(built):
    with pytest.raises(UserError, match="has no split 'test', only train, val"):
        open_source("tfds:simfle_folder/labelled:train", built, True, "test")


def test_fingerprints_tell_splits_apart(built):
    sources = [open_source(f"tfds:simfle_folder:{split}", built) for split in ("train", "val", "train[:50%]")]
    assert len({source.fingerprint for source in sources}) == 3
    assert open_source("tfds:simfle_folder:train", built).fingerprint == sources[0].fingerprint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfds:simfle_folder:dev", r"has no split 'dev', only train, val"),
        ("tfds:simfle_folder?image=photo", r"has no feature 'photo', only image, label, name"),
        ("tfds:no_such_set", r"no TFDS data set no_such_set, .*DATA_DIR"),
        ("tfds:mnist:9.9.9", r"^Dataset mnist cannot be loaded at version 9\.9\.9, only"),
        (
            "tfds:mnist",
            r"mnist is not prepared in .*tfds build mnist --file_format=array_record --data_dir=.*, which needs pip install tensorflow",
        ),
        ("tfds:imagenet2012", r"first put its files into --manual_dir: .*ILSVRC2012_img_train.tar"),
        ("tfds:../faces", r"not of the form tfds:NAME"),
        ("tfds:simfle_folder?picture=image", r"not of the form tfds:NAME"),
    ],
)
def test_what_is_not_there_is_told_with_what_to_do(built, source, message):
    with pytest.raises(UserError, match=message) as caught:
        open_source(source, built)
    assert "\n" not in str(caught.value)


def test_labels_that_are_not_there(built):
    with pytest.raises(UserError, match=r"must have one ClassLabel and has none among image, name: .*\?label="):
        open_source("tfds:simfle_folder/unlabelled", built, labelled=True)


def test_the_command_builds_and_tells_what_is_wrong(tmp_path, capsys):
    write_classes(tmp_path / "faces" / "train", {"angry": 2, "happy": 1})
    (tmp_path / "faces" / "train" / "happy" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    arguments = ["--folder", str(tmp_path / "faces"), "--data-dir", str(tmp_path / "tfds")]
    assert status(tfds_build, arguments) == 0
    assert f"=tfds:simfle_folder/labelled:train --config.data.path={tmp_path / 'tfds'}\n" in capsys.readouterr().out
    kept = open_source("tfds:simfle_folder", str(tmp_path / "tfds"), True)
    assert kept.name(3) == "happy/gone.jpg" and kept[3].data == b""
    assert status(tfds_build, ["--folder", str(tmp_path / "faces" / "train"), "--data-dir", str(tmp_path)]) == 2
    assert "data are laid out as train/CLASS/IMAGE" in capsys.readouterr().err.splitlines()[-1]
    write_classes(tmp_path / "faces" / "val", {"angry": 2, "sad": 1})
    assert status(tfds_build, ["--folder", str(tmp_path / "faces"), "--data-dir", str(tmp_path / "other")]) == 2
    assert "lacks happy and has sad besides" in capsys.readouterr().err.splitlines()[-1]


class Many(tfds.core.GeneratorBasedBuilder):
    """Several images and labels, tensors, a label that is missing; stored without random access on demand."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=["no", "yes"])
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "photo": tfds.features.Image(encoding_format="png"),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "grey": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "smile": label,
                    "glasses": label,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for index in range(6):
            plane = np.full((8, 8, 1), 30 * index, np.uint8)
            yield index, {
                "photo": encode(plane.repeat(3, 2), "PNG"), "mask": encode(plane[..., 0], "PNG"), "grey": plane + 1,
                "smile": index % 2, "glasses": -1,
            }  # fmt: skip


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("many")
    Many(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return str(data_dir)


def test_features_are_named_where_there_are_several(many):
    with pytest.raises(UserError, match=r"must have one Image and has several: mask, photo: name it with \?image="):
        open_source("tfds:many:test", many)
    with pytest.raises(UserError, match=r"one ClassLabel and has several: glasses, smile: name it with \?label="):
        open_source("tfds:many:test?image=photo", many, labelled=True)
    source = open_source("tfds:many:test?image=photo&label=smile", many, labelled=True)
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1] and source.name(4) == "test/00000004"
    with pytest.raises(UserError, match="without a label: it can only pre-train"):
        open_source("tfds:many:test?image=photo&label=glasses", many, labelled=True)


def test_fingerprints_tell_the_features_apart_that_were_named(many):
    """Else a cache, or a finished probe, of one feature would be taken for that of another."""
    prints = [open_source(f"tfds:many:test?image={name}", many).fingerprint for name in ("photo", "mask")]
    prints.append(open_source("tfds:many:test?image=photo&label=smile", many, labelled=True).fingerprint)
    assert len(set(prints)) == 3


def test_val_is_served_by_test(many):
    assert len(open_source("tfds:many?image=photo&label=smile", many, True, "val")) == 6


def test_pixels_without_a_file_become_rgb(many):
    with TrainBatches(
        open_source("tfds:many:test?image=grey", many), seed=0, batch_size=6, canvas=8, threads=1
    ) as batches:
        batch = next(batches)
    np.testing.assert_array_equal(batch["image"][:, 3, 5], 30 * batch["index"][:, None] + np.ones(3, int))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("sixteen", [[1, 1, 1], [255, 255, 255]]),  # 300 and 65535: the upper byte, as of 16-bit files
        ("floats", [[128, 0, 255], [0, 64, 0]]),
        ("plane", [[7, 7, 7], [200, 200, 200]]),
        ("opacity", [[255, 255, 255], [9, 8, 7]]),
        ("wide", [[1, 2, 3], [4, 5, 255]]),
    ],
)
def test_tensors_keep_their_grey_levels(tensors, key, expected):
    found = open_source(f"tfds:tensors:test?image={key}", tensors)[0].data
    assert found.dtype == np.uint8 and found.tolist() == [expected]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("channels_first", r"tensor 'channels_first' is uint8 \[3, 5, 6\], must be \[H, W\] or \[H, W, C\]"),
        ("five", r"is uint8 \[1, 2, 5\], must be"),
        ("row", r"is uint8 \[2\], must be"),
        ("switch", r"is bool \[1, 2\], must be"),
        ("said", r"'said' is of type Text, no Image and no Tensor"),
        ("kind", r"'kind' is of type ClassLabel, no Image and no Tensor"),
    ],
)
def test_what_cannot_be_an_image_is_told_at_once(tensors, key, message):
    with pytest.raises(UserError, match=message) as caught:
        open_source(f"tfds:tensors:test?image={key}", tensors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("loud", r"float32 values from 0 to 255, must lie in 0\.\.1"),
        ("deep", r"int64 values from -1 to 256, must lie in 0"),
    ],
)
def test_values_out_of_range_make_a_bad_image(tensors, key, message):
    batches = TrainBatches(open_source(f"tfds:tensors:test?image={key}", tensors), seed=0, batch_size=1, canvas=4)
    with batches, pytest.raises(UserError, match=message):
        next(batches)


class Tensors(tfds.core.GeneratorBasedBuilder):
    """Images as tensors of many kinds."""

    VERSION = tfds.core.Version("1.0.0")
    CONTENT: ClassVar = {
        "sixteen": np.array([[[300], [65535]]], np.uint16),
        "floats": np.array([[[0.5, 0, 1], [0, 0.25, 0]]], np.float32),
        "plane": np.array([[7, 200]], np.uint8),
        "opacity": np.array([[[9, 8, 7, 0], [9, 8, 7, 255]]], np.uint8),
        "wide": np.array([[[1, 2, 3], [4, 5, 255]]], np.int64),
        "channels_first": np.zeros((3, 5, 6), np.uint8),
        "five": np.zeros((1, 2, 5), np.uint8),
        "row": np.zeros(2, np.uint8),
        "switch": np.zeros((1, 2), bool),
        "loud": np.array([[0, 255]], np.float32),
        "deep": np.array([[-1, 256]], np.int64),
    }

    def _info(self):
        tensors = {key: tfds.features.Tensor(shape=x.shape, dtype=x.dtype) for key, x in self.CONTENT.items()}
        others = {"said": tfds.features.Text(), "kind": tfds.features.ClassLabel(num_classes=2)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(tensors | others))

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        yield 0, self.CONTENT | {"said": "cheese", "kind": 1}


class Points(tfds.core.GeneratorBasedBuilder):
    """As aflw2k3d: one split, landmarks in shares of the image; a second set of points on demand."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("one", "two")]
    FACES = np.random.default_rng(0).uniform(0.2, 0.8, (8, 68, 2)).astype(np.float32)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(30, 45, 3), encoding_format="jpeg"),
            "landmarks_68_3d_xy_normalized": tfds.features.Tensor(shape=(68, 2), dtype=np.float32),
            "landmarks_68_3d_z": tfds.features.Tensor(shape=(68, 1), dtype=np.float32),
        }
        if self.builder_config.name == "two":
            features["landmarks_2d"] = tfds.features.Tensor(shape=(68, 2), dtype=np.float32)
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index, face in enumerate(self.FACES):
            example = {
                "image": encode(np.full((30, 45, 3), 9 * index, np.uint8)), "landmarks_68_3d_xy_normalized": face,
                "landmarks_68_3d_z": np.zeros((68, 1), np.float32),
            }  # fmt: skip
            yield index, example | ({"landmarks_2d": 1 - face} if self.builder_config.name == "two" else {})


def test_points_are_read_from_their_feature_and_val_from_the_split_that_is_named(tmp_path):
    for config in ("one", "two"):
        Points(config=config, data_dir=tmp_path, file_format="array_record").download_and_prepare()
    spec = "tfds:points/one:train[:75%]?val=train[75%:]"
    sources = {split: open_source(spec, str(tmp_path), split=split) for split in ("train", "val")}
    assert {split: len(source) for split, source in sources.items()} == {"train": 6, "val": 2}
    pixels = Points.FACES * np.float32([45, 30])
    np.testing.assert_allclose(sources["val"].read_points(), pixels[6:], rtol=1e-6)
    sure = Points.FACES.copy()
    sure[:, 36], sure[:, 45], sure[:, 8] = (0.3, 0.4), (0.7, 0.4), (0.5, 0.9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds_source.TfdsSource, "read_points", lambda self: sure[: len(self)])
        table = points_in(sources, spec)
    rows = rows_of(table, [sources["val"].name(1)], "val")
    assert table.names[rows[0]] == f"val/{sources['val'].name(1)}" and rows[0] == 7
    with pytest.raises(UserError, match="chin is not below the eyes"):
        points_in(sources, spec)  # points at random
    with pytest.raises(
        UserError, match=r"has landmarks_2d, landmarks_68_3d_xy_normalized of points .*\?points=FEATURE"
    ):
        open_source("tfds:points/two", str(tmp_path)).read_points()
    named = open_source("tfds:points/two?points=landmarks_2d", str(tmp_path)).read_points()
    np.testing.assert_allclose(named, (1 - Points.FACES) * np.float32([45, 30]), rtol=1e-6)
    with pytest.raises(UserError, match=r"no split 'val', only train: give one as \?val=SPLIT"):
        open_source("tfds:points/one", str(tmp_path), split="val")


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tensors")
    Tensors(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return str(data_dir)


def test_without_the_package_it_says_what_to_install():
    code = (
        "import sys; sys.modules['tensorflow_datasets'] = None\n"
        "from simfle_jax.data.opening import open_source\n"
        "open_source('tfds:mnist', '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'simfle-jax[tfds]'" in done.stderr.splitlines()[-1]


def test_tensorflow_is_not_imported(built):
    code = (
        "import sys\nfrom simfle_jax.data.opening import open_source\n"
        f"open_source('tfds:simfle_folder', {built!r}, True)[0]\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_forms_of_a_name():
    assert tfds_source.parse("celeb_a:train?image=image") == ("celeb_a", "train", "image", None, None, None)
    assert tfds_source.parse("a/b:2.0.1") == ("a/b:2.0.1", *[None] * 5)
    assert tfds_source.parse("a:2.0.1:train[:10%]") == ("a:2.0.1", "train[:10%]", *[None] * 4)
    assert tfds_source.parse("a?points=p&val=train[90%:]")[-2:] == ("p", "train[90%:]")
