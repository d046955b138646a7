"""300-W, 300-VW and WFLW as their owners lay them out, with faces that are a dot at the tip of the chin."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

CHIN = {68: 8, 98: 16}


def face(count: int, left: float, top: float, side: float, seed: int = 0) -> np.ndarray:
    """Points [count, 2] in a square, first pixel's outer corner (0, 0): eyes above the chin, left eye on the left."""
    points = np.random.default_rng(seed).uniform(0.1, 0.9, (count, 2))
    eyes = {68: (36, 45), 98: (60, 72)}[count]
    points[[*eyes, CHIN[count]]] = ((0.1, 0.3), (0.9, 0.3), (0.5, 0.9))
    points[0], points[1] = (0, 0), (1, 1)  # the box around the points is the square
    return (points * side + (left, top)).astype(np.float32)


def photograph(path: Path, points: np.ndarray, size: tuple[int, int] = (300, 200)) -> None:
    """Grey, with a white disc around the chin."""
    image = Image.new("RGB", size, (60, 60, 60))
    x, y = points[CHIN[len(points)]].tolist()
    ImageDraw.Draw(image).ellipse((x - 5, y - 5, x + 5, y + 5), fill="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)


def w300(root: Path) -> Path:
    """A face or two in each part, one beyond the border; a mirrored copy, one without points, one with a point less."""
    parts = ("afw", "helen/trainset", "lfpw/trainset", "helen/testset", "lfpw/testset", "ibug")
    for number, part in enumerate(parts):
        for name, left in (("a_1", 100), ("b_1", -20)):
            points, path = face(68, left, 40, 100, number), root / part / f"{name}.{'png' if 'lfpw' in part else 'jpg'}"
            photograph(path, points)
            write_pts(path.with_suffix(".pts"), points)
    photograph(root / "afw" / "a_1_mirror.jpg", face(68, 100, 40, 100))
    photograph(root / "ibug" / "alone.jpg", face(68, 100, 40, 100))
    text = (root / "ibug" / "a_1.pts").read_text()
    (root / "ibug" / "b_1.pts").write_text(text.replace("68", "67"))
    return root


W300 = {f"train/{part}/{name}.jpg" for part in ("afw", "helen", "lfpw") for name in ("a_1", "b_1")} | {
    "val/helen/a_1.jpg", "val/helen/b_1.jpg", "val/lfpw/a_1.jpg", "val/lfpw/b_1.jpg", "val/ibug/a_1.jpg"
}  # fmt: skip


def w300vw(root: Path) -> Path:
    """A video of train and one of each category; a frame without points, points without a frame; 203 is a video file."""
    for number, video in enumerate(("001", "114", "203", "410")):
        for frame in (1, 2, 3):
            points = face(68, 60 + 10 * frame, 40, 100, number)
            place = "frames" if video == "001" else "."
            photograph(root / video / place / f"{frame:06d}.png", points)
            write_pts(root / video / "annot" / f"{frame:06d}.pts", points)
    (root / "001" / "annot" / "000003.pts").unlink()
    (root / "114" / "000003.png").unlink()
    write_video(root / "203")
    return root


def write_video(folder: Path) -> None:
    """The frames of a folder as its vid.avi, in their place."""
    cv2 = pytest.importorskip("cv2")
    frames = sorted(folder.glob("*.png"))
    writer = cv2.VideoWriter(str(folder / "vid.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 30, (300, 200))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for frame in frames:
        writer.write(cv2.imread(str(frame)))
        frame.unlink()
    writer.release()


W300VW = {f"train/001/00000{i}.jpg" for i in (1, 2)} | {f"val/114/00000{i}.jpg" for i in (1, 2)} | {
    f"val/{video}/00000{i}.jpg" for video in ("203", "410") for i in (1, 2, 3)
}  # fmt: skip


def write_pts(path: Path, points: np.ndarray) -> None:
    """As the owners write them: the first pixel's centre counts as (1, 1)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "\n".join(f"{x + 0.5:.4f} {y + 0.5:.4f}" for x, y in points)
    path.write_text(f"version: 1\nn_points:  68\n{{\n{body}\n}}\n")


def wflw(root: Path) -> Path:
    """Two faces in one photograph, a dirty row, a missing photograph."""
    lists = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    lists.mkdir(parents=True)

    def row(points: np.ndarray, attributes: str, name: str) -> str:
        box = [*points.min(0), *points.max(0)]
        return " ".join(f"{value:.4f}" for value in [*(points - 0.5).ravel(), *box]) + f" {attributes} {name}"

    one, other = face(98, 20, 40, 90, 1), face(98, 150, 60, 100, 2)
    photograph(root / "WFLW_images" / "0--Parade" / "x.jpg", one)
    photograph(root / "WFLW_images" / "0--Parade" / "y.jpg", other)
    train = [row(one, "0 0 0 0 0 0", "0--Parade/x.jpg"), row(other, "0 0 0 0 0 0", "0--Parade/x.jpg"), "1 2 3 x.jpg"]
    val = [row(other, "1 0 0 0 0 1", "0--Parade/y.jpg"), row(one, "0 0 0 0 0 0", "0--Parade/gone.jpg")]
    (lists / "list_98pt_rect_attr_train.txt").write_text("\n".join(train) + "\n")
    (lists / "list_98pt_rect_attr_test.txt").write_text("\n".join(val))
    return root
