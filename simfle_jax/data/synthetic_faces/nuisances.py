"""What the photograph adds to the face: background, occluders, colour cast, brightness, blur, grain."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from simfle_jax.data.synthetic_faces.strengths import Strengths


def background(rng: np.random.Generator, strengths: Strengths, size: int) -> Image.Image:
    """A smooth field of colours with a few shapes, RGB [size, size]; plain grey at strength 0."""
    field = 128 + strengths.background * (rng.uniform(-90, 90, (1, 1, 3)) + rng.uniform(-45, 45, (4, 4, 3)))
    image = Image.fromarray(field.clip(0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    boxes, colours = rng.uniform(-0.3, 1.3, (4, 2)) * size, rng.integers(20, 235, (4, 3)).tolist()
    for centre, half, colour in zip(boxes, rng.uniform(0.05, 0.3, (4, 2)) * size, colours):
        if strengths.background > 0:
            low, high = centre - half, centre + half
            mixed = tuple(int(128 + strengths.background * (c - 128)) for c in colour)
            pen.rectangle([*low.tolist(), *high.tolist()], fill=mixed)
    return image


def occlude(rng: np.random.Generator, strengths: Strengths, image: Image.Image) -> Image.Image:
    """Half the images at strength 1: a bar, a disc or a hand-like shape of skin colour over part of the face."""
    wanted, kind = rng.random() < 0.5 * strengths.occlusion, rng.integers(3)
    centre, reach, colour = rng.uniform(0.05, 0.95, 2), rng.uniform(0.1, 0.2), rng.integers(20, 235, 3)
    angle = rng.uniform(0, np.pi)
    if not wanted:
        return image
    size = image.size[0]
    x, y = centre * size
    pen, r, fill = ImageDraw.Draw(image), reach * size, tuple(colour.tolist())
    if kind == 0:
        direction = np.array([np.cos(angle), np.sin(angle)]) * size * 1.5
        pen.line(
            [x - direction[0], y - direction[1], x + direction[0], y + direction[1]], fill=fill, width=int(0.9 * r)
        )
    elif kind == 1:
        pen.ellipse([x - r, y - r, x + r, y + r], fill=fill)
    else:
        edge = 0 if x < size / 2 else size
        for finger in range(4):
            level = y + (finger - 1.5) * 0.55 * r
            pen.line([edge, level + 0.4 * r, x, level], fill=(198, 146, 116), width=max(1, int(0.48 * r)))
            pen.ellipse([x - 0.24 * r, level - 0.24 * r, x + 0.24 * r, level + 0.24 * r], fill=(198, 146, 116))
    return image


def develop(rng: np.random.Generator, strengths: Strengths, image: Image.Image) -> np.ndarray:
    """Blur, gamma, tint and grain: RGB image -> uint8 [size, size, 3]."""
    radius = strengths.blur * image.size[0] / 112 * 2.2 * rng.random() ** 3
    if radius > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(radius))
    gamma = np.exp(strengths.gamma * rng.uniform(-0.8, 0.8))
    tint = np.exp(strengths.tint * rng.uniform(-0.45, 0.45, 3))
    # Brightness and cast are functions of a channel's value alone: one table for each channel.
    table = (255 * (np.arange(256)[:, None] / 255) ** gamma * tint / max(1.0, 0.9 * tint.max())).clip(0, 255)
    lookup = np.round(table.T).astype(int).ravel().tolist()
    pixels = np.asarray(image.point(lookup))
    grain = strengths.noise * rng.uniform(0, 10)
    if grain > 0:
        pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(grain)
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)
