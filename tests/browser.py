"""Debian's Chromium, driven by Playwright: what a page does in a real browser."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
REACHABLE = "a[href], button, input, select, textarea, summary, [tabindex='0']"
# A name for an element that is the same however one comes to it.
NAMED = "element => [...document.querySelectorAll('*')].indexOf(element)"


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none. Playwright holds an event loop: leave it before others need one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here: pip install -e '.[test]'")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Opened:
    """A file in a window; `told` are the lines of its console and its errors, `asked` the addresses that it asked for."""

    def __init__(self, browser: Any, file: Path, width: int = 1600, scheme: str = "light"):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.told: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.told.append(message.text))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.told.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=120_000)
        self.asked = [address for address in self.asked if address.split(":")[0] not in ("data", "blob")]

    def charts(self) -> list[dict]:
        """What Plotly has drawn: the name of each chart's y axis, and of each trace its name and points."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('.plot')].map(plot => ({
                y: plot.layout.yaxis.title.text, type: plot.layout.yaxis.type, marks: plot.querySelectorAll('svg path').length,
                traces: plot.calcdata.map(points => ({name: points[0].trace.name, points: points.map(p => [p.x, p.y])}))}))"""
        )

    def tables(self) -> dict[str, list[list]]:
        """Tables by their captions: rows of cells, each a list of its exact numbers, or its text where it has none."""
        return self.page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll('table')].map(table => [table.caption.innerText,
                [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => {
                    const numbers = [...cell.querySelectorAll('data')].map(found => Number(found.value));
                    return numbers.length ? numbers : cell.innerText; }))]))"""
        )

    def controls(self) -> set[int]:
        """All that a mouse could use and that is to be seen."""
        return {found.evaluate(NAMED) for found in self.page.query_selector_all(REACHABLE) if found.is_visible()}

    def walk(self) -> tuple[list[int], list[int]]:
        """What Tab reaches one after another, until it leaves the page; and those of them that do not show that they are."""
        reached: list[int] = []
        unseen: list[int] = []
        for _ in range(1000):
            self.page.keyboard.press("Tab")
            place, shows = self.page.evaluate(
                f"""() => {{ const here = document.activeElement;
                    return [here === document.body ? -1 : ({NAMED})(here), getComputedStyle(here).outlineStyle != 'none']; }}"""
            )
            if place == -1 or place in reached:
                break
            reached.append(place)
            unseen += [] if shows else [place]
        return reached, unseen

    def faults(self) -> list[str]:
        """What axe-core calls a serious or a critical fault."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']}: {fault['help']}: {fault['nodes'][0]['html'][:200]}"
            for fault in found if fault["impact"] in ("serious", "critical")
        ]  # fmt: skip

    def overhang(self) -> int:
        """Pixels by which the page is wider than its window."""
        return self.page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
