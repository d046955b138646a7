"""`python -m simfle_jax.compare` is the command in simfle_jax/commands/compare.py."""

from simfle_jax.commands.compare import main

if __name__ == "__main__":
    main()
