"""Times what a probe tries on known features: settings of the neighbours' vote, and learning rates in one pass.

    python -m benchmarks.probe_settings [--json]

5,000 features x 100 settings of k and temperature, and 13 rates x 100 epochs on 25,000 features, of 2,048 numbers each and
seven classes. CPU seconds are of all threads: on a machine with other work they say more than the clock.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from simfle_jax.evaluation.linear import Labelled, Sgd, fit_epochs, new_layer, start
from simfle_jax.evaluation.nearest import choose_vote

DIM, CLASSES = 2048, 7
RATES = tuple(float(rate) for rate in np.geomspace(1e-3, 1, 13))
KS = (1, 2, 5, 10, 20, 50, 75, 100, 150, 200)
TEMPERATURES = tuple(float(t) for t in np.geomspace(0.01, 1, 10))


def main() -> None:
    """Times both and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    found = {"machine": timing.machine(), "knn_100_settings": timed(votes), "sweep_13_rates_100_epochs": timed(sweep)}
    print(
        json.dumps(found, indent=2) if options.json else "\n".join(f"{name}: {value}" for name, value in found.items())
    )


def features_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [count, DIM] with some of each class in them, and the classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    features = rng.standard_normal((count, DIM), np.float32)
    features[:, :CLASSES] += np.eye(CLASSES, dtype=np.float32)[labels]
    return features, labels


def votes() -> Callable[[], Any]:
    """The choice among 100 settings, as --config.protocol=knn makes it."""
    train = features_of(5000)
    return lambda: choose_vote(train, CLASSES, KS, TEMPERATURES, 0)


def sweep() -> Callable[[], Any]:
    """All epochs of all rates, as --config.cached.lrs trains them."""
    features, labels = (jnp.asarray(part) for part in features_of(27500))
    train, held = Labelled(features[:25000], labels[:25000]), Labelled(features[25000:], labels[25000:])
    sgd, fit = Sgd(1024, RATES[0], 0.9, "none", 0), start(new_layer(0, DIM, CLASSES), len(RATES))
    return lambda: jax.block_until_ready(fit_epochs(fit, train, (held,), sgd, 100, RATES))


def timed(make: Callable[[], Callable[[], Any]]) -> dict[str, float]:
    """Seconds of a single call, compilation included, by the clock and of the CPU."""
    call = make()
    began, cpu = time.perf_counter(), time.process_time()
    call()
    return {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}


if __name__ == "__main__":
    main()
