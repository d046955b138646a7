"""Probes a frozen face encoder with a linear classifier.

    python probe.py --config=configs/probe.py --config.encoder=RUN --config.data.path=DIR --workdir=PROBE

DIR holds train/CLASS/IMAGE and val/CLASS/IMAGE. With --config.eval_only=True the probe in PROBE is only evaluated.
"""

from simfle_jax.commands.probe import main

if __name__ == "__main__":
    main()
