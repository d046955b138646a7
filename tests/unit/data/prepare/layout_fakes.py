"""Tiny images and the owners' layouts of the data sets, with the irregularities that their archives have."""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """A smooth random colour image, so that two seeds look different and a re-encoded one alike."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def put(path: Path, seed: int, size: tuple[int, int] = (40, 40)) -> None:
    """Writes a picture in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def rafdb(root: Path, label_file: str = "list_patition_label.txt") -> Path:
    """Typo'd label file without a last newline, 5 and 4 digits, a missing image and three dirty lines."""
    lines = [
        "train_00001.jpg 5", "train_00002.jpg 1", "train_12271.jpg 7", "train_00003.jpg 2",
        "test_0001.jpg 4", "test_3068.jpg 6", "train_00006.jpg 2",
        "", "train_00004.jpg", "train_00005.jpg x", "other_00001.jpg 3", "test_0002.jpg 3",
    ]  # fmt: skip
    text(root / "EmoLabel" / label_file, "\n".join(lines))
    names = ["train_00001", "train_00002", "train_12271", "test_0001", "test_3068", "test_0002", "train_00006"]
    for seed, name in enumerate(names):  # train_00003 is missing
        put(root / "Image" / "aligned" / f"{name}_aligned.jpg", seed, (100, 100))
        put(root / "Image" / "original" / f"{name}.jpg", 50 + seed, (60, 50))
    return root


RAFDB = {
    "train/sadness/train_00001_aligned.jpg", "train/surprise/train_00002_aligned.jpg",
    "train/neutral/train_12271_aligned.jpg", "val/happiness/test_0001_aligned.jpg",
    "val/anger/test_3068_aligned.jpg", "val/disgust/test_0002_aligned.jpg", "train/fear/train_00006_aligned.jpg",
}  # fmt: skip


def affectnet_newer(root: Path) -> Path:
    """All eleven labels as texts and numbers, a missing annotation, a damaged one, and one without an image."""
    labels = {"train_set": list(range(11)), "val_set": [7, 0, 3]}
    for folder, numbers in labels.items():
        (root / folder / "annotations").mkdir(parents=True)
        for place, number in enumerate(numbers):
            put(root / folder / "images" / f"{place}.jpg", 100 + place)
            value = np.array(str(number)) if place % 2 else np.array(number)
            np.save(root / folder / "annotations" / f"{place}_exp.npy", value)
            for other, size in (("lnd", 136), ("val", 1), ("aro", 1)):  # not needed, and not to be taken for labels
                np.save(root / folder / "annotations" / f"{place}_{other}.npy", np.zeros(size))
    put(root / "train_set" / "images" / "900.jpg", 200)
    put(root / "train_set" / "images" / "901.jpg", 201)
    (root / "train_set" / "annotations" / "901_exp.npy").write_bytes(b"")
    np.save(root / "train_set" / "annotations" / "902_exp.npy", np.array("1"))
    (root / "train_set" / "images" / "readme.txt").write_bytes(b"x")
    return root


AFFECTNET_NEWER = {
    "train/neutral/0.jpg", "train/happiness/1.jpg", "train/sadness/2.jpg", "train/surprise/3.jpg", "train/fear/4.jpg",
    "train/disgust/5.jpg", "train/anger/6.jpg", "train/contempt/7.jpg",
    "val/contempt/0.jpg", "val/neutral/1.jpg", "val/surprise/2.jpg",
}  # fmt: skip

VOTE_COLUMNS = "neutral happiness surprise sadness anger disgust fear contempt unknown NF"
OLDER_COLUMNS = "subDirectory_filePath face_x face_y face_width face_height facial_landmarks expression valence arousal"


def affectnet_older(root: Path, deeper: bool = False) -> Path:
    """Pictures of several sizes, one a level deeper by choice; dirty rows, missing files, negative widths, no header."""
    images = root / "Manually_Annotated_Images" / ("Manually_Annotated_Images" if deeper else "")
    for name, seed, size in [("1/a.jpg", 1, (80, 60)), ("1/b.JPG", 2, (50, 90)), ("2/c.png", 3, (64, 64)),
                             ("2/d.jpg", 4, (700, 500)), ("3/e.jpg", 5, (40, 40))]:  # fmt: skip
        put(images / name, seed, size)
    (images / "3" / "broken.jpg").write_bytes(b"not an image")
    marks = "1.0;2.0;3.0;4.0"
    train = [
        ["1/a.jpg", 10, 10, 40, 30, marks, 1, 0.1, 0.2],
        ["1/b.JPG", 5, 5, 40, 40, marks, 6, 0.1, 0.2],
        ["2/d.jpg", 100, 50, 400, 400, marks, 7, 0.1, 0.2],
        ["3/e.jpg", -4, -4, -1, -1, marks, 0, 0.1, 0.2],  # negative width
        ["3/e.jpg", "NULL", "NULL", "NULL", "NULL", "", 10, -2, -2],  # no face, no box
        ["3/gone.jpg", 0, 0, 10, 10, marks, 2, 0, 0],  # missing file
        ["3/broken.jpg", 0, 0, 10, 10, marks, 2, 0, 0],  # not an image
        ["3/e.jpg", 100, 100, 10, 10, marks, 4, 0, 0],  # box outside of the image
        ["3/e.jpg", 0, 0, 10, 10, marks, "happy", 0, 0],  # dirty
        ["3/e.jpg", "x", 0, 10, 10, marks, 1, 0, 0],  # dirty
        ["1/a.jpg", 10, 10, 40, 30],  # cut off
        ["../../secret.jpg", 0, 0, 10, 10, marks, 1, 0, 0],  # out of the folder
        ["1/a.jpg", 10, 10, 40, 30, marks, 1, 0.1, 0.2],  # twice
    ]
    _write_csv(root / "Manually_Annotated_file_lists" / "training.csv", [OLDER_COLUMNS.split(), *train])
    validation = [["2/c.png", 0, 0, 64, 64, marks, 3, 0, 0]]
    _write_csv(root / "Manually_Annotated_file_lists" / "validation.csv", validation)  # no header
    return root


