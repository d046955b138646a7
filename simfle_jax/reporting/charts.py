"""Charts as Plotly's figures (plain dictionaries), and what makes them alike: colours that serve light and dark pages."""

import html
import json
import math
from typing import Any

import numpy as np

from simfle_jax.data.bad_list import escaped
from simfle_jax.errors import lacks

Figure = dict[str, Any]
# Told apart by people with any colour vision, and readable on white and on black.
COLOURS = ("#2f7fc1", "#d9541e", "#2a9d5c", "#b0479f", "#a98600", "#5f6bd8", "#d1455f", "#1a9aa0", "#7f7f7f", "#9a6b3f")
GRID = "rgba(128,128,128,0.25)"


def plotly_script() -> str:
    """Plotly's own JavaScript. Raises UserError where Plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise lacks("the report", "Plotly", "report") from None
    return get_plotlyjs()


def colour(number: int) -> str:
    """The colour of a run or a class by its number."""
    return COLOURS[number % len(COLOURS)]


def label(name: str) -> str:
    """A name as text for Plotly, which would take tags in it for formatting."""
    return html.escape(escaped(name))


def layout(x: str = "", y: str = "", legend: bool = False, **more: Any) -> Figure:
    """A chart without a background of its own; the page's style sheet gives the text its colour."""
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "height": 280, "showlegend": legend,
        "margin": {"l": 50, "r": 10, "t": 10, "b": 45}, "legend": {"orientation": "h", "y": 1.15},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#777"}, "hovermode": "closest",
        # Margins that fit both axes' labels at once can move each other for ever: one line of labels has its place below.
        "xaxis": axis | {"title": {"text": x}, "automargin": not x},
        "yaxis": axis | {"title": {"text": y}, "automargin": bool(x)},
    } | more  # fmt: skip


def listed(values: np.ndarray) -> list[float | int | None]:
    """Numbers as JSON knows them: None for what is not finite."""
    return [_plain(value) for value in np.asarray(values, float).tolist()]


def _plain(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 2**53 else value


def as_json(content: Any) -> str:
    """JSON that may stand in a script element: whatever a name holds, it ends no element."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
