"""`python -m simfle_jax.masks` is the command in simfle_jax/commands/masks.py."""

from simfle_jax.commands.masks import main

if __name__ == "__main__":
    main()