AFFECTNET_OLDER = {
    "train/happiness/1_a.jpg", "train/anger/1_b.jpg", "train/contempt/2_d.jpg", "val/surprise/2_c.jpg",
}  # fmt: skip

# (usage, image name, ten votes: neutral happiness surprise sadness anger disgust fear contempt unknown NF)
VOTE_ROWS = [
    ("Training", "fer0000000.png", (6, 0, 0, 1, 3, 0, 0, 0, 0, 0)),  # 6 of 9: neutral
    ("Training", "fer0000001.png", (5, 5, 0, 0, 0, 0, 0, 0, 0, 0)),  # tie: argmax only, the first
    ("Training", "", (0, 0, 0, 0, 0, 0, 0, 0, 0, 10)),  # not a face
    ("Training", "fer0000003.png", (0, 5, 1, 1, 1, 1, 0, 0, 0, 0)),  # 9 votes; singles dropped, 5 of 5
    ("Training", "fer0000004.png", (0, 0, 0, 0, 3, 0, 0, 0, 7, 0)),  # unknown: argmax only
    ("PublicTest", "fer0000005.png", (0, 0, 10, 0, 0, 0, 0, 0, 0, 0)),
    ("PrivateTest", "fer0000006.png", (0, 0, 0, 0, 0, 0, 0, 8, 2, 0)),
    ("PrivateTest", "fer0000007.png", (0, 0, 0, 4, 0, 0, 4, 0, 0, 2)),  # no majority
]
FERPLUS_MAJORITY = {
    "train/neutral/fer0000000.png", "train/happiness/fer0000003.png", "val/contempt/fer0000006.png",
}  # fmt: skip
FERPLUS_ARGMAX_VALID = {
    "train/neutral/fer0000000.png", "train/neutral/fer0000001.png", "train/happiness/fer0000003.png",
    "train/anger/fer0000004.png", "val/surprise/fer0000005.png",
}  # fmt: skip


def grey(seed: int) -> np.ndarray:
    return np.asarray(picture(seed, (48, 48)).convert("L"))


def ferplus_csv(root: Path) -> Path:
    images = [["emotion", "pixels", "Usage"]]
    votes = [["Usage", "Image name", *VOTE_COLUMNS.split()]]
    for seed, (usage, name, row) in enumerate(VOTE_ROWS):
        images.append(["0", " ".join(map(str, grey(seed).ravel())), usage])
        votes.append([usage, name, *row])
    _write_csv(root / "fer2013.csv", images)
    _write_csv(root / "fer2013new.csv", votes)
    return root


def ferplus_folders(root: Path) -> Path:
    parts = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
    for usage, folder in parts.items():
        rows = [[name, "(0, 0, 48, 48)", *row] for at, name, row in VOTE_ROWS if at == usage]
        _write_csv(root / folder / "label.csv", rows)
    for seed, (usage, name, _) in enumerate(VOTE_ROWS):
        if name:
            Image.fromarray(grey(seed)).save(root / parts[usage] / name)
    return root


SFEW_FOLDERS = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
SFEW_CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


def sfew(root: Path, aligned: bool) -> Path:
    """One image a class; `same.png` in two of them; a file that is no image."""
    for part in ("Train", "Val"):
        base = root / part / f"{part}_Aligned_Faces" if aligned else root / part
        for seed, folder in enumerate(SFEW_FOLDERS):
            put(base / folder / f"{part}_{seed}.png", seed + 10 * len(part), (43, 54))
    base = root / "Train" / "Train_Aligned_Faces" if aligned else root / "Train"
    put(base / "Happy" / "same.png", 300)
    put(base / "Sad" / "same.png", 301)
    (base / "Sad" / "readme.txt").write_bytes(b"x")
    return root


SFEW = {f"{p.lower()}/{c}/{p}_{i}.png" for p in ("Train", "Val") for i, c in enumerate(SFEW_CLASSES)} | {
    "train/happiness/same.png", "train/sadness/same.png",
}  # fmt: skip


def _write_csv(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def tree(out: Path, *folders: str) -> set[str]:
    """The files below the given folders of `out`, relative to it."""
    return {p.relative_to(out).as_posix() for f in folders for p in (out / f).rglob("*") if p.is_file()}
