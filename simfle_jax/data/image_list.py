"""Images named one by one, and folders of them, as one source."""

import os
from collections.abc import Iterable

import numpy as np

from simfle_jax.data.files import BadImage, read_file
from simfle_jax.data.listing import file_sizes
from simfle_jax.data.opening import open_source
from simfle_jax.data.sources import FolderSource, Record, Source, fingerprint
from simfle_jax.errors import UserError
from simfle_jax.storage import is_bucket, joined


class ImageList:
    """The files in the order given; a folder stands for all images below it, sorted, and so does one in a bucket, or a pack there.

    It has no classes: the label of an image is its number in the list, which tells whose a feature is when unreadable
    images were left out.

    Raises:
        UserError: something named is not there, or a folder has no image.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]):
        self.classes: tuple[str, ...] | None = None
        self.names: list[str] = []
        self._nowhere: set[str] = set()
        self._copies: list[tuple[int, Source]] = []  # of what lies in buckets, with the number of its first image
        for path in [os.fspath(path) for path in paths]:
            if is_bucket(path):
                found = open_source("folder", path)
                self._copies.append((len(self.names), found))
                self.names += [joined(path, found.name(i)) for i in range(len(found))]
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
        if self._copies:  # each knows its own
            copied = [(found.fingerprint, start) for start, found in self._copies]
            return fingerprint([*copied, *((name, 0) for name in self.names)])
        return fingerprint(zip(self.names, file_sizes(len(self), self.name)))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Record:
        name = self.names[index]
        for start, found in self._copies:
            if 0 <= index - start < len(found):
                return Record(name, found[index - start].data, index)
        if name in self._nowhere:
            raise BadImage("a link to nowhere")
        return Record(name, read_file(name), index)

    def name(self, index: int) -> str:
        """The path as it was given, or the folder's with what is below."""
        return self.names[index]
