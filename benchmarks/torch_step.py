"""Forward and backward of ResNet-50 in PyTorch on the same device, the yardstick of train_step.py."""

from collections.abc import Callable

import jax
import torch

from simfle_jax.config import Config
from simfle_jax.weights.torch_resnet import ResNet


def resnet50_step(config: Config) -> Callable[[], None]:
    """A call that runs a batch of views forward and backward through the config's trunk, training mode, and waits.

    In float32 a GPU may use TF32, PyTorch's usual setting for speed; bfloat16 runs under autocast. Channels last.
    """
    device = torch.device("cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    m = config.model
    model = ResNet(m.stage_sizes, m.width, m.last_stride).to(device).train()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shape = (config.batch_size, 3, config.views.size, config.views.size)
    images = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            features = model(images)
        features.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step
