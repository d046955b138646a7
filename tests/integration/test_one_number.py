"""One encoder has one number, whichever way it is probed; in PyTorch and scikit-learn too."""

import json

import numpy as np
import pytest
from sklearn import linear_model, metrics
from small import status

from configs import probe as probe_config
from simfle_jax.commands import embed, study
from simfle_jax.commands.faces import write_faces
from simfle_jax.data.decode import decode
from simfle_jax.data.sources import FolderSource
from simfle_jax.data.synthetic_faces import DEMO
from simfle_jax.evaluation.probe import run_probe
from simfle_jax.evaluation.settings import probing
from simfle_jax.weights.files import read_arrays

pytestmark = pytest.mark.slow
SIZE, COUNT = 24, 800


STUDY = """
import small
from simfle_jax.studies import Arm, Study

def get_study():
    config = small.settings(views={"size": 24, "plain_size": 24})
    return Study(arms={"one": Arm(config, "untrained")}, probes={"logistic": {"protocol": "logistic"}}, baseline="one",
                 seeds=(0,), scores=("balanced_accuracy", "accuracy"))
"""


def probed(folder, **changes):
    config = probe_config.get_config()
    config.update(protocol="logistic", **changes)
    config.data.path = str(folder.parent / "faces")
    return run_probe(probing(config), str(folder))


def test_run_file_features_study_and_pytorch_agree(tmp_path):
    torch = pytest.importorskip("torch")
    from torch_resnet import ResNet

    write_faces(tmp_path / "faces", COUNT, COUNT, 0, SIZE, DEMO)
    (tmp_path / "study.py").write_text(STUDY)
    flags = ["--workdir", str(tmp_path / "s"), "--data", str(tmp_path / "faces")]
    assert status(study, [str(tmp_path / "study.py"), *flags]) == 0
    run = tmp_path / "s" / "one" / "seed0" / "run"
    file = run / "encoder.safetensors"
    embed.embed([str(tmp_path / "faces")], str(file), "online", tmp_path / "f.npz")
    own = probed(tmp_path / "a", encoder=str(run))
    told = json.loads((tmp_path / "s" / "table.json").read_text())["arms"]["one"]["scores"]
    assert [cell["values"] for cell in told.values()] == [[own["balanced_accuracy"]], [own["accuracy"]]]
    assert probed(tmp_path / "b", encoder=str(file))["confusion"] == own["confusion"]
    assert probed(tmp_path / "c", features=str(tmp_path / "f.npz"))["confusion"] == own["confusion"]

    network = ResNet((1, 1), 4)
    arrays, metadata = read_arrays(file)
    mean, std = (np.float32(json.loads(metadata[name])) for name in ("mean", "std"))
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, strict=False)
    network.eval()
    sets = []
    for split in ("train", "val"):
        source = FolderSource(tmp_path / "faces", labelled=True, split=split)
        images = np.stack([decode(source[number].data, SIZE) for number in range(len(source))]).astype(np.float32)
        with torch.no_grad():
            features = network(torch.from_numpy((images / 255 - mean) / std).permute(0, 3, 1, 2)).numpy()
        sets.append((features, source.labels))
    centre, spread = sets[0][0].mean(0), np.maximum(sets[0][0].std(0), 1e-12)  # some features are 0 everywhere
    (train, labels), (val, truth) = [((features - centre) / spread, numbers) for features, numbers in sets]
    theirs = linear_model.LogisticRegression(C=1 / (own["l2"] * len(labels)), max_iter=5000, tol=1e-7).fit(
        train, labels
    )
    found = metrics.balanced_accuracy_score(truth, theirs.predict(val))
    assert found == pytest.approx(own["balanced_accuracy"], abs=0.002)
    assert own["balanced_accuracy"] > 0.2  # of eight classes: not by chance
