"""`python -m simfle_jax.demo_long` is the command in simfle_jax/commands/demo_long.py."""

from simfle_jax.commands.demo_long import main

if __name__ == "__main__":
    main()
