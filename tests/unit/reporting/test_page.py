"""The page: everything escaped, tables that say what heads what, and no way out to a network."""

import json

import numpy as np
import pytest
from pages import Page
from PIL import Image

from simfle_jax.errors import UserError
from simfle_jax.reporting import charts, page, sections
from simfle_jax.reporting.page import Section

NAMES = [
    "<script>alert(1)</script>",
    "\"quoted\" 'twice' & more",
    "\U0001f600",
    "\u05e9\u05dc\u05d5\u05dd",
    "x\nonload=1",
    "\udce4",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_text_wherever_it_stands(name):
    figure = {"data": [{"name": charts.label(name)}], "layout": charts.layout(y=charts.label(name))}
    image = page.picture(Image.new("RGB", (2, 2)), name, name)
    body = page.table(name, [name, name], [[name, name]]) + image + page.chart(figure, name, name) + page.note(name)
    whole = page.page(name, name, [Section("a", name, body)])
    whole.encode()
    found = Page(whole)
    assert "alert" not in found.elements and "onload" not in found.attributes and "alert(1)</script>" not in whole
    assert whole.count("<script") == 3  # the figure, Plotly and the page's own
    assert found.figures[0]["layout"]["yaxis"]["title"]["text"] == charts.label(name)
    assert "<" not in charts.label(name)


def test_embedded_json_ends_no_element_and_is_the_same():
    content = {"text": "</script><!-- &", "values": [0.1, None]}
    assert not set("<>&") & set(charts.as_json(content)) and json.loads(charts.as_json(content)) == content


def test_a_table_says_what_heads_a_row_and_a_column():
    found = page.table("Scores", ["class", "F1"], [["happy", 0.123456]])
    assert "<caption>Scores</caption>" in found and '<th scope="col">' in found and '<th scope="row">' in found
    assert Page(found).numbers == [0.123456]


def test_numbers_are_rounded_for_the_eye_alone():
    found = Page(page.percent(0.87654321, (0.8, 0.9)))
    assert found.text == "87.7 % (80.0 to 90.0)" and found.numbers == [0.87654321, 0.8, 0.9]
    assert page.text(float("nan")) and page.text(None) and page.text(True) == "yes"


def test_the_page_forbids_requests_and_has_landmarks():
    whole = page.page("title", "below", [Section("one", "First", "")])
    assert "default-src 'none'" in whole and "img-src data:" in whole
    assert {"header", "main", "nav", "section", "h1", "h2"} <= Page(whole).elements
    assert '<html lang="en">' in whole and "prefers-color-scheme: dark" in whole and "@media print" in whole


def test_pictures_are_inside_and_described():
    (image,) = Page(page.picture(Image.fromarray(np.zeros((2, 3, 3), np.uint8)), 'a "face"', photograph=True)).images
    assert image["src"].startswith("data:image/jpeg;base64,") and image["alt"] == 'a "face"' and image["width"] == "3"


def test_without_plotly_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"the report needs Plotly: pip install 'simfle-jax\[report\]'"):
        charts.plotly_script()


@pytest.mark.parametrize("channels, cells, step", [(64, 64, 1), (256, 128, 2), (2048, 128, 16)])
def test_a_large_matrix_is_averaged_and_its_axes_count_channels(monkeypatch, channels, cells, step):
    shown = []
    monkeypatch.setattr(sections.page, "chart", lambda figure, *_: shown.append(figure) or "")
    sections._similarity(np.kron(np.eye(8), np.ones((channels // 8,) * 2)), 8)
    (heat,) = shown[0]["data"]
    assert len(heat["z"]) == cells and (heat["dx"], heat["dy"]) == (step, step)
    last = heat["x0"] + (cells - 1) * heat["dx"]
    assert heat["x0"] - step / 2 == -0.5 and last + step / 2 == channels - 0.5, "from the first channel to the last"
