"""`python -m simfle_jax.convert` is the command in simfle_jax/commands/convert.py."""

from simfle_jax.commands.convert import main

if __name__ == "__main__":
    main()
