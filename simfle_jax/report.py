"""`python -m simfle_jax.report` is the command in simfle_jax/commands/report.py."""

from simfle_jax.commands.report import main

if __name__ == "__main__":
    main()
