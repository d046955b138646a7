"""The tests' small settings as a study: three encoders, two seeds, generated faces."""

from small import settings

from simfle_jax.studies import Arm, Faces, Study


def get_study(lr: str = "0.05") -> Study:
    byol = settings(
        method="byol", batch_size=16, epochs=2, keep_checkpoints=9, optimizer={"lr": float(lr)},
        monitor={"path": "", "epochs": 1},
    )  # fmt: skip
    return Study(
        arms={"BYOL": byol, "no training": Arm(byol, "untrained"), "supervised": Arm(byol, "supervised")},
        probes={"k-NN": {"protocol": "knn"}, "few": {"protocol": "lowlabel", "lowlabel.shares": (0.5,)}},
        baseline="no training",
        seeds=(0, 1),
        faces=Faces(count=32, val_count=16, size=16),
        curve="k-NN",
    )
