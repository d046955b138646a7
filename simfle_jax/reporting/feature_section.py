"""The section of the features: their map, and neighbours of some images."""

import numpy as np
from PIL import Image

from simfle_jax.reporting import features, page
from simfle_jax.reporting.collect import Answers, Material
from simfle_jax.reporting.images import LIMIT, Album, spread_rows
from simfle_jax.reporting.page import Html

QUERIES, NEAREST = 6, 5
THUMBNAIL = 72  # pixels


def feature_map(name: str, answers: Answers, material: Material, album: Album) -> str:
    """The map of the features, and neighbours of some images."""
    names = [material.source.name(int(row)) for row in answers.rows]
    near = _neighbours(answers, material, names, album)  # before the map, which takes all images that are left
    return f"<h3>{page.text(name)}</h3>{_map(answers, material, names, album)}{near}"


def _map(answers: Answers, material: Material, names: list[str], album: Album) -> str:
    if len(answers.features) < 3:
        return page.note("A map needs more than two images.")
    places, shares = features.pca(answers.features)
    maps = [
        (
            "principal components",
            places,
            [f"axis {i}, {100 * share:.0f} % of the variance" for i, share in enumerate(shares, 1)],
        )
    ]
    by_umap = features.umap(answers.features)
    maps += [("UMAP", by_umap, ["", ""])] if by_umap is not None else []
    thumbnails, hidden = _thumbnails(answers, material, names, album)
    told = f"{len(names):,} images by the direction of their features; symbols and colours are classes."
    body = "".join(
        page.chart(
            features.draw_map(found, answers.labels, answers.classes, names, thumbnails, axes),
            f"Map of the features, {title}", told, "map",
        )
        for title, found, axes in maps
    )  # fmt: skip
    return body + hidden


def _thumbnails(answers: Answers, material: Material, names: list[str], album: Album) -> tuple[list[str | None], str]:
    """For some of the images the ids of thumbnails, as many as the page still may hold, and these as hidden HTML."""
    ids: list[str | None] = [None] * len(names)
    hidden = []
    for row in spread_rows(len(names), LIMIT - len(album.shown)).tolist():
        if album.admit([names[row]])[0]:
            ids[row] = f"thumbnail-{id(answers)}-{row}"
            image = page.data_uri(_thumbnail(material, answers.rows[row]), photograph=True)
            hidden.append(f'<img id="{ids[row]}" src="{image}" alt="">')
    return ids, f"<div hidden>{''.join(hidden)}</div>"


def _thumbnail(material: Material, row: int) -> Image.Image:
    return Image.fromarray(material.images(np.array([row]), THUMBNAIL)[0])


def _neighbours(answers: Answers, material: Material, names: list[str], album: Album) -> str:
    queries = spread_rows(len(names), QUERIES)
    if len(names) < 3:
        return page.note("Neighbours need more than two images.")
    rows, cosines = features.neighbours(answers.features, queries, NEAREST)

    def cell(row: int, cosine: float | None) -> Html:
        kind = answers.classes[answers.labels[row]]
        image = ""
        if album.admit([names[row]])[0]:
            image = page.picture(_thumbnail(material, answers.rows[row]), names[row], photograph=True) + "<br>"
        close = "" if cosine is None else f" {page.number(cosine, 3)}"
        return Html(f"{image}{page.text(kind)}{close}")

    lines = [
        [cell(int(query), None), *(cell(int(row), float(cosine)) for row, cosine in zip(rows[i], cosines[i]))]
        for i, query in enumerate(queries)
    ]
    head = ["image", *(f"neighbour {number}" for number in range(1, rows.shape[1] + 1))]
    return page.table("Nearest neighbours by the cosine of the features", head, lines)
