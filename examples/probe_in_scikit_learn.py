"""A logistic probe on features of `simfle embed`, in scikit-learn.

    simfle embed FACES/train --encoder RUN --out train.npz
    simfle embed FACES/val --encoder RUN --out val.npz
    python examples/probe_in_scikit_learn.py train.npz val.npz

An image's class is the folder that it lies in. scikit-learn: pip install scikit-learn.
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import balanced_accuracy_score, classification_report
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def read(file: Path) -> tuple[np.ndarray, list[str]]:
    """Features [n, D] and the classes of their images."""
    with np.load(file) as content:
        return content["features"], [Path(name).parent.name for name in content["names"]]


def main(train: Path, val: Path) -> float:
    """Fits on train, its strength chosen by cross-validation there, and gives val's balanced accuracy."""
    (features, labels), (held, truth) = read(train), read(val)
    strengths = np.logspace(-4, 2, 7)
    layer = LogisticRegressionCV(Cs=strengths, cv=3, l1_ratios=(0.0,), max_iter=2000, class_weight="balanced",
                                 scoring="balanced_accuracy", use_legacy_attributes=False)  # fmt: skip
    probe = make_pipeline(StandardScaler(), layer).fit(features, labels)
    predicted = probe.predict(held)
    print(classification_report(truth, predicted, zero_division=0))
    return float(balanced_accuracy_score(truth, predicted))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    print(f"balanced accuracy {main(**vars(parser.parse_args())):.1%}")
