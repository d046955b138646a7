"""`python -m simfle_jax.predict` is the command in simfle_jax/commands/predict.py."""

from simfle_jax.commands.predict import main

if __name__ == "__main__":
    main()
