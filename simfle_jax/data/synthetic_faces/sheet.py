"""A contact sheet: a row for each expression, a column for each identity."""

import numpy as np
from PIL import Image, ImageDraw

from simfle_jax.data.synthetic_faces.expressions import EXPRESSIONS
from simfle_jax.data.synthetic_faces.face import IMAGES_PER_IDENTITY, draw_face
from simfle_jax.data.synthetic_faces.strengths import Strengths

_LABEL = 76  # pixels for the name of the expression


def contact_sheet(seed: int, size: int, strengths: Strengths, identities: int = 8) -> Image.Image:
    """The first validation identities with all eight expressions; images below 96 pixels are enlarged."""
    cell = size if size >= 96 else size * -(-96 // size)
    sheet = Image.new("RGB", (_LABEL + cell * identities, cell * len(EXPRESSIONS)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, expression in enumerate(EXPRESSIONS):
        pen.text((6, cell * row + cell // 2 - 6), expression, fill="black")
        for column in range(identities):
            face = draw_face(seed, "val", IMAGES_PER_IDENTITY * column + row, size, strengths)
            sheet.paste(
                Image.fromarray(face.image).resize((cell, cell), Image.Resampling.NEAREST),
                (_LABEL + cell * column, cell * row),
            )
    return sheet


def mark_landmarks(image: np.ndarray, points: np.ndarray, factor: int = 4) -> Image.Image:
    """The image enlarged, with every landmark as a numbered dot."""
    big = Image.fromarray(image).resize((image.shape[1] * factor, image.shape[0] * factor), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(big)
    for number, (x, y) in enumerate(points * factor):
        pen.ellipse([x - 2, y - 2, x + 2, y + 2], fill=(0, 255, 60))
        pen.text((x + 3, y - 5), str(number), fill=(255, 255, 0))
    return big
