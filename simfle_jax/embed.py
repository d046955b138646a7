"""`python -m simfle_jax.embed` is the command in simfle_jax/commands/embed.py."""

from simfle_jax.commands.embed import main

if __name__ == "__main__":
    main()
