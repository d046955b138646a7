"""What is in a folder of images: counts, damage, copies, leaks between train and val, and the statistics to use."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from simfle_jax.data.bad_list import printable
from simfle_jax.data.prepare.duplicates import exact_groups, mirrored_groups, near_groups
from simfle_jax.data.prepare.scan import CANVAS, Facts, scan
from simfle_jax.data.read_back import parse_json
from simfle_jax.errors import UserError

SHOWN = 20  # lines of a list in the table; the JSON holds all


def check(folder: Path) -> dict:
    """Examines a folder (train/ and val/ with class folders, class folders alone, or images) and returns the report.

    Paths are relative to the folder. `mean` and `std` (RGB in [0, 1]) are those of the train images where there is
    a train/, at 128 pixels. Raises UserError when the folder has no image.
    """
    found = scan(folder)
    good = [facts for facts in found if not facts.bad]
    exact = [[good[place] for place in group] for group in exact_groups([facts.digest for facts in good])]
    near, mirrored = (_copies(good, exact, find) for find in (near_groups, mirrored_groups))
    mean, std = mean_and_std([facts for facts in good if facts.split != "val"])
    counts = _counts(good)
    return {
        "folder": str(folder),
        "images": len(found),
        "bytes": sum(facts.size for facts in found),
        "counts": counts,
        "balance": {split: _balance(classes) for split, classes in counts.items()},
        "classes_in_one_split_only": _one_split_only(counts),
        "sizes": _sizes(good),
        "modes": _tally(facts.mode for facts in good),
        "formats": _tally(facts.format for facts in good),
        "unreadable": [{"path": facts.path, "reason": facts.bad} for facts in found if facts.bad],
        "without_end_marker": [facts.path for facts in good if facts.endless],
        "exact_duplicates": [_paths(group) for group in exact],
        "near_duplicates": [_paths(group) for group in near],
        "mirrored_copies": [_paths(group) for group in mirrored],
        "leaks": [_leak("exact", group) for group in exact if _crosses(group)]
        + [_leak("near", group) for group in near if _crosses(group)]
        + [_leak("mirrored", group) for group in mirrored if _crosses(group)],
        "conflicting_labels": [_paths(group) for group in exact if len({facts.label for facts in group}) > 1],
        "mean": mean,
        "std": std,
        "statistics_at_pixels": CANVAS,
    }


def require_free(path: Path) -> None:
    """Raises UserError unless a report can be written to `path`: a new file, or an earlier report."""
    if not path.parent.is_dir():
        raise UserError(f"no folder {path.parent} for the report: make it or give another --json FILE")
    if path.exists() and not path.is_char_device() and not _is_report(path):
        raise UserError(f"{path} exists and is no report of a check: give another --json FILE")


def _is_report(path: Path) -> bool:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "near_duplicates" in content


def save(report: dict, path: Path) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def mean_and_std(images: list[Facts]) -> tuple[list[float] | None, list[float] | None]:
    """Mean and standard deviation of all pixels, per channel; None without an image."""
    if not images:
        return None, None
    total, squares = np.sum([facts.sums for facts in images if facts.sums is not None], axis=0)
    pixels = CANVAS * CANVAS * len(images)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    return [round(float(x), 4) for x in mean], [round(float(x), 4) for x in std]


def table(report: dict) -> str:
    """The report on a screen."""
    lines = [f"{report['folder']}: {report['images']:,} images, {report['bytes'] / 1e6:,.1f} MB"]
    for split, classes in report["counts"].items():
        lines += [f"  {'/'.join(filter(None, (split, label))) or '.':<26}{n:>9,}" for label, n in classes.items()]
        if report["balance"][split]:
            lines.append(f"  {split or 'all'}: the largest class is {report['balance'][split]} times the smallest")
    for label in report["classes_in_one_split_only"]:
        lines.append(f"  class {label} is not in both splits")
    lines += _size_lines(report["sizes"])
    lines.append(f"  modes {_told(report['modes'])}; formats {_told(report['formats'])}")
    lines += _listed("unreadable", [f"{entry['path']}: {entry['reason']}" for entry in report["unreadable"]])
    lines += _listed("JPEGs used without their end marker", report["without_end_marker"])
    for key in ("exact_duplicates", "near_duplicates", "mirrored_copies", "conflicting_labels"):
        lines.append(f"  {key.replace('_', ' ')}: {len(report[key])} groups, {sum(map(len, report[key]))} images")
    if not {"train", "val"} <= report["counts"].keys():
        lines.append("  leaks between train and val: not looked for, there are not both")
    leaks = [f"{leak['kind']}: {leak['train'][0]} = {leak['val'][0]}" for leak in report["leaks"]]
    lines += _listed("leaks between train and val", leaks) if leaks or len(report["counts"]) > 1 else []
    if report["mean"]:
        lines.append(f"  mean {tuple(report['mean'])}  std {tuple(report['std'])}")
    return "\n".join(map(printable, lines))


def _copies(
    good: list[Facts], exact: list[list[Facts]], find: Callable[[np.ndarray], list[list[int]]]
) -> list[list[Facts]]:
    """Groups that `find` sees in the thumbnails, each with the exact copies of its members."""
    copies = {facts.digest: group for group in exact for facts in group}
    single = list({facts.digest: facts for facts in good}.values())
    if not single:
        return []
    groups = find(np.stack([facts.thumbnail for facts in single if facts.thumbnail is not None]))
    return [[copy for place in group for copy in copies.get(single[place].digest, [single[place]])] for group in groups]


def _counts(good: list[Facts]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for (split, label), number in sorted(Counter((facts.split, facts.label) for facts in good).items()):
        counts[split][label] = number
    return dict(counts)


def _balance(classes: dict[str, int]) -> float | None:
    return round(max(classes.values()) / min(classes.values()), 2) if len(classes) > 1 else None


def _one_split_only(counts: dict[str, dict[str, int]]) -> list[str]:
    return sorted(set(counts["train"]) ^ set(counts["val"])) if {"train", "val"} <= counts.keys() else []


def _sizes(good: list[Facts]) -> dict:
    if not good:
        return {}
    widths, heights = [facts.width for facts in good], [facts.height for facts in good]
    common = Counter(f"{facts.width}x{facts.height}" for facts in good).most_common(5)
    return {
        "width": {"min": min(widths), "median": float(np.median(widths)), "max": max(widths)},
        "height": {"min": min(heights), "median": float(np.median(heights)), "max": max(heights)},
        "most_common": dict(common),
    }


def _size_lines(sizes: dict) -> list[str]:
    if not sizes:
        return []
    ranges = (f"{side} {s['min']}-{s['max']} (median {s['median']:g})" for side, s in list(sizes.items())[:2])
    return [f"  {', '.join(ranges)}; most are {', '.join(sizes['most_common'])}"]


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _told(tally: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in tally.items()) or "none"


def _listed(title: str, entries: list[str]) -> list[str]:
    lines = [f"  {title}: {len(entries)}"] + [f"    {entry}" for entry in entries[:SHOWN]]
    return lines + ([f"    and {len(entries) - SHOWN} more in the JSON"] if len(entries) > SHOWN else [])


def _paths(group: list[Facts]) -> list[str]:
    return sorted(facts.path for facts in group)


def _crosses(group: list[Facts]) -> bool:
    return {"train", "val"} <= {facts.split for facts in group}


def _leak(kind: str, group: list[Facts]) -> dict:
    sides = {split: _paths([facts for facts in group if facts.split == split]) for split in ("train", "val")}
    return {"kind": kind, **sides}
