"""Expressions by ONNX Runtime alone: neither JAX nor PyTorch nor this package is needed where it runs.

simfle convert PROBE classifier.onnx --with-preprocessing
python examples/classifier_in_onnxruntime.py classifier.onnx FACES
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(file: Path, folder: Path) -> dict[str, dict[str, float]]:
    """The probability of every class, for every image below a folder by its path."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    if "input" not in facts or "classes" not in facts:
        raise SystemExit(f"{file} is no classifier with preprocessing: see the first line of this file's help")
    classes, found = json.loads(facts["classes"]), {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        (probabilities,) = session.run(None, {"images": np.asarray(image)[None]})
        found[str(path)] = dict(zip(classes, probabilities[0].tolist(), strict=True))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    for name, shares in main(**vars(parser.parse_args())).items():
        best = max(shares, key=lambda label: shares[label])
        print(f"{name}  {best} {shares[best]:.3f}")
