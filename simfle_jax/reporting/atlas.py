"""Pictures of masks and reconstructions, put together from small ones."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from simfle_jax.evaluation.looking import Look, best_patches

GAP = 3  # pixels between two pictures
HEAD = 18  # pixels of a line of text
HIDDEN = 0.22  # how bright a hidden patch is shown


def sheet(cells: Sequence[Sequence[np.ndarray]], heads: Sequence[str], names: Sequence[str], side: int) -> Image.Image:
    """Rows of pictures, float [h, w, 3] in 0..1, enlarged to `side`; `heads` above the columns, `names` before the rows."""
    font = ImageFont.load_default(12)
    left = max((int(font.getlength(name)) + 2 * GAP for name in names if name), default=0)
    head_room = HEAD if any(heads) else 0
    size = (left + len(heads) * (side + GAP), head_room + len(cells) * (side + GAP))
    whole = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(whole)
    for column, head in enumerate(heads):
        pen.text((left + column * (side + GAP), 2), head, fill="black", font=font)
    for row, (pictures, name) in enumerate(zip(cells, names, strict=True)):
        top = head_room + row * (side + GAP)
        pen.text((GAP, top + side // 2 - 8), name, fill="black", font=font)
        for column, found in enumerate(pictures):
            whole.paste(enlarged(found, side), (left + column * (side + GAP), top))
    return whole


def enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """Float [h, w, 3] in 0..1 as an image of `side` pixels."""
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
    return image.resize((side, side), Image.Resampling.BICUBIC)


def masked(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The image [P, P, 3] with all patches dimmed that are not kept, bool [N]."""
    return image * np.where(per_pixel(kept, len(image)), 1.0, HIDDEN)[..., None]


def heat(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Values [N] of the patches as colours (dark: least, yellow: most) over the grey image [P, P, 3]."""
    from matplotlib import colormaps

    low, high = values.min(), values.max()
    shares = (values - low) / max(high - low, 1e-12)
    grid = round(len(values) ** 0.5)
    smooth = Image.fromarray(shares.reshape(grid, grid).astype(np.float32))
    large = np.asarray(smooth.resize((len(image), len(image)), Image.Resampling.BILINEAR))
    return 0.65 * colormaps["inferno"](np.clip(large, 0, 1))[..., :3] + 0.35 * image.mean(-1, keepdims=True)


def per_pixel(values: np.ndarray, side: int) -> np.ndarray:
    """Values [N] of patches in a square grid to [side, side]."""
    grid = round(len(values) ** 0.5)
    return np.kron(values.reshape(grid, grid), np.ones((side // grid, side // grid), values.dtype))


def mask_atlas(seen: Look, side: int = 56, groups: int = 32) -> Image.Image:
    """What each group keeps: a row for each image, a column for each group; hidden patches are dark.

    With random masking there are no groups: the one mask that was drawn is shown.
    """
    if seen.scores is None:
        cells = [[image, masked(image, kept)] for image, kept in zip(seen.images, seen.kept)]
        return sheet(cells, ["input", "random"], [""] * len(cells), side)
    best = best_patches(seen.scores, int(seen.kept[0].sum()))[:, :groups]
    cells = [[image, *(masked(image, kept) for kept in kepts)] for image, kepts in zip(seen.images, best)]
    return sheet(cells, ["input", *map(str, range(1, best.shape[1] + 1))], [""] * len(cells), side)


def map_atlas(seen: Look, side: int = 56) -> Image.Image:
    """What each group looks at: its scores as colours over each image."""
    assert seen.scores is not None
    cells = [[image, *(heat(values, image) for values in scores)] for image, scores in zip(seen.images, seen.scores)]
    return sheet(cells, ["input", *map(str, range(1, seen.scores.shape[1] + 1))], [""] * len(cells), side)


def all_groups(seen: Look, number: int, side: int = 96, columns: int = 9) -> Image.Image:
    """The masks of all groups on one image, in rows of `columns`."""
    image = seen.images[number]
    if seen.scores is None:
        return sheet([[image, masked(image, seen.kept[number])]], ["input", "random"], [""], side)
    best = best_patches(seen.scores[number], int(seen.kept[0].sum()))
    cells = [image, *(masked(image, kept) for kept in best)]
    names = ["input", *(f"group {group}" for group in range(1, len(best) + 1))]
    return stacked([
        sheet([cells[start : start + columns]], names[start : start + columns], [""], side)
        for start in range(0, len(cells), columns)
    ])  # fmt: skip


def stacked(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other."""
    whole = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return whole


def beside(images: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Pictures side by side, each under its title where there are several."""
    room, font = HEAD + 2 * GAP if len(images) > 1 else 0, ImageFont.load_default(14)
    wide = [max(image.width, int(font.getlength(title)) + 2 * GAP) + 4 * GAP for image, title in zip(images, titles)]
    whole = Image.new("RGB", (sum(wide) - 4 * GAP, room + max(image.height for image in images)), "white")
    pen, left = ImageDraw.Draw(whole), 0
    for image, title, width in zip(images, titles, wide, strict=True):
        if room:
            pen.text((left + GAP, GAP), title, fill="black", font=font)
        whole.paste(image, (left, room))
        left += width
    return whole


def reconstructions(seen: Look, side: int = 72) -> Image.Image:
    """For each image: input, the drawn group's map and kept patches, the reconstruction, and the error of the pixels."""
    cells = []
    for i, image in enumerate(seen.images):
        difference = np.abs(seen.restored[i] - image).mean(-1, keepdims=True)
        drawn = (
            [heat(seen.scores[i, seen.drawn[i]], image)] if seen.scores is not None and seen.drawn is not None else []
        )
        shown = np.repeat(np.clip(difference * 3, 0, 1), 3, axis=-1)
        cells.append([image, *drawn, masked(image, seen.kept[i]), seen.restored[i], shown])
    heads = ["input", *(["map"] if seen.scores is not None else []), "kept", "restored", "error x3"]
    return sheet(cells, heads, [""] * len(cells), side)
