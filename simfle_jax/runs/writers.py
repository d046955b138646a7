"""Optional destinations of the same metrics that metrics.jsonl holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from simfle_jax.config import Config, as_dict
from simfle_jax.errors import UserError

Writer = Callable[[dict[str, Any]], None]


def optional_writers(config: Config, folder: Path) -> tuple[Writer, ...]:
    """The writers that the settings ask for; raises UserError when their package is not installed."""
    wanted = [(config.tensorboard, _tensorboard), (config.wandb, _wandb)]
    return tuple(make(config, folder) for on, make in wanted if on)


def _tensorboard(config: Config, folder: Path) -> Writer:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("config: tensorboard needs `pip install -c requirements.txt -e '.[report]'`") from None
    writer = SummaryWriter(str(folder / "tensorboard"))

    def write(values: dict[str, Any]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, values["step"])

    return write


def _wandb(config: Config, folder: Path) -> Writer:
    try:
        import wandb
    except ImportError:
        raise UserError("config: wandb needs `pip install -c requirements.txt -e '.[report]'`") from None
    run = wandb.init(project="simfle-jax", name=folder.name, dir=folder, config=as_dict(config), resume="allow")
    return lambda values: run.log(values, step=values["step"])
