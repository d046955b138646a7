"""Images named one by one, and folders of them, as one source."""

import os
from collections.abc import Iterable

import numpy as np

from simfle_jax.data.files import BadImage, read_file
from simfle_jax.data.listing import file_sizes
from simfle_jax.data.sources import FolderSource, Record, Source, fingerprint
from simfle_jax.errors import UserError
from simfle_jax.storage import is_bucket, joined


class ImageList:
    """The files in the order given; a folder stands for all images below it, sorted, and so does a pack in a bucket.

    It has no classes: the label of an image is its number in the list, which tells whose a feature is when unreadable
    images were left out.

    Raises:
        UserError: something named is not there, or a folder has no image.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]):
        self.classes: tuple[str, ...] | None = None
        self.names: list[str] = []
        self._nowhere: set[str] = set()
        self._packs: list[tuple[int, Source]] = []  # the number of its first image, and a pack in a bucket
        for path in [os.fspath(path) for path in paths]:
            if is_bucket(path):
                from simfle_jax.data.array_record import ArrayRecordSource

                pack = ArrayRecordSource(path)
                self._packs.append((len(self.names), pack))
                self.names += [joined(path, pack.name(i)) for i in range(len(pack))]
            elif os.path.isdir(path):
                folder = FolderSource(path)
                self.names += [os.path.join(path, folder.name(i)) for i in range(len(folder))]
                self._nowhere |= {os.path.join(path, os.fsdecode(name)) for name in folder.nowhere}
            elif os.path.lexists(path):
                self.names.append(path)
                self._nowhere |= set() if os.path.exists(path) else {path}
            else:
                raise UserError(f"no image or folder {path}")
        self.labels: np.ndarray | None = np.arange(len(self.names), dtype=np.int32)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and sizes."""
        if self._packs:  # each knows its own
            packed = [(pack.fingerprint, start) for start, pack in self._packs]
            return fingerprint([*packed, *((name, 0) for name in self.names)])
        return fingerprint(zip(self.names, file_sizes(len(self), self.name)))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        name = self.names[index]
        for start, pack in self._packs:
            if 0 <= index - start < len(pack):
                return Record(name, pack[index - start].data, index)
        if name in self._nowhere:
            raise BadImage("a link to nowhere")
        return Record(name, read_file(name), index)

    def name(self, index: int) -> str:
        """The path as it was given, or the folder's with what is below."""
        return self.names[index]
