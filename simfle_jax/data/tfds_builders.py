"""A TensorFlow Datasets builder for a folder of images, so that TFDS users can build and read it as any other.

    tfds build simfle_jax/data/tfds_builders.py --manual_dir=FACES --file_format=array_record [--config=unlabelled]

or, from Python, `build("FACES")`. Neither this nor reading it with `tfds.data_source` needs TensorFlow. The order is
that of the folder's listing and the images are the files' own bytes, so `data.source=tfds:simfle_folder:train` trains
on the same batches as the folder.
"""

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from simfle_jax.data.sources import FolderSource
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
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = os.fspath(dl_manager.manual_dir)
        if self.builder_config.name == "unlabelled":
            return {"train": self._generate_examples(FolderSource(folder))}
        splits = [split for split in ("train", "val") if os.path.isdir(os.path.join(folder, split))]
        if not splits:
            raise UserError(f"no train or val in {folder}: use the config unlabelled for a folder without classes")
        sources = {split: FolderSource(folder, labelled=True, split=split) for split in splits}
        self.info.features["label"].names = sources[splits[0]].classes
        return {split: self._generate_examples(source) for split, source in sources.items()}

    def _generate_examples(self, source: FolderSource) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(len(source)):
            name, data, label = source[index]
            yield index, {"image": data, "name": name} | ({} if label is None else {"label": label})


def build(folder: str, data_dir: str | None = None, config: str = "labelled") -> SimfleFolder:
    """Builds the data set from `folder` in `data_dir` (None: where TFDS keeps its own); what is there already stays."""
    builder = SimfleFolder(config=config, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    return builder
