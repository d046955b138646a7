"""The owners' layouts as people have them: other folders around, other lists, half of it elsewhere, and litter."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import layout_fakes as fakes
import numpy as np


def litter(root: Path) -> None:
    """What systems leave in every folder of images, and the shadow that macOS archives bring."""
    for folder in sorted({path.parent for path in root.rglob("*") if path.is_file()}):
        inner = folder.relative_to(root)
        shadow = root / "__MACOSX" / inner
        shadow.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            (shadow / f"._{path.name}").write_bytes(b"\0\5\26\7")
        (folder / f"._{sorted(folder.iterdir())[0].name}").write_bytes(b"\0\5\26\7")
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (folder / "Thumbs.db").write_bytes(b"x")


def move(root: Path, name: str, target: str) -> None:
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(root / name, root / target)


def moved(make: Callable[[Path], Path], *moves: tuple[str, str]) -> Callable[[Path], Path]:
    """A layout with some of its files or folders elsewhere."""

    def build(root: Path) -> Path:
        make(root)
        for name, target in moves:
            move(root, name, target)
        return root

    return build


def rewritten(make: Callable[[Path], Path], names: str, change: Callable[[str], str], encoding="utf-8"):
    """A layout whose lists (a pattern) have another text."""

    def build(root: Path) -> Path:
        make(root)
        for path in root.rglob(names):
            path.write_bytes(change(path.read_text(encoding="utf-8")).encode(encoding))
        return root

    return build


def newer_decimals(root: Path) -> Path:
    """Labels as texts such as 3.0."""
    fakes.affectnet_newer(root)
    for path in root.rglob("*_exp.npy"):
        if path.stat().st_size:
            np.save(path, np.array(str(float(np.load(path)))))
    return root


def ferplus_repository(root: Path, with_labels: bool) -> Path:
    """The owners' repository once its images are there: fer2013new.csv at the root, the folders in data/."""
    fakes.ferplus_folders(root / "data")
    fakes.ferplus_csv(root)
    (root / "fer2013.csv").unlink()
    for path in () if with_labels else (root / "data").rglob("label.csv"):
        path.unlink()
    fakes.text(root / "src/train.py", "")
    return root


def ferplus_clone_with_pixels(root: Path) -> Path:
    """The repository as it is cloned (lists without images), with FER2013 unpacked beside it."""
    ferplus_repository(root / "FERPlus-master", True)
    for path in root.rglob("*.png"):
        path.unlink()
    fakes.ferplus_csv(root / "other")
    move(root, "other/fer2013.csv", "fer2013/fer2013/fer2013.csv")
    shutil.rmtree(root / "other")
    return root


def rafdb_with_compound(root: Path) -> Path:
    fakes.rafdb(root / "basic")
    fakes.text(root / "compound/EmoLabel/list_patition_label.txt", "train_0001.jpg 11\n")
    return root


def upper_endings(root: Path) -> Path:
    fakes.rafdb(root)
    for path in root.rglob("*.jpg"):
        path.rename(path.with_suffix(".JPG"))
    return root


def sfew_aligned_beside(root: Path) -> Path:
    """The archives of the aligned faces, unpacked without the folders Train and Val."""
    fakes.sfew(root, aligned=True)
    for part in ("Train", "Val"):
        move(root, f"{part}/{part}_Aligned_Faces", f"{part}_Aligned_Faces")
        (root / part).rmdir()
    return root


def sfew_lower(root: Path) -> Path:
    fakes.sfew(root, aligned=False)
    for part in ("Train", "Val"):
        for path in sorted((root / part).iterdir()):
            path.rename(path.with_name(path.name.lower()))
        (root / part).rename(root / part.upper())
    return root


def columns(order: str) -> Callable[[str], str]:
    """Turns the list of AffectNet's older release into one with a header, these columns in this order, and row numbers."""

    def change(text: str) -> str:
        rows = [line.split(",") for line in text.splitlines()]
        names = fakes.OLDER_COLUMNS.split()
        rows = rows if rows[0] == names else [names, *rows]
        picked = [[row[names.index(name)] if len(row) == len(names) else "" for name in order.split()] for row in rows]
        return "".join(f"{'' if n == 0 else n - 1},{','.join(row)}\n" for n, row in enumerate(picked))

    return change


def numbered(text: str) -> str:
    return "".join(f"{number},{line}\n" for number, line in enumerate(text.splitlines()))


def semicolons(text: str) -> str:
    quoted = (",".join(f'"{cell}"' if ";" in cell else cell for cell in line.split(",")) for line in text.splitlines())
    return "\n".join(line.replace(",", ";") for line in quoted)


OLDER = (["affectnet", "--margin", "0"], fakes.AFFECTNET_OLDER)
NEWER = (["affectnet"], fakes.AFFECTNET_NEWER)
RAFDB = (["rafdb"], fakes.RAFDB)
FERPLUS = (["ferplus"], fakes.FERPLUS_MAJORITY)
SFEW = (["sfew"], fakes.SFEW)
ORDER = "arousal valence expression face_height face_width face_y face_x subDirectory_filePath"  # without landmarks
UPPER = {name.replace(".jpg", ".JPG") for name in fakes.RAFDB}
LISTS, IMAGES = "Manually_Annotated_file_lists", "Manually_Annotated_Images"

