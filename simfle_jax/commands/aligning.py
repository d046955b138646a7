"""--align of several commands: faces instead of whole images, and the crop that an encoder was trained on."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from simfle_jax.errors import UserError

if TYPE_CHECKING:  # imported when it is used, so that --help stays quick
    from simfle_jax.data.image_list import ImageList
    from simfle_jax.data.photographs.finding import FaceList


def add_align(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--align", action="store_true", help="look for faces, and take each with its eyes in place")
    add_detector(parser)


def add_detector(parser: argparse.ArgumentParser) -> None:
    """Where the detector's file is."""
    parser.add_argument("--detector", default="", metavar="FILE", help="the face detector (SIMFLE_FACE_DETECTOR)")


def asked_for(photographs: "ImageList", align: bool, detector: str) -> "tuple[ImageList | FaceList, dict[str, str]]":
    """The images themselves or, with `align`, all faces in them, and by name why some photographs have none.

    Raises:
        UserError: a detector without --align, or none that can be used with it.
    """
    if not align:
        if detector:
            raise UserError("--detector says nothing without --align: leave it out, or give --align")
        return photographs, {}
    from simfle_jax.data.photographs.detector import YuNet
    from simfle_jax.data.photographs.finding import find_faces

    return find_faces(photographs, YuNet(detector))


def warn_of_crop(metadata: Mapping[str, str], images: Iterable[str] | None) -> None:
    """Says once on the error output when an encoder was trained on another crop than it gets.

    images: files and folders, whose preparation may tell their crop; None of faces that are aligned now.
    """
    from simfle_jax.data.photographs.crop import VERSION, crop_of, crop_warning

    if said := crop_warning(metadata.get("crop", ""), VERSION if images is None else crop_of(*images)):
        print(f"warning: {said}", file=sys.stderr)
