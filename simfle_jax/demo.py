"""`python -m simfle_jax.demo` is the command in simfle_jax/commands/demo.py."""

from simfle_jax.commands.demo import main

if __name__ == "__main__":
    main()
