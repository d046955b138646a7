"""300-VW as its owners (ibug) ship it: a folder a video, with a .pts file of 68 points for each frame.

001/annot/000001.pts, 001/vid.avi                 50 videos become train
114/annot/..., 203/annot/..., 410/annot/...       the owners' 64 test videos become val, in three categories

Frames are read from the video, or are images, unpacked beforehand into any folder of it (001/frames/000001.jpg) and counted
from 1, as the .pts are. Faces are cut out by the box around their points, as of 300-W.
"""

from __future__ import annotations

from pathlib import Path

from simfle_jax.data.files import is_image
from simfle_jax.data.prepare import layout
from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.plan import Plan
from simfle_jax.data.prepare.w300 import add_face
from simfle_jax.data.pts import ENDING
from simfle_jax.errors import UserError

CATEGORIES = {
    "category1": (114, 124, 125, 126, 150, 158, 401, 402, 505, 506, 507, 508, 509, 510, 511, 514, 515, 518, 519, 520,
                  521, 522, 524, 525, 537, 538, 540, 541, 546, 547, 548),
    "category2": (203, 208, 211, 212, 213, 214, 218, 224, 403, 404, 405, 406, 407, 408, 409, 412, 550, 551, 553),
    "category3": (410, 411, 516, 517, 526, 528, 529, 530, 531, 533, 557, 558, 559, 562),
}  # fmt: skip
VIDEO = "vid.avi"
LAYOUT = f"a folder for each video (001/ to 562/), with {VIDEO} and annot/*{ENDING} in it"


def plan(source: Path, margin: float = 0.2) -> Plan:
    """Plans 300-VW. `margin`: see `with_margin`."""
    root = plans.find_root(source, _videos, "300vw", "folders such as 001/annot/", LAYOUT)
    result = Plan("300vw", {"margin": margin, "val": "categories 1 to 3"})
    for video in _videos(root):
        category = next((name for name, numbers in CATEGORIES.items() if int(video.name) in numbers), "")
        _add_video(result, video, category, margin)
    return result


def _frames(video: Path) -> dict[int, Path]:
    """The images of a video by their numbers; raises UserError where these are not those of the points."""
    frames: dict[int, Path] = {}
    for path in (path for folder in layout.walk(video) for path in sorted(folder.iterdir())):
        if not (is_image(path.name) and path.stem.isdigit()):
            continue
        number = int(path.stem)
        if number == 0:
            raise UserError(f"300vw: {path} is a frame 0, and the points count from 1: number the frames from 1")
        if number in frames:
            raise UserError(f"300vw: {frames[number]} and {path} are one frame: move one of their folders elsewhere")
        frames[number] = path
    return frames


def _videos(folder: Path) -> list[Path]:
    return [inner for inner in layout.subfolders(folder) if inner.name.isdigit() and layout.child(inner, "annot")]


def _add_video(result: Plan, video: Path, category: str, margin: float) -> None:
    annotations = layout.child(video, "annot")
    assert annotations is not None
    frames = _frames(video)
    whole = layout.child(video, VIDEO)
    if not frames and not whole:
        raise UserError(
            f"300vw: {video} holds neither {VIDEO} nor frames: put one of them there, or move its folder aside"
        )
    split, subsets = ("val", (category,)) if category else ("train", ())
    for points in sorted(path for path in annotations.iterdir() if path.suffix.lower() == ENDING):
        number = int(points.stem) if points.stem.isdigit() else 0
        if frames and number not in frames:
            result.skipped.add("frame missing", f"{video.name}/{points.name}")
        elif frames:
            add_face(result, split, video.name, frames[number], points, subsets, margin)
        elif whole and number:
            add_face(result, split, video.name, whole, points, subsets, margin, frame=number)
