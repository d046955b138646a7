"""`python -m simfle_jax.plan` is the command in simfle_jax/commands/plan.py."""

from simfle_jax.commands.plan import main

if __name__ == "__main__":
    main()
