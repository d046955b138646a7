"""The method's own baselines on small generated faces: which part of SimFLE does what.

    python -m simfle_jax.study configs/studies/ablations.py --workdir runs/ablations            # its generated faces
    python -m simfle_jax.study configs/studies/ablations.py --workdir runs/photos --data DIR    # or one's own

39 pieces: thirteen arms, three seeds. Every arm but one sees equally many images, and each is probed six ways. Networks are the demo's; views have
48 pixels and plain images 56, so that the trunk's map has 4 x 4 cells for 7 x 7 patches, as in the paper (the demo's own has
2 x 2, and its groups choose quadrants). For landmarks the table has the error (NME by the outer eye corners), where less is
better. One's own images need landmarks too, or a study without that probe.
"""

from ml_collections import ConfigDict

from configs import demo
from simfle_jax.studies import Arm, Faces, Study

SIZE = 56


def get_study() -> Study:
    """Baselines first, then SimFLE's variants; each is compared with BYOL, which SimFLE adds FaceMAE to."""
    labels, longer = _with(), _with(method="byol")
    labels.epochs, longer.epochs = 4, 24
    return Study(
        arms={
            "untrained": Arm(labels, "untrained"),
            "BYOL": _with(method="byol"),
            "BYOL, equal time": longer,  # on a CPU a step of SimFLE costs 2.7 times as much here
            "SimFLE": _with(),
            "SimFLE, random masking": _with(masking="random"),
            "SimFLE, published tie": _with(tie="published"),
            "SimFLE, published tie, random masking": _with(tie="published", masking="random"),
            "SimFLE, published tie and start": _with(tie="published", grouping_init="constant"),
            "SimFLE, without distillation": _with(tie="published", alpha=0.0),
            "SimSiam": _with(method="simsiam"),
            "MoCo v3": _with(method="moco_v3"),
            "MAE": _mae(),
            "supervised": Arm(labels, "supervised"),
        },
        probes={
            "linear": {"protocol": "cached", "select_on": "train-holdout", "cached.lrs": (0.01, 0.03, 0.1, 0.3, 1.0)},
            "logistic": {"protocol": "logistic"},
            "k-NN": {"protocol": "knn", "knn.k": (5, 10, 20, 50), "knn.temperature": (0.03, 0.07, 0.2)},
            "5 % of the labels": {"protocol": "lowlabel", "lowlabel.shares": (0.05,)},
            "fine-tuned on 5 %": {"protocol": "finetune", "finetune.share": 0.05, "epochs": 40, "batch_size": 32,
                                  "finetune.lr": 0.016, "finetune.layer_decay": 1.0},
            "landmarks": {"protocol": "landmarks"},
        },
        baseline="BYOL",
        scores=("balanced_accuracy", "outer_eyes.nme"),
        faces=Faces(count=4000, val_count=1600, size=SIZE),
    )  # fmt: skip


def _with(method: str = "simfle", **facemae: object) -> ConfigDict:
    """1,000 updates of 32 faces."""
    config = demo.get_config()
    config.epochs = 8
    config.method = method
    config.views.update(size=48, plain_size=SIZE)
    config.data.canvas = SIZE
    config.facemae.update(facemae)
    return config


def _mae() -> ConfigDict:
    """MAE masks the patches of a ViT; this one has about as many parameters as the demo's ResNet."""
    config = _with(method="mae", masking="random")
    config.trunk.update(kind="vit", stage_sizes=(4,), width=64, heads=4, patch=8, last_stride=2)
    return config
