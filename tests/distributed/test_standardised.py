"""Views standardised image by image do not depend on the number of devices."""

import json

import numpy as np
import processes
import small


def test_standardised_views_train_the_same_on_one_and_two_devices(tmp_path):
    images = small.write_images(tmp_path / "images", 24)
    flags = ("--config.views.standardise=image", "--config.epochs=1", "--config.optimizer.lr=0.005")
    lines = {}
    for devices in (1, 2):
        workdir = tmp_path / str(devices)
        ((status, text),) = processes.finish(processes.start(images, workdir, *flags, count=1, devices=devices))
        assert status == 0, text
        lines[devices] = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for one, two in zip(lines[1], lines[2], strict=True):
        shared = [name for name in one if name.startswith("loss/")]
        np.testing.assert_allclose([two[name] for name in shared], [one[name] for name in shared], rtol=1e-4)