VARIANTS: dict[str, tuple[Callable[[Path], Path], list[str], set[str]]] = {
    "rafdb, two folders around": (lambda root: fakes.rafdb(root / "RAF-DB/basic") and root, *RAFDB),
    "rafdb, beside compound": (rafdb_with_compound, *RAFDB),
    "rafdb, doubled folder": (moved(fakes.rafdb, ("Image/aligned", "Image/a"), ("Image/a", "Image/aligned/aligned")), *RAFDB),
    "rafdb, without its folders": (
        moved(fakes.rafdb, ("EmoLabel/list_patition_label.txt", "list_patition_label.txt"), ("Image/aligned", "aligned")),
        *RAFDB,
    ),
    "rafdb, endings in capitals": (upper_endings, RAFDB[0], UPPER),
    "rafdb, commas": (rewritten(fakes.rafdb, "list*", lambda t: t.replace(" ", ",")), *RAFDB),
    "rafdb, tabs, CR": (rewritten(fakes.rafdb, "list*", lambda t: t.replace(" ", "\t").replace("\n", "\r")), *RAFDB),
    "rafdb, BOM, CRLF": (rewritten(fakes.rafdb, "list*", lambda t: t.replace("\n", "\r\n"), "utf-8-sig"), *RAFDB),
    "rafdb, Windows paths": (
        rewritten(fakes.rafdb, "list*", lambda t: t.replace("t", "D:\\raf\\Image\\aligned\\t", 1)), *RAFDB
    ),
    "rafdb, names of aligned": (
        rewritten(fakes.rafdb, "list*", lambda t: t.replace(".jpg", "_aligned.jpg")), *RAFDB
    ),
    "affectnet newer, a folder more": (
        moved(fakes.affectnet_newer, *((f"{s}/{f}", f"{s}/{s}/{f}") for s in ("val_set",) for f in ("images", "annotations"))),
        *NEWER,
    ),
    "affectnet older, lists without their folder": (
        moved(fakes.affectnet_older, *((f"{LISTS}/{name}", name) for name in ("training.csv", "validation.csv"))), *OLDER
    ),
    "affectnet older, semicolons": (rewritten(fakes.affectnet_older, "*.csv", semicolons), *OLDER),
    "affectnet older, tabs": (rewritten(fakes.affectnet_older, "*.csv", lambda t: t.replace(",", "\t")), *OLDER),
    "affectnet older, UTF-16": (rewritten(fakes.affectnet_older, "*.csv", str, "utf-16"), *OLDER),
    "affectnet older, UTF-16 unmarked": (rewritten(fakes.affectnet_older, "*.csv", str, "utf-16-le"), *OLDER),
    "affectnet older, other columns": (rewritten(fakes.affectnet_older, "*.csv", columns(ORDER)), *OLDER),
    "affectnet older, paths of elsewhere": (
        rewritten(fakes.affectnet_older, "*.csv", lambda t: t.replace("\n1/", f"\nD:\\x\\{IMAGES}\\1\\")), *OLDER
    ),
    "affectnet older, zeros at the end": (rewritten(fakes.affectnet_older, "*.csv", lambda t: t + "\0" * 512), *OLDER),
    "affectnet older, a stray quote": (
        rewritten(fakes.affectnet_older, "*.csv", lambda t: t.replace("\n", '\n3/e.jpg,"0,0\n', 1)), *OLDER
    ),
    "affectnet older, decimals": (
        rewritten(fakes.affectnet_older, "*.csv", lambda t: re.sub(r",(\d+),0(\.1|,0|,)", r",\1.0,0\2", t)), *OLDER
    ),
    "affectnet newer, decimals": (newer_decimals, *NEWER),
    "ferplus, the repository": (lambda root: ferplus_repository(root, True), *FERPLUS),
    "ferplus, the repository without label.csv": (lambda root: ferplus_repository(root, False), *FERPLUS),
    "ferplus, the clone and fer2013.csv elsewhere": (ferplus_clone_with_pixels, *FERPLUS),
    "ferplus, row numbers without a header": (rewritten(fakes.ferplus_folders, "label.csv", numbered), *FERPLUS),
    "ferplus, empty rows at the end": (rewritten(fakes.ferplus_csv, "*.csv", lambda t: t + ",,\n\n"), *FERPLUS),
    "ferplus, Latin-1 beside": (
        rewritten(fakes.ferplus_csv, "*.csv", lambda t: t.replace("emotion,", "\xe9motion,"), "latin-1"), *FERPLUS
    ),
    "ferplus, other columns": (
        rewritten(
            fakes.ferplus_csv, "fer2013.csv", lambda t: "\n".join(", ".join(x.split(",")[::-1]) for x in t.split("\n") if x)
        ),
        *FERPLUS,
    ),
    "sfew, aligned faces unpacked beside": (sfew_aligned_beside, *SFEW),
    "sfew, small folders, capital parts": (sfew_lower, *SFEW),
    "sfew, doubled folder": (
        moved(lambda root: fakes.sfew(root, False), ("Train", "T"), ("T", "Train/Train")), *SFEW
    ),
}  # fmt: skip
