"""The demo for longer: SimFLE, random masking and BYOL alone over three seeds, and the probe as they train.

    python -m simfle_jax.study configs/studies/demo_long.py --workdir runs/long

The settings are those of configs/demo_long.py. An earlier form of it gave benchmarks/results/small-cpu/demo_long.json.
"""

from configs import demo, demo_long
from simfle_jax.studies import Arm, Faces, Study

TITLES = {
    "simfle": "SimFLE",
    "random": "random masking",
    "byol": "BYOL alone, equal updates",
    "byol_longer": "BYOL alone, equal time",
}


def get_study() -> Study:
    """Each method, an untrained trunk, and one that is trained on the labels for as many epochs as suffice."""
    labels = demo.get_config()
    labels.epochs = 4
    arms = {title: demo_long.get_config(method) for method, title in TITLES.items()}
    return Study(
        arms={"untrained": Arm(labels, "untrained")} | arms | {"supervised": Arm(labels, "supervised")},
        probes={
            "all labels": {"protocol": "logistic"},
            "5 % of the labels": {"protocol": "lowlabel", "lowlabel.shares": (0.05,)},
        },
        baseline="BYOL alone, equal updates",
        faces=Faces(count=8000, val_count=1600, size=40),
        curve="all labels",
    )
