"""`python -m simfle_jax.tfds_build` is the command in simfle_jax/commands/tfds_build.py."""

from simfle_jax.commands.tfds_build import main

if __name__ == "__main__":
    main()
