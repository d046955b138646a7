"""PyTorch on the same device, the yardsticks of train_step.py."""

from collections.abc import Callable
from functools import partial

import jax
import torch
from torch import Tensor

from benchmarks import torch_simfle
from simfle_jax.config import Config
from simfle_jax.weights.torch_resnet import ResNet


def contestants(config: Config) -> dict[str, Callable[[], None]]:
    """Calls that run on a batch in training mode, and wait, by name.

    'torch ResNet-50' is forward and backward of the config's trunk on one view, 'torch step' a whole step with semantic
    masking but without augmentation, both channels last; 'torch step, default layout' is the same step in a program
    that says nothing of layouts. In float32 a GPU may use TF32, PyTorch's usual setting for speed; bfloat16 runs under
    autocast.
    """
    device = torch.device("cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu")
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
