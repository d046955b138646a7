"""Pre-trains a face encoder with SimFLE.

    python train.py --config=configs/simfle.py --config.data.path=FACES --workdir=RUN

The same command again continues the run. Any setting is overridden as --config.KEY=VALUE.
"""

from typing import Any

from absl import flags

from simfle_jax import distributed
from simfle_jax.commands import cli
from simfle_jax.storage import is_bucket, refuse_bucket

ON_DISK = {  # settings of the data, and what to give in place of a bucket
    "cache": "give a path there: every host fills its own from the images in the bucket",
    "listing": "give a file there that all hosts see, or leave it out: images in a bucket need none",
}


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    cli.run(_run, __doc__, argv)


def _run(config: Any, workdir: str) -> None:
    """Checks the settings before anything slow is imported, then trains."""
    from simfle_jax.config import pretraining

    settings = pretraining(config)
    for name, remedy in ON_DISK.items():
        refuse_bucket(getattr(settings.data, name), f"--config.data.{name}", remedy)
    in_bucket = [is_bucket(place) for place in (settings.data.path, workdir)]  # tells of a wrong name at once
    if not distributed.join_by_flags() and settings.data.source == "folder" and not settings.data.sources:
        from simfle_jax.data.sources import existing_folder

        if not in_bucket[0]:
            existing_folder(settings.data.path)  # several processes tell a wrong path together, later
    from simfle_jax import compilation
    from simfle_jax.evaluation.monitor import make_monitor
    from simfle_jax.reporting.live import make_live
    from simfle_jax.training.loop import train

    compilation.require_device()
    train(settings, workdir, flags.FLAGS.peer_timeout, make_monitor(settings), make_live(settings))
