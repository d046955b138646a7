"""Data sets of TensorFlow Datasets as sources, through its random-access files and without TensorFlow."""

import re
import urllib.parse
from typing import Any, NamedTuple

import numpy as np

from simfle_jax.data import pixels
from simfle_jax.data.files import record_error
from simfle_jax.data.photographs.crop import NOT_ALIGNED
from simfle_jax.data.sources import Record, fingerprint
from simfle_jax.errors import UserError
from simfle_jax.progress import Progress

try:
    import tensorflow_datasets as tfds
except ImportError as problem:
    raise UserError(
        f"data.source=tfds:... needs TensorFlow Datasets ({problem}): pip install 'simfle-jax[tfds]'"
    ) from None

FORM = "tfds:NAME[/CONFIG][:VERSION][:SPLIT][?image=FEATURE&label=FEATURE&points=FEATURE&val=SPLIT]"
OPTIONS = ("image", "label", "points", "val")
VALIDATION = ("val", "validation", "valid", "dev", "test")  # the first that a data set has serves as val
NAMES = ("name", "filename", "file_name", "image/filename", "id")


class Spec(NamedTuple):
    """What stands behind `tfds:`."""

    builder: str
    split: str | None
    image: str | None
    label: str | None
    points: str | None
    val: str | None


class TfdsSource:
    """One split of a prepared TFDS data set.

    The image is the only feature of type Image, the label the only ClassLabel; where there are several they are
    named as in `tfds:celeb_a:train?image=image`. A plain Tensor that is named serves, too, as `pixels` tells. Names
    come from a text feature `name` or `filename` and are the record's number otherwise. The split that `spec` names is
    the one to train on (train by default); `val` is the split that the option `val` names, or else validation or test
    where there is no val. `crop` is how its images were cropped to the face, as our builder recorded it.

    Args:
        spec: NAME[/CONFIG][:VERSION][:SPLIT][?OPTION=VALUE&...], the options those of FORM.
        path: TFDS's data_dir; '' is its own default, ~/tensorflow_datasets.
        labelled: whether to read the labels, all of them now.
        split: the split; what `spec` names stands for train alone.

    Raises:
        UserError: TFDS not installed, data set unknown or not prepared, no such split or feature, labels missing.
    """

    def __init__(self, spec: str, path: str, labelled: bool = False, split: str | None = None):
        self._spec = parse(spec)
        self._info, builder = _open(self._spec, path)
        self.split = _choose_split(self._spec, split, list(self._info.splits))
        kept = self._info.metadata  # our builder's, or of another kind
        self.crop = str(kept.get("crop", NOT_ALIGNED)) if isinstance(kept, dict) else NOT_ALIGNED
        features = self._info.features
        self._image = _feature(features, tfds.features.Image, self._spec.image, "image", self._info.name)
        _check_image(features[self._image], self._image, self._info.name)
        self._name = next(
            (key for key in NAMES if key in features and isinstance(features[key], tfds.features.Text)), None
        )
        self._label = None
        decoders = {self._image: tfds.decode.SkipDecoding()}
        self._records = _data_source(builder, self.split, decoders)
        self.classes: tuple[str, ...] | None = None
        self.labels: np.ndarray | None = None
        if labelled:
            self._label = _feature(features, tfds.features.ClassLabel, self._spec.label, "label", self._info.name)
            self.classes = tuple(features[self._label].names)
            self.labels = self._read_labels()

    def __len__(self) -> int:
        return len(self._records)

    def name(self, index: int) -> str:
        try:
            return self._name_in(self._records[index], index) if self._name else f"{self.split}/{index:08d}"
        except (ValueError, RuntimeError, IndexError):  # a record that cannot be read must still be named in messages
            return f"{self.split}/{index:08d}"

    def __getitem__(self, index: int) -> Record:
        try:
            example = self._records[index]
        except (ValueError, RuntimeError, IndexError) as error:
            raise record_error(error, "record") from None
        label = None if self.labels is None else int(self.labels[index])
        return Record(self._name_in(example, index), _content(example[self._image]), label)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the full name, the split, its number of images and its bytes, and features that were named."""
        split, labelled = self._info.splits[self.split], self.labels is not None
        named = {"image": self._spec.image, "label": self._spec.label if labelled else None}
        chosen = "&".join(f"{kind}={feature}" for kind, feature in named.items() if feature)
        name = f"{self._info.full_name}:{self.split}" + (f"?{chosen}" if chosen else "")
        return fingerprint([(name, split.num_examples), (name, split.num_bytes)])

    def read_points(self) -> np.ndarray:
        """Landmarks [n, P, 2] in pixels of the images, from the feature that holds them in shares of the images' sides.

        It is the only tensor of points x 2 numbers, or the one that is named, as in `?points=landmarks_2d`.

        Raises:
            UserError: there is none, or images of several sizes.
        """
        features, info = self._info.features, self._info
        fitting = [key for key, feature in sorted(features.items()) if tuple(feature.shape or ())[1:] == (2,)]
        key = self._spec.points or (fitting[0] if len(fitting) == 1 else None)
        if key not in fitting:
            state = f"has {', '.join(fitting) or 'none'} of points [P, 2]"
            raise UserError(f"{info.name} {state}: name the one that is meant with ?points=FEATURE")
        height, width = features[self._image].shape[:2]
        if height is None or width is None:
            raise UserError(f"{info.name} holds images of several sizes: points in shares of them are not known to us")
        points, progress = np.empty((len(self), *features[key].shape), np.float32), Progress(len(self), "points")
        for index in range(len(self)):
            points[index] = self._records[index][key]
            progress.update(index + 1)
        return points * np.array([width, height], np.float32)

    def _name_in(self, example: dict[str, Any], index: int) -> str:
        return example[self._name].decode() if self._name else f"{self.split}/{index:08d}"

    def _read_labels(self) -> np.ndarray:
        labels, progress = np.empty(len(self), np.int32), Progress(len(self), "reading labels")
        for index in range(len(self)):
            labels[index] = self._records[index][self._label]
            progress.update(index + 1)
        if len(labels) and labels.min() < 0:
            raise UserError(f"{self._info.full_name}:{self.split} has images without a label: it can only pre-train")
        return labels


def parse(spec: str) -> Spec:
    """Takes what FORM says apart."""
    where, _, query = spec.partition("?")
    options = dict(urllib.parse.parse_qsl(query))
    match = re.fullmatch(r"(\w+(?:/[\w.+-]+)?)(:\d+\.\d+\.\d+)?(?::([\w+%\[\]:.-]+))?", where)
    if not match or set(options) - set(OPTIONS):
        raise UserError(f"data.source=tfds:{spec} is not of the form {FORM}")
    return Spec(match[1] + (match[2] or ""), match[3], *map(options.get, OPTIONS))


def _open(spec: Spec, path: str) -> tuple[Any, Any]:
    """The info and the builder of a data set that is there in files."""
    try:
        builder = tfds.builder(spec.builder, data_dir=path or None)
    except tfds.core.DatasetNotFoundError:
        raise UserError(
            f"no TFDS data set {spec.builder}, neither in the catalogue nor in {path or 'the default data_dir'}: "
            f"check the name, and --config.data.path=DATA_DIR"
        ) from None
    except AssertionError as error:  # a version that is not there
        raise UserError(str(error).splitlines()[-1].rpartition('": ')[2]) from None
    except ImportError as error:
        raise UserError(
            f"{spec.builder} is not prepared and its code needs {error.name}: {_how_to(spec, path)}"
        ) from None
    if not builder.info.splits:
        manual = getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None)
        where = f"; first put its files into --manual_dir: {' '.join(manual.split())}" if manual else ""
        raise UserError(f"{spec.builder} is not prepared in {builder.data_dir}: {_how_to(spec, path)}{where}")
    return builder.info, builder


def _how_to(spec: Spec, path: str) -> str:
    folder = f" --data_dir={path}" if path else ""
    return f"run tfds build {spec.builder} --file_format=array_record{folder}, which needs pip install tensorflow"


def _data_source(builder: Any, split: str, decoders: dict[str, Any]) -> Any:
    try:
        return builder.as_data_source(split=split, decoders=decoders)
    except NotImplementedError:
        raise UserError(
            f"{builder.info.full_name} in {builder.data_dir} is stored as {builder.info.file_format.value}, which has "
            "no random access: build it again with --file_format=array_record into another --data_dir"
        ) from None


def _choose_split(spec: Spec, split: str | None, found: list[str]) -> str:
    if split == "val":
        trained = _splits_in(spec.split or "train")
        chosen = spec.val or next((name for name in VALIDATION if name in found and name not in trained), "")
        if not chosen and set(VALIDATION) & set(found):
            raise UserError(
                f"{spec.builder}: no split is left beside {spec.split!r} to report on: give one as ?val=SPLIT"
            )
        chosen = chosen or "val"
    elif split in (None, "train"):
        chosen = spec.split or "train"
    else:
        chosen = split  # a further set that is asked for by name: train in its place would report on what was learnt
    if not _splits_in(chosen) <= set(found):
        how = "?val=SPLIT" if split == "val" else "NAME:SPLIT"
        raise UserError(f"{spec.builder} has no split {chosen!r}, only {', '.join(found)}: give one as {how}")
    return chosen


def _splits_in(chosen: str) -> set[str]:
    """The names of the splits in one as TFDS writes it, such as 'train[:90%]+test'."""
    return set(filter(None, re.split(r"\[[^\]]*\]|\+", chosen)))


def _feature(features: Any, kind: type, named: str | None, option: str, dataset: str) -> str:
    """The key of the feature that is asked for or, if none is, of the only one of its kind."""
    found = sorted(key for key, feature in features.items() if isinstance(feature, kind))
    if named is not None:
        if named not in features:
            raise UserError(f"{dataset} has no feature {named!r}, only {', '.join(sorted(features))}")
        return named
    if len(found) != 1:
        state = f"several: {', '.join(found)}" if found else f"none among {', '.join(sorted(features))}"
        raise UserError(f"{dataset} must have one {kind.__name__} and has {state}: name it with ?{option}=FEATURE")
    return found[0]


def _content(image: bytes | np.ndarray) -> bytes | np.ndarray:
    """The file's bytes, or the pixels of a plain tensor as uint8 [H, W, 3]; raises BadImage."""
    return image if isinstance(image, bytes) else pixels.to_rgb8(np.asarray(image))


def _check_image(feature: Any, key: str, dataset: str) -> None:
    """Raises UserError for a feature that cannot be an image: a text, or a tensor of another shape or type."""
    is_file = isinstance(feature, tfds.features.Image)
    if is_file and np.dtype(feature.np_dtype).kind == "f":
        raise UserError(f"{dataset}: {key!r} packs floats into PNG files, which are no pictures; build it as uint8")
    if is_file:
        return
    if not isinstance(feature, tfds.features.Tensor) or isinstance(
        feature, tfds.features.Text | tfds.features.ClassLabel
    ):
        raise UserError(f"{dataset}: {key!r} is of type {type(feature).__name__}, no Image and no Tensor")
    wrong = pixels.problem(feature.shape, np.dtype(feature.np_dtype))
    if wrong:
        raise UserError(f"{dataset}: the tensor {key!r} is {wrong}")
