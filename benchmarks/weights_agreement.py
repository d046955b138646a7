"""An exported classifier in PyTorch against this package, on real images: features of 64, predictions of all of val.

    python -m benchmarks.weights_agreement model_best.pth.tar --data DIR --classes anger disgust fear happiness

DIR holds val/CLASS/IMAGE. The network in PyTorch is the plain ResNet of the tests, loaded with strict=True.
"""

import argparse
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch

from simfle_jax import augment
from simfle_jax.data.image_list import ImageList
from simfle_jax.data.pipeline import eval_batches
from simfle_jax.evaluation.classifier import Classifier, load_classifier
from tests.unit.weights.torch_resnet import ResNet

BATCH = 64


def in_torch(path: Path, classifier: Classifier) -> ResNet:
    """The classifier of a torch file as PyTorch users load it."""
    model = classifier.encoder.trunk
    network = ResNet(model.stage_sizes, model.width, len(classifier.classes), model.last_stride)
    network.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
    return network.eval()


def logits_of(network: ResNet, views: np.ndarray) -> np.ndarray:
    """Of normalised images [B, S, S, 3]."""
    with torch.no_grad():
        return network(torch.from_numpy(views.transpose(0, 3, 1, 2).copy())).numpy()


def main() -> None:
    """Prints the largest relative difference of 64 features, and how many predictions are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", nargs="+", default=[])
    args = parser.parse_args()
    classifier = load_classifier(args.classifier, classes=tuple(args.classes))
    encoder, network = classifier.encoder, in_torch(args.classifier, classifier)
    trunk = ResNet(encoder.trunk.stage_sizes, encoder.trunk.width, last_stride=encoder.trunk.last_stride)
    trunk.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in encoder.torch_arrays().items()}, strict=True)
    trunk.eval()
    same, seen, began, predicted = 0, 0, time.monotonic(), set[int]()
    for batch in eval_batches(ImageList([args.data / "val"]), batch_size=BATCH, canvas=encoder.size):
        views = np.asarray(encoder.preprocess(augment.to_float(jnp.asarray(batch["image"]))))
        ours = encoder(batch["image"])
        if not seen:
            theirs = logits_of(trunk, views)
            error = np.abs(ours - theirs).max() / np.abs(theirs).max()
            print(f"features of {BATCH} images differ by {error:.1e} of the largest", flush=True)
        labels = classifier.from_features(ours).argmax(1)[batch["valid"]]
        same += int((labels == logits_of(network, views).argmax(1)[batch["valid"]]).sum())
        seen, predicted = seen + len(labels), predicted | set(labels.tolist())
    print(
        f"{same} of {seen} predictions are the same ({len(predicted)} classes occur; {time.monotonic() - began:.0f} s)"
    )


if __name__ == "__main__":
    main()
