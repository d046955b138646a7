"""PyTorch on the same device, the yardsticks of train_step.py."""

import contextlib
import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from benchmarks import torch_simfle
from simfle_jax.config import Config
from simfle_jax.weights.torch_resnet import ResNet


def in_own_process(config: Config, device: str) -> dict[str, Callable[[], None]]:
    """`contestants` of a process of its own, as they train anywhere else.

    In one process two libraries share malloc, and what the one keeps or gives back slows or speeds up the other.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs, config, device), daemon=True).start()
    theirs.close()

    def call(name: str) -> None:
        ours.send(name)
        ours.recv()

    return {name: partial(call, name) for name in ours.recv()}


def _serve(pipe: Connection, config: Config, device: str) -> None:
    calls = contestants(config, torch.device(device))
    pipe.send(list(calls))
    with contextlib.suppress(EOFError):  # the other side has ended
        while True:
            pipe.send(calls[pipe.recv()]())


def contestants(config: Config, device: torch.device) -> dict[str, Callable[[], None]]:
    """Calls that run on a batch in training mode, and wait, by name.

    'torch ResNet-50' is forward and backward of the config's trunk on one view, 'torch step' a whole step with semantic
    masking but without augmentation, both channels last; 'torch step, default layout' is the same step in a program
    that says nothing of layouts. In float32 a GPU may use TF32, PyTorch's usual setting for speed; bfloat16 runs under
    autocast.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    m = config.model
    model = ResNet(m.stage_sizes, m.width, m.last_stride).to(device).train()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    views = [
        torch.randn((config.batch_size, 3, size, size), device=device)
        for size in (config.views.size, config.views.size, config.views.plain_size)
    ]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def one_view(view: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            features = model(view)
        features.float().square().mean().backward()
        wait()

    def whole(layout: torch.memory_format) -> Callable[[], None]:
        step = torch_simfle.Step(config, device, layout)
        images = [view.contiguous(memory_format=layout) for view in views]

        def call() -> None:
            step(*images)
            wait()

        return call

    return {
        "torch ResNet-50": partial(one_view, views[0].contiguous(memory_format=torch.channels_last)),
        "torch step": whole(torch.channels_last),
        "torch step, default layout": whole(torch.contiguous_format),
    }
