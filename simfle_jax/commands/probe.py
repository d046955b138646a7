"""Probes a frozen face encoder with a linear classifier.

    python probe.py --config=configs/probe.py --config.encoder=RUN --config.data.path=DIR --workdir=PROBE

DIR holds train/CLASS/IMAGE and val/CLASS/IMAGE. With --config.eval_only=True the probe in PROBE is only evaluated.
"""

from typing import Any

from simfle_jax import distributed
from simfle_jax.commands import cli


def main(argv: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and status 2."""
    cli.run(_run, __doc__, argv)


def _run(config: Any, workdir: str) -> None:
    """Checks the settings before anything slow is imported, then probes."""
    from simfle_jax.evaluation.settings import probing, trains_trunk

    settings = probing(config)
    if trains_trunk(settings) and not settings.eval_only:
        distributed.join_by_flags()
    else:
        distributed.refuse_several("a probe that trains no trunk")
    from simfle_jax.evaluation.probe import run_probe

    run_probe(settings, workdir)
