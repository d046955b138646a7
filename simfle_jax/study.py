"""`python -m simfle_jax.study` is the command in simfle_jax/commands/study.py."""

from simfle_jax.commands.study import main

if __name__ == "__main__":
    main()
