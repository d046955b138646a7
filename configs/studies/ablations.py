"""The method's own baselines, at the demo's size: which part of SimFLE does what.

    python -m simfle_jax.study configs/studies/ablations.py --workdir runs/ablations            # its generated faces
    python -m simfle_jax.study configs/studies/ablations.py --workdir runs/photos --data DIR    # or one's own

30 pieces: ten arms, three seeds. Every arm sees equally many images and is probed six ways. For landmarks the table has the
error (NME by the outer eye corners), where less is better. One's own images need landmarks too, or a study without that probe.
"""

from ml_collections import ConfigDict

from configs import demo
from simfle_jax.studies import Arm, Faces, Study


def get_study() -> Study:
    """Baselines first, then SimFLE's variants; each is compared with BYOL, which SimFLE adds FaceMAE to."""
    labels = demo.get_config()
    labels.epochs = 4
    return Study(
        arms={
            "untrained": Arm(labels, "untrained"),
            "BYOL": _with(method="byol"),
            "SimSiam": _with(method="simsiam"),
            "MoCo v3": _with(method="moco_v3"),
            "MAE": _mae(),
            "SimFLE": _with(),
            "SimFLE, published start": _with(grouping_init="constant"),
            "SimFLE, random masking": _with(masking="random"),
            "SimFLE, without distillation": _with(alpha=0.0),
            "supervised": Arm(labels, "supervised"),
        },
        probes={
            "linear": {"protocol": "cached", "select_on": "train-holdout", "cached.lrs": (0.01, 0.03, 0.1, 0.3, 1.0)},
            "logistic": {"protocol": "logistic"},
            "k-NN": {"protocol": "knn", "knn.k": (5, 10, 20, 50), "knn.temperature": (0.03, 0.07, 0.2)},
            "5 % of the labels": {"protocol": "lowlabel", "lowlabel.shares": (0.05,)},
            "fine-tuned on 5 %": {"protocol": "finetune", "finetune.share": 0.05, "epochs": 40, "batch_size": 64},
            "landmarks": {"protocol": "landmarks"},
        },
        baseline="BYOL",
        scores=("balanced_accuracy", "outer_eyes.nme"),
        faces=Faces(count=8000, val_count=1600, size=40),
    )


def _with(method: str = "simfle", **facemae: object) -> ConfigDict:
    config = demo.get_config()
    config.method = method
    config.facemae.update(facemae)
    return config


def _mae() -> ConfigDict:
    """MAE masks the patches of a ViT; this one has about as many parameters as the demo's ResNet."""
    config = _with(method="mae", masking="random")
    config.trunk.update(kind="vit", stage_sizes=(4,), width=64, heads=4, patch=8, last_stride=2)
    return config
