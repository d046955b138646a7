"""What a run of the benchmark on a GPU came to: its last metrics, its speed, and the scores of its probes, as one JSON file.

    python benchmarks/gpu_run.py RUN PROBE [PROBE ...] --out simfle.json

A probe that is not there is left out, and the file then says that it is not complete.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.parts_file import PartsFile

SCORES = ("protocol", "accuracy", "balanced_accuracy", "macro_f1", "intervals_95", "count")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("probes", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="file for the results")
    options = parser.parse_args()
    lines = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line]
    out = PartsFile(options.out, environment=json.loads((options.run / "environment.json").read_text()))
    out.add(last_metrics=lines[-1], images_per_second=statistics.median(speeds[len(speeds) // 2 :]))
    found = [probe for probe in options.probes if (probe / "results.json").exists()]
    for probe in found:
        results = json.loads((probe / "results.json").read_text())
        out.add(**{results["protocol"]: {name: results[name] for name in SCORES}})
    out.add(complete=found == options.probes)


if __name__ == "__main__":
    main()
