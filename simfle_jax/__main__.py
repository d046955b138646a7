"""`python -m simfle_jax COMMAND` is `simfle COMMAND`."""

from simfle_jax.commands.main import main

if __name__ == "__main__":
    main()
