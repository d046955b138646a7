"""Pre-trains a face encoder with SimFLE.

    python train.py --config=configs/simfle.py --config.data.path=FACES --workdir=RUN

The same command again continues the run. Any setting is overridden as --config.KEY=VALUE.
"""

from simfle_jax.commands.train import main

if __name__ == "__main__":
    main()
