"""The method's baselines on harder generated faces: light from a side, glasses, hands and other things before the face, turned heads.

    python -m simfle_jax.study configs/studies/wild.py --workdir runs/wild

36 pieces: twelve arms, three seeds, each probed six ways as in ablations.py. Faces and plain images have 64 pixels and views 56, so
that the trunk's map has 4 x 4 cells for 8 x 8 patches. BYOL and SimFLE have two kinds of views: each standardised by itself, and all
normalised by the statistics of the data set.
"""

from configs.studies import ablations
from simfle_jax.studies import Arm, Faces, Study

SIZE = 64
KEPT = (
    "untrained", "BYOL", "SimFLE", "SimFLE, random masking", "SimFLE, published tie", "SimSiam", "MoCo v3", "MAE", "supervised",
)  # fmt: skip
BY_DATA_SET = ("untrained", "BYOL", "SimFLE")


def get_study() -> Study:
    """What ablations.py compares without the variants of the published tie, on other faces."""
    plain = ablations.get_study()
    arms = {name: _larger(plain.arm(name)) for name in KEPT}
    for name in BY_DATA_SET:
        arms[f"{name}, statistics of the data set"] = _larger(plain.arm(name), standardise="dataset")
    return Study(
        arms=arms,
        probes=plain.probes,
        baseline="BYOL",
        scores=plain.scores,
        faces=Faces(count=4000, val_count=1600, size=SIZE, preset="wild"),
    )


def _larger(arm: Arm, standardise: str = "image") -> Arm:
    config = arm.config.copy_and_resolve_references()
    config.views.update(size=56, plain_size=SIZE, standardise=standardise)
    config.data.canvas = SIZE
    return Arm(config, arm.kind)
