"""`python -m simfle_jax.faces` is the command in simfle_jax/commands/faces.py."""

from simfle_jax.commands.faces import main

if __name__ == "__main__":
    main()
