"""Writes timm.json: what timm says of itself, for the test of hub folders where timm is not installed.

    pip install timm && python tests/integration/timm_facts.py

names and shapes of the weights of two networks without classifier, and the keys of the settings that timm reads.
"""

import dataclasses
import json
from pathlib import Path

import timm
from timm.models._pretrained import PretrainedCfg

NAMES = ("resnet18", "vit_small_patch16_224")


def main() -> None:
    """Writes the file beside this one."""
    weights = {
        name: {key: list(value.shape) for key, value in timm.create_model(name, num_classes=0).state_dict().items()}
        for name in NAMES
    }
    keys = [field.name for field in dataclasses.fields(PretrainedCfg)]
    facts = {"timm": timm.__version__, "pretrained_cfg": keys, "weights": weights}
    Path(__file__).with_name("timm.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
