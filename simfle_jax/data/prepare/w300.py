"""300-W as its owners (ibug) ship it: photographs with a .pts file of 68 points beside each.

afw/  helen/trainset/  lfpw/trainset/   become train: 337 + 2,000 + 811 faces
helen/testset/  lfpw/testset/           become val, the subset `common`: 330 + 224
ibug/                                   becomes val, the subset `challenging`: 135; all of val is the full set

Faces are cut out by the box around their points, as is usual for this set: the owners' detector's boxes are of other
faces in part. Mirrored copies, which one release has, are left out.
"""

from __future__ import annotations

from pathlib import Path

from simfle_jax.data.files import EXTENSIONS
from simfle_jax.data.prepare import layout
from simfle_jax.data.prepare import plan as plans
from simfle_jax.data.prepare.encode import with_margin
from simfle_jax.data.prepare.plan import Item, Plan, Published
from simfle_jax.data.pts import NotPoints, read_pts

PARTS = (
    ("train", "afw", "afw", ()),
    ("train", "helen", "helen/trainset", ()),
    ("train", "lfpw", "lfpw/trainset", ()),
    ("val", "helen", "helen/testset", ("common",)),
    ("val", "lfpw", "lfpw/testset", ("common",)),
    ("val", "ibug", "ibug", ("challenging",)),
)
PUBLISHED: Published = {
    "train": {"afw": 337, "helen": 2000, "lfpw": 811},
    "val": {"helen": 330, "ibug": 135, "lfpw": 224},
}
POINTS = 68
LAYOUT = "afw/, helen/trainset/, helen/testset/, lfpw/trainset/, lfpw/testset/ and ibug/ with a .pts beside each image"


def plan(source: Path, margin: float = 0.2) -> Plan:
    """Plans 300-W. `margin`: see `with_margin`."""
    root = plans.find_root(source, _is_root, "300w", "helen/testset/ and ibug/", LAYOUT)
    result = Plan("300w", {"margin": margin, "val": "common and challenging"}, PUBLISHED)
    for split, label, place, subsets in PARTS:
        folder = layout.child(root, *place.split("/"))
        if folder is not None and folder.is_dir():
            _add_part(result, split, label, layout.nested(folder), subsets, margin)
    return result


def _is_root(folder: Path) -> bool:
    return bool(layout.child(folder, "helen", "testset") and layout.child(folder, "ibug"))


def _add_part(result: Plan, split: str, label: str, folder: Path, subsets: tuple[str, ...], margin: float) -> None:
    for directory in layout.walk(folder):
        for path in sorted(directory.iterdir()):
            if path.suffix.lower() not in EXTENSIONS or path.name.startswith("."):
                continue
            if path.stem.endswith("_mirror"):
                result.skipped.add("mirrored copy", path.name)
                continue
            add_face(result, split, label, path, path.with_suffix(".pts"), subsets, margin)


def add_face(
    result: Plan,
    split: str,
    label: str,
    image: Path,
    pts: Path,
    subsets: tuple[str, ...],
    margin: float,
    frame: int = 0,
) -> None:
    """Takes the face in an image, cut out by the box around the points of its .pts file; one without is skipped.

    frame: of a video, which `image` then is.
    """
    try:
        points = read_pts(pts, POINTS)
    except (NotPoints, OSError) as error:
        result.skipped.add("points missing or not readable", f"{label}/{pts.name}: {error}")
        return
    (x, y), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    box, name = with_margin((x, y, right - x, bottom - y), margin), f"{pts.stem}.jpg"
    flat = tuple(points.ravel().tolist())
    result.add(Item(split, label, name, path=str(image), box=box, points=flat, subsets=subsets, frame=frame))
