"""PyTorch on the same device, the yardsticks of train_step.py."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import torch

from benchmarks import torch_simfle
from simfle_jax.config import Config
from simfle_jax.weights.torch_resnet import ResNet

NAMES = ("trunk", "step", "step, default layout")


@contextlib.contextmanager
def in_own_process(name: str, config: Config, device: str) -> Iterator[Callable[[], None]]:
    """`contestant` alone in a process, as it trains anywhere else.

    Programs in one process share malloc, and what one of them keeps or gives back slows or speeds up the others.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, name, config, device), daemon=True)
    process.start()
    theirs.close()

    def call() -> None:
        ours.send(None)
        ours.recv()

    try:
        ours.recv()
        yield call
    finally:
        ours.close()
        process.join()


def _serve(pipe: Connection, name: str, config: Config, device: str) -> None:
    call = contestant(name, config, torch.device(device))
    with contextlib.suppress(EOFError):  # the other side has closed
        while True:
            pipe.send(None)
            pipe.recv()
            call()


def contestant(name: str, config: Config, device: torch.device, compiled: bool = False) -> Callable[[], None]:
    """A call that runs on a batch in training mode, and waits.

    name: 'trunk', forward and backward of the config's trunk on one view; 'step', a whole step with semantic masking
        but without augmentation, both channels last; or 'step, default layout', the same step in a program that says
        nothing of layouts. In float32 a GPU may use TF32, PyTorch's usual setting for speed; bfloat16 runs under
        autocast.
    compiled: whether the loss of a step goes through torch.compile.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    m, v = config.trunk, config.views
    layout = torch.contiguous_format if name == "step, default layout" else torch.channels_last
    views = [
        torch.randn((config.batch_size, 3, size, size), device=device).contiguous(memory_format=layout)
        for size in (v.size, v.size, v.plain_size)
    ]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    if name != "trunk":
        step = torch_simfle.Step(config, device, layout)
        if compiled:
            step.loss = torch.compile(step.loss)  # type: ignore[method-assign]

        def whole() -> None:
            step(*views)
            wait()

        return whole

    model = ResNet(m.stage_sizes, m.width, m.last_stride, block=torch_simfle.BLOCKS[m.kind]).to(device).train()
    model = model.to(memory_format=layout)  # type: ignore[call-overload]

    def one_view() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            features = model(views[0])
        features.float().square().mean().backward()
        wait()

    return one_view
