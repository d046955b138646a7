"""Loose images in a bucket, in class folders or not: copied once to this machine as packs are, and read from there.

Each image is a request, which packs save. The copy is named by the names of all images and the versions of a few, so that
a start finds out about added, removed and renamed images, and about replaced ones where they are among the few.
"""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from simfle_jax.data.files import is_image, is_service
from simfle_jax.data.packs import find_pack, held_by_us, make_room, write_copy
from simfle_jax.errors import UserError
from simfle_jax.host import digest, holding
from simfle_jax.progress import Progress
from simfle_jax.storage import Bucket, Content, safe_below

SAMPLE = 64  # images whose versions stand for those of all
THREADS = 32  # requests that wait at once


def copy_at_hand(location: str) -> tuple[str, bool]:
    """The folder on this machine of what lies in a bucket, made now where there is none yet, and whether it is a pack.

    Raises:
        UserError: neither a pack nor an image lies there, or the copy cannot be written.
    """
    if folder := find_pack(location):
        return folder, True
    bucket = Bucket(location)
    names = [name for name in bucket.names() if is_image(name) and not any(map(is_service, name.split("/")))]
    if not names:
        raise UserError(
            f"no pack and no image in {location}: check the name; python -m simfle_jax.prepare --pack FOLDER --out "
            f"{location} makes a pack"
        )
    few = [names[int(place)] for place in np.linspace(0, len(names) - 1, min(SAMPLE, len(names)))]
    with ThreadPoolExecutor(THREADS) as pool:
        seen = list(pool.map(bucket.look, few))
    versions = b"\0".join(found.version for found in seen)
    held = held_by_us(digest(b"\0".join([bucket.location.encode(), *map(os.fsencode, names), versions])))
    with holding(held.with_suffix(".filling")):
        _fill(bucket, held.with_suffix(""), names, seen)
    os.utime(held)
    return str(held.with_suffix("")), False


def _fill(bucket: Bucket, folder: Path, names: list[str], seen: list[Content]) -> None:
    """Copies what is missing. Each image is there whole or not at all."""
    missing = [name for name in names if not safe_below(folder, name).exists()]
    if not missing:
        return
    folder.mkdir(exist_ok=True)
    make_room(folder, len(missing) * sum(len(each.data or b"") for each in seen) // len(seen), bucket.location)
    progress = Progress(len(missing), f"copying {bucket.location}, images")

    def bring(name: str) -> None:
        data = bucket.read(name)
        if data is None:
            raise UserError(f"{bucket.location}/{name} was removed meanwhile; start again")
        path = folder / name
        with contextlib.suppress(OSError):  # which the writing then tells of
            path.parent.mkdir(parents=True, exist_ok=True)
        write_copy(path, data)

    with ThreadPoolExecutor(THREADS) as pool:
        for done, _ in enumerate(pool.map(bring, missing), 1):
            progress.update(done)
