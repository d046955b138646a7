"""Seconds and megabytes of the report of a long run, and how soon a browser can use it.

    python benchmarks/report.py [--lines 100000] [--points 5000] [--json]

Generates faces, trains the demo's network on them for an epoch, lets its metrics go on to the number of lines (the values of
its last line, each with noise), and makes the report by its command in fresh processes: twice with no program compiled before,
then once more with all. Chromium opens the page: `answered` is until a choice made by keyboard, as soon as the page takes
it, shows in a curve, `ready` until every chart is drawn.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import timing
from configs import demo
from simfle_jax.commands.faces import write_faces
from simfle_jax.config import pretraining
from simfle_jax.data.synthetic_faces import DEMO
from simfle_jax.training.loop import train

ROUNDS = 3
LIMIT = 120_000  # milliseconds that a page may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000, help="of metrics.jsonl")
    parser.add_argument("--points", type=int, default=5000, help="faces whose features are shown")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(Path(scratch), options.lines, options.points)
    print(json.dumps(results, indent=2) if options.json else table(results))


def measure(scratch: Path, lines: int, points: int) -> dict[str, Any]:
    """The report of a run that is made in `scratch`."""
    write_faces(scratch / "faces", points, 64, 0, 40, DEMO)
    config = demo.get_config()
    config.update(epochs=1, log_steps=5)
    config.data.path = str(scratch / "faces" / "train")
    train(pretraining(config), str(scratch / "run"))
    lengthen(scratch / "run" / "metrics.jsonl", lines)
    made = [made_in(scratch, f"cache{i}") for i in range(2)] + [made_in(scratch, "cache1")]
    page = scratch / "report.html"
    return {
        "machine": timing.machine(),
        "lines": lines,
        "points": points,
        "megabytes": page.stat().st_size / 1e6,
        "seconds_cold": made[:2],
        "seconds_warm": made[2],
        "browser": in_browser(page),
    }


def lengthen(file: Path, lines: int) -> None:
    """Metrics that go on after the last line, as those of a long run that learns no more."""
    told = [json.loads(line) for line in file.read_text().splitlines()][:lines]
    last, noise = told[-1], np.random.default_rng(0)
    per_step = last["seconds"] / last["step"]
    names = [name for name in last if name not in ("step", "epoch", "seconds")]
    for number in range(1, lines - len(told) + 1):
        step = last["step"] + 5 * number
        values = dict(zip(names, noise.normal(1, 0.05, len(names)) * [last[name] for name in names]))
        told.append({"step": step, "epoch": number // 100} | values | {"seconds": round(step * per_step, 3)})
    file.write_text("".join(json.dumps(line) + "\n" for line in told))


def made_in(scratch: Path, cache: str) -> float:
    """Seconds of the command, with its programs compiled or not."""
    command = [sys.executable, "-m", "simfle_jax.report", str(scratch / "run"), "--out", str(scratch / "report.html")]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(scratch / cache)}
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def in_browser(page: Path) -> dict[str, float] | str:
    """Medians of several openings; a word of why there are none where there is no browser."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        return "not measured: it needs Playwright and Chromium"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        found = [opened(browser, page) for _ in range(ROUNDS)]
        browser.close()
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def opened(browser: Any, page: Path) -> dict[str, float]:
    """Seconds from the call until the page has answered a choice, and until it is ready."""
    window = browser.new_page(viewport={"width": 1600, "height": 900})
    began = time.perf_counter()
    window.goto(page.as_uri())
    window.focus("select[name=x]")
    window.keyboard.press("ArrowDown")
    window.wait_for_selector(".xtitle:text('seconds')", timeout=LIMIT)
    answered = time.perf_counter() - began
    window.wait_for_selector("html[data-ready=yes]", state="attached", timeout=LIMIT)
    ready = time.perf_counter() - began
    window.close()
    return {"answered": answered, "ready": ready}


def table(results: dict[str, Any]) -> str:
    """The results as text."""
    browser = results["browser"]
    seen = browser if isinstance(browser, str) else ", ".join(f"{name} after {s:.1f} s" for name, s in browser.items())
    cold = " and ".join(f"{seconds:.1f}" for seconds in results["seconds_cold"])
    return (
        f"{results['lines']:,} lines, {results['points']:,} points: {results['megabytes']:.1f} MB, made in {cold} s "
        f"(programs compiled before: {results['seconds_warm']:.1f} s); in the browser {seen}"
    )


if __name__ == "__main__":
    main()
