"""`python -m simfle_jax.push` is the command in simfle_jax/commands/push.py."""

from simfle_jax.commands.push import main

if __name__ == "__main__":
    main()
