"""A listing of a folder that is kept in a file, so that not every start, on every host, walks millions of files.

The file holds the names, their fingerprint, the time at which every folder was last changed, and the sizes of a few files.
A file that was added, removed or renamed changes the time of its folder; one that was written over is seen when it is among
the few.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from simfle_jax.data.listing import THREADS, Listing, file_size, last_change, list_images
from simfle_jax.errors import UserError
from simfle_jax.writing import writing_whole

FORMAT = "simfle listing 1"
SAMPLE = 64  # files whose sizes stand for those of all
MEANING = "data.listing keeps the names of a folder's images"


class Kept(NamedTuple):
    """What a file holds: the listing of the folder, and the fingerprint of all its images."""

    listing: Listing
    fingerprint: str


def kept_listing(root: str, file: str, fingerprint: Callable[[Listing], str]) -> Kept:
    """The listing of the images below `root` from `file`, which is made where it is not there or not that of the folder.

    fingerprint: makes that of a listing; it is called only where the file is made.

    Raises:
        UserError: `file` is something else, or lies where its own writing would change the folder.
    """
    if os.path.realpath(file).startswith(os.path.realpath(root) + os.sep):
        raise UserError(f"data.listing={file} lies in {root}, which it would change: give a file elsewhere")
    problem = ""
    if os.path.exists(file):
        found, problem = _read(root, file)
        if found:
            return found
        logging.warning("%s is not the listing of %s any more (%s): listing anew", file, root, problem)
    listing = list_images(root)
    kept = Kept(listing, fingerprint(listing))
    try:
        _write(root, file, kept)
    except OSError as error:
        logging.warning("the listing %s could not be written (%s); every start lists anew", file, error.strerror)
    return kept


def _read(root: str, file: str) -> tuple[Kept | None, str]:
    """What the file holds if the folder is still that; otherwise what differs."""
    try:
        with np.load(file) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            joined, ends = arrays["names"].tobytes(), arrays["ends"].tolist()
        if facts["format"] != FORMAT:
            raise ValueError
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        raise UserError(f"{file} is no listing: {MEANING}; give another --config.data.listing=FILE") from None
    folders = {bytes.fromhex(path): time for path, time in facts["folders"].items()}
    if differing := next((path for path, time in _times(root, folders).items() if folders[path] != time), None):
        return None, f"{os.fsdecode(os.path.join(os.fsencode(root), differing))} was changed"
    names = [joined[start:end] for start, end in zip([0, *ends], ends)]
    for index, size in facts["sizes"].items():
        if file_size(f"{root}/{os.fsdecode(names[int(index)])}") != size:
            return None, f"{os.fsdecode(names[int(index)])} has another size"
    nowhere = frozenset(names[index] for index in facts["nowhere"])
    return Kept(Listing(names, nowhere, folders), facts["fingerprint"]), ""


def _times(root: str, folders: Iterable[bytes]) -> dict[bytes, int]:
    """When each folder was last changed, as `last_change` tells."""
    with ThreadPoolExecutor(THREADS) as pool:
        paths = (os.path.join(os.fsencode(root), folder) for folder in folders)
        return dict(zip(folders, pool.map(last_change, paths)))


def _below(root: str, folder: bytes) -> bytes:
    """The folder as it is seen from `root`, which other hosts may call otherwise."""
    return os.path.relpath(folder, os.path.realpath(os.fsencode(root)))


def _write(root: str, file: str, kept: Kept) -> None:
    names, nowhere, folders = kept.listing
    few = set(np.linspace(0, len(names) - 1, min(SAMPLE, len(names)), dtype=int).tolist())
    facts = {
        "format": FORMAT,
        "fingerprint": kept.fingerprint,
        "folders": {_below(root, folder).hex(): time for folder, time in sorted(folders.items())},
        "sizes": {index: file_size(f"{root}/{os.fsdecode(names[index])}") for index in sorted(few)},
        "nowhere": [index for index, name in enumerate(names) if name in nowhere] if nowhere else [],
    }
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing_whole(path) as temporary, temporary.open("wb") as opened:
        np.savez(
            opened,
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
            names=np.frombuffer(b"".join(names), np.uint8),
            ends=np.cumsum([len(name) for name in names], dtype=np.int64),
        )
