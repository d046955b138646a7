"""A TensorFlow Datasets builder for a folder of images, so that TFDS users can build and read it as any other.

    python -m simfle_jax.tfds_build --folder FACES [--data-dir DIR] [--config unlabelled]

or from Python `build("FACES")`, or with TFDS's own command, which needs TensorFlow, apache-beam and mlcroissant:

    tfds build simfle_jax/data/tfds_builders.py --manual_dir=FACES --file_format=array_record [--config=unlabelled]

The order is that of the folder's listing and the images are the files' own bytes, so `data.source=tfds:simfle_folder`
gives the same batches as the folder.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from simfle_jax.data.classes import with_classes
from simfle_jax.data.files import BadImage, patiently
from simfle_jax.data.photographs.crop import NOT_ALIGNED, crop_of
from simfle_jax.data.sources import FolderSource, Source
from simfle_jax.data.tfds_source import tfds
from simfle_jax.errors import UserError


class SimfleFolder(tfds.core.GeneratorBasedBuilder):
    """`train/CLASS/IMAGE` and `val/CLASS/IMAGE` (config `labelled`), or any folder of images (`unlabelled`)."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="labelled", description="Splits train and val with a folder for each class."),
        tfds.core.BuilderConfig(name="unlabelled", description="All images below a folder, as the split train."),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Give the folder of the images with --manual_dir."

    def _info(self) -> tfds.core.DatasetInfo:
        features: dict[str, Any] = {"image": tfds.features.Image(), "name": tfds.features.Text()}
        if self.builder_config.name == "labelled":
            features["label"] = tfds.features.ClassLabel()
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label") if "label" in features else None,
            disable_shuffling=True,  # the order of the listing is what makes runs repeat
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = os.fspath(dl_manager.manual_dir)
        sources = _sources(folder, self.builder_config.name)
        if (crop := crop_of(folder)) != NOT_ALIGNED:
            self.info.metadata["crop"] = crop
        self.info.metadata["fingerprints"] = {split: source.fingerprint for split, source in sources.items()}
        if self.builder_config.name == "labelled":
            self.info.features["label"].names = sources["train"].classes
        return {split: self._generate_examples(source) for split, source in sources.items()}

    def _generate_examples(self, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(len(source)):
            label = {} if source.labels is None else {"label": int(source.labels[index])}
            yield index, {"image": _bytes(source, index), "name": source.name(index)} | label


def _sources(folder: str, config: str) -> dict[str, Source]:
    if config == "unlabelled":
        return {"train": FolderSource(folder)}
    if not os.path.isdir(os.path.join(folder, "val")):
        return {"train": FolderSource(folder, labelled=True, split="train")}
    train, val = (FolderSource(folder, labelled=True, split=split) for split in ("train", "val"))
    return {"train": train, "val": with_classes(val, train.classes or (), os.path.join(folder, "val"))}


def _bytes(source: Source, index: int) -> bytes | np.ndarray:
    """The file's bytes; none for what is no file, so that it stays the bad image it is in the folder."""
    try:
        data = patiently(lambda: source[index].data, f"{source.name(index)} cannot be read")
    except BadImage:
        return b""
    return data


def build(folder: str, data_dir: str | None = None, config: str = "labelled") -> SimfleFolder:
    """Builds the data set from `folder` in `data_dir` (None: where TFDS keeps its own); what is there already stays.

    Raises:
        UserError: what is there already is of other images.
    """
    sources = _sources(folder, config)  # tells what is wrong with the folder in its own words, before TFDS does
    builder = SimfleFolder(config=config, data_dir=data_dir, file_format="array_record")
    with contextlib.redirect_stdout(sys.stderr):  # TFDS tells of downloads there, where results belong
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    told = dict(builder.info.metadata or {}).get("fingerprints", {})  # those of an earlier version tell none
    for split, source in sources.items():
        there = builder.info.splits.get(split)
        if (
            there is None
            or there.num_examples != len(source)
            or told.get(split, source.fingerprint) != source.fingerprint
        ):
            raise UserError(
                f"{builder.data_dir} holds the data set of other images than {folder}: give another --data-dir"
            )
    return builder
