"""From `data.source` and `data.path` to a source of images."""

from collections.abc import Iterable

from simfle_jax.data.photographs.crop import NOT_ALIGNED, crop_of
from simfle_jax.data.sources import FolderSource, Source
from simfle_jax.errors import UserError
from simfle_jax.storage import is_bucket, refuse_bucket


def open_source(source: str, path: str, labelled: bool = False, split: str | None = None, listing: str = "") -> Source:
    """Opens the data set that `data.source` and `data.path` name.

    listing: of a folder without labels, the file that keeps its names; '' for none.

    Raises:
        UserError: no such kind of source, or the data are not there or not laid out as it needs.
    """
    # The other kinds are imported when they are asked for: not everybody needs the packages behind them.
    if source == "folder" and is_bucket(path):
        return _in_bucket(path, labelled, split, listing)
    if source == "folder":
        return FolderSource(path, labelled, split, listing)
    if source == "array_record":
        from simfle_jax.data.array_record import ArrayRecordSource

        return ArrayRecordSource(path, labelled, split)
    refuse_bucket(path, "data.path")
    if source.startswith("tfds:"):
        from simfle_jax.data.tfds_source import TfdsSource

        return TfdsSource(source.removeprefix("tfds:"), path, labelled, split)
    raise UserError(
        f"data.source={source!r} is none of folder, array_record, tfds:NAME[/CONFIG][:SPLIT]; docs/data.md tells more"
    )


def crop_told(places: Iterable[tuple[str, str]]) -> str:
    """How the images of some data sets, each a `data.source` and a `data.path`, were cropped to the face.

    It is as prepared folders, packs and data sets of TFDS that were built of them tell; NOT_ALIGNED where none does.

    Raises:
        UserError: a bucket cannot be reached, or TFDS has no such data set.
    """
    return ", ".join(sorted({_crop_told(source, path) for source, path in places})) or NOT_ALIGNED


def _crop_told(source: str, path: str) -> str:
    if not source.startswith("tfds:"):
        return crop_of(path)
    from simfle_jax.data.tfds_source import TfdsSource

    return TfdsSource(source.removeprefix("tfds:"), path).crop


def _in_bucket(path: str, labelled: bool, split: str | None, listing: str) -> Source:
    """A pack, or a folder of images, of which this machine has a copy."""
    from simfle_jax.data.array_record import ArrayRecordSource
    from simfle_jax.data.bucket_images import copy_at_hand

    folder, is_pack = copy_at_hand(path)
    try:
        if is_pack:
            return ArrayRecordSource(folder, labelled, split)
        return FolderSource(folder, labelled, split, listing)
    except UserError as error:
        raise UserError(str(error).replace(folder, path.rstrip("/"))) from None
