"""One HTML page that needs nothing beside itself: headings, tables, pictures and charts."""

import base64
import html
import importlib.resources
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from simfle_jax.data.bad_list import escaped
from simfle_jax.reporting.charts import Figure, as_json, plotly_script


class Section(NamedTuple):
    """A part of the page: an anchor, a heading and HTML."""

    anchor: str
    title: str
    body: str


class Html(str):
    """Text that is HTML already; all other text is escaped."""


def safe(message: str) -> str:
    """A text or a name as HTML, also inside of an attribute's quotes."""
    return html.escape(escaped(message), quote=True)


def text(value: Any) -> str:
    """Any value as HTML. Names stand apart from their surroundings, whichever way they are written."""
    if isinstance(value, Html):
        return value
    if value is None:
        return '<span class="missing">–</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    return f"<bdi>{safe(str(value))}</bdi>"


def number(value: float, digits: int = 4) -> Html:
    """A rounded number; `value` holds the exact one."""
    if isinstance(value, int):
        shown = f"{value:,}"
    else:
        shown = f"{value:.{digits}g}" if math.isfinite(value) else "not finite"
    return Html(f'<data value="{value!r}">{shown}</data>')


def percent(value: float, interval: Sequence[float] | None = None) -> Html:
    """A share as per cent, with its 95 % interval."""
    if not math.isfinite(value):
        return number(value)
    found = f'<data value="{value!r}">{100 * value:.1f} %</data>'
    if interval:
        low, high = (f'<data value="{x!r}">{100 * x:.1f}</data>' for x in interval)
        found += f' <span class="interval">({low} to {high})</span>'
    return Html(found)


def table(caption: str, head: Sequence[Any], rows: Sequence[Sequence[Any]], shades: Any = None) -> str:
    """A table whose first column heads the rows. shades[i][j], 0 to 1, colours the cell behind the first column."""
    if not rows:
        return note(f"{caption}: nothing to show")
    heads = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    lines = []
    for i, row in enumerate(rows):
        cells = [f'<th scope="row">{text(row[0])}</th>']
        for j, cell in enumerate(row[1:]):
            shade = f' style="--shade:{100 * shades[i][j]:.0f}%" class="shaded"' if shades is not None else ""
            cells.append(f"<td{shade}>{text(cell)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    content = f"<caption>{safe(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return scrolling(f"<table>{content}</table>", caption)


def scrolling(content: str, name: str) -> str:
    """What may be wider than the page, and is then moved by keyboard, too."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{safe(name)}">{content}</div>'


def picture(image: Image.Image, alt: str, caption: str = "", photograph: bool = False) -> str:
    """An image inside of the page, as JPEG if it is a photograph and as PNG otherwise."""
    found = f'<img src="{data_uri(image, photograph)}" width="{image.width}" height="{image.height}" alt="{safe(alt)}">'
    if not caption:
        return found
    return f"<figure>{scrolling(found, caption)}<figcaption>{safe(caption)}</figcaption></figure>"


def data_uri(image: Image.Image, photograph: bool = False) -> str:
    """The image as a data URI."""
    memory, kind = io.BytesIO(), "jpeg" if photograph else "png"
    image.convert("RGB").save(memory, kind, **({"quality": 82} if photograph else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(memory.getvalue()).decode()}"


def chart(figure: Figure, name: str, explanation: str = "", kind: str = "") -> str:
    """A chart with a heading of its own. `kind` tells the page's script what its controls may do with it."""
    described = safe(f"Chart: {name}. {explanation}")
    why = f"<p>{safe(explanation)}</p>" if explanation else ""
    return (
        f'<div class="chart {kind}"><h3>{text(name)}</h3>{why}<div class="plot" role="img" aria-label="{described}"></div>'
        f'<script type="application/json" data-kind="{kind}">{as_json(figure)}</script></div>'
    )


def note(message: str) -> str:
    """A sentence about what is missing, or must be known."""
    return f'<p class="note" role="note">{safe(message)}</p>'


def paragraph(message: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{safe(message)}</p>"


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole document. Its policy forbids every request, so that nothing in it can leave or reach the network."""
    asset = importlib.resources.files("simfle_jax.reporting")
    links = "".join(f'<li><a href="#{part.anchor}">{safe(part.title)}</a></li>' for part in sections)
    bodies = "".join(
        f'<section id="{part.anchor}" aria-labelledby="{part.anchor}-title">'
        f'<h2 id="{part.anchor}-title">{safe(part.title)}</h2>{part.body}</section>'
        for part in sections
    )
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{safe(title)}</title><style>{asset.joinpath('page.css').read_text()}</style></head><body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f'<header><h1>{text(title)}</h1><p>{safe(subtitle)}</p><nav aria-label="Sections"><ol>{links}</ol></nav></header>'
        f'<main id="content" tabindex="-1">{bodies}</main>'
        f"<script>{plotly_script()}</script><script>{asset.joinpath('page.js').read_text()}</script></body></html>\n"
    )
