"""What a report that is refreshed all the time costs the training, and how often it is refreshed.

    python benchmarks/live_report.py [--block 200] [--rounds 8] [--config demo] [--json]

Trains the config's network on generated faces in one run. In every other block of steps a process makes the report, and as
soon as it has ended the next one does: more than any `report_every` can ask for. It stands still in the blocks between them.
Blocks beside each other are compared.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import timing
from simfle_jax.commands.faces import write_faces
from simfle_jax.commands.presets import load_config
from simfle_jax.config import pretraining
from simfle_jax.data.synthetic_faces import DEMO
from simfle_jax.reporting.live import LiveReport
from simfle_jax.runs.writers import Picture
from simfle_jax.training.loop import train

WARM_UP = 2  # blocks before the first that counts


class Turns:
    """A live report in every other block of steps; seconds of all blocks."""

    def __init__(self, report: LiveReport, block: int):
        self.report, self.block = report, block
        self.seconds: list[float] = []
        self.pages: set[int] = set()
        self.began = time.perf_counter()

    def look(self, step: int) -> list[Picture]:
        """Called by the loop after each step."""
        if self.on:
            self.report.look(step)
            page = self.report.folder / "report.html"
            self.pages |= {page.stat().st_mtime_ns} if page.exists() else set()
        if step % self.block == 0:
            now = time.perf_counter()
            self.seconds.append(now - self.began)
            self.began = now
            if self.report.process:  # a page may take longer than a block
                self.report.process.send_signal(signal.SIGCONT if self.on else signal.SIGSTOP)
        return []

    @property
    def on(self) -> bool:
        return len(self.seconds) % 2 == 1

    def begin(self, folder: Path) -> None:
        """Tells the report where the run works."""
        self.report.begin(folder)

    def last(self) -> list[Picture]:
        """Nothing: the end of the run is not measured."""
        return []

    def close(self) -> None:
        """Ends the process."""
        self.report.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--block", type=int, default=200, help="steps with or without the report")
    parser.add_argument("--rounds", type=int, default=8, help="pairs of blocks")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(Path(scratch), options)
    print(json.dumps(results, indent=2) if options.json else table(results))


def measure(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run of as many blocks as are asked for."""
    write_faces(scratch / "faces", 2000, 64, 0, 40, DEMO)
    config = load_config(options.config)
    per_epoch = 2000 // config.batch_size
    steps = options.block * (WARM_UP + 2 * options.rounds)
    config.update(
        epochs=-(-steps // per_epoch), log_steps=options.block, checkpoint_steps=options.block, report_every=1
    )
    config.data.path = str(scratch / "faces" / "train")
    settings = pretraining(config)
    turns = Turns(LiveReport(settings), options.block)
    train(settings, str(scratch / "run"), live=turns)
    seconds = turns.seconds[WARM_UP : WARM_UP + 2 * options.rounds]
    without, beside = seconds[::2], seconds[1::2]
    pairs = [b / a - 1 for a, b in zip(without, beside)]
    return {
        "config": options.config,
        "machine": timing.machine(),
        "step_ms_without": 1000 * statistics.median(without) / options.block,
        "step_ms_beside": 1000 * statistics.median(beside) / options.block,
        "cost": statistics.median(pairs),
        "cost_of_pairs": pairs,
        "cost_of_all": sum(beside) / sum(without) - 1,
        "pages": len(turns.pages),
        "seconds_beside": sum(beside),
    }


def table(results: dict[str, Any]) -> str:
    """The results as text."""
    pairs = ", ".join(f"{100 * pair:+.1f}" for pair in results["cost_of_pairs"])
    return (
        f"{results['config']}: a step takes {results['step_ms_without']:.1f} ms, and {results['step_ms_beside']:.1f} beside "
        f"the report: {100 * results['cost']:+.1f} % (all blocks {100 * results['cost_of_all']:+.1f}; pairs {pairs}); "
        f"{results['pages']} pages in {results['seconds_beside']:.0f} s"
    )


if __name__ == "__main__":
    main()
