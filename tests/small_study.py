"""The tests' small settings as a study: two encoders, one seed, generated faces."""

from small import settings

from simfle_jax.studies import Arm, Faces, Study


def get_study(variant: str = "0.05") -> Study:
    """variant: the rate, or 'supervised' for the supervised arm alone beside the untrained one."""
    rate = 0.05 if variant == "supervised" else float(variant)
    byol = settings(method="byol", batch_size=16, epochs=2, keep_checkpoints=9, optimizer={"lr": rate})
    arms = {"supervised": Arm(byol, "supervised")} if variant == "supervised" else {"BYOL": byol}
    return Study(
        arms=arms | {"no training": Arm(byol, "untrained")},
        probes={"few": {"protocol": "lowlabel", "lowlabel.shares": (0.5,), "lowlabel.draws": 2}},
        baseline="no training",
        seeds=(0,),
        faces=Faces(count=32, val_count=16, size=16),
        curve="few",
    )
