"""`python -m simfle_jax.video` is the command in simfle_jax/commands/video.py."""

from simfle_jax.commands.video import main

if __name__ == "__main__":
    main()
