"""`python -m simfle_jax.prepare` is the command in simfle_jax/commands/prepare.py."""

from simfle_jax.commands.prepare import main

if __name__ == "__main__":
    main()
