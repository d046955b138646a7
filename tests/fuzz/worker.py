"""Tries the inputs that it is told on its input, a kind and a number a line, and answers each with a line of JSON."""

import json
import logging
import os
import resource
import sys
import tempfile
import warnings
from pathlib import Path

if __name__ == "__main__":
    sys.dont_write_bytecode = True
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    logging.disable()
    from attempt import Bench

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), int(sys.argv[1]))
        bench.limit_memory()
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            name, number = line.split()
            told, text = bench.attempt(name, int(number))
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024
            print(json.dumps({"told": told, "text": text, "megabytes": peak}), file=answers, flush=True)
