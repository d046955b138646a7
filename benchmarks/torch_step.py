"""ResNet-50 in PyTorch on the same device, the yardsticks of train_step.py."""

from collections.abc import Callable

import jax
import torch
from torch import Tensor

from simfle_jax.config import Config
from simfle_jax.weights.torch_resnet import ResNet


def contestants(config: Config) -> dict[str, Callable[[], None]]:
    """Calls that run the config's trunk on a batch in training mode, and wait, by name.

    'torch ResNet-50' is forward and backward of one view. 'torch trunk' is all that a step asks of the trunk: forward
    and backward of two views, the target's forward of both, a forward of the plain images; no heads, no FaceMAE, no
    augmentation and no update, so less than any SimFLE step in PyTorch. In float32 a GPU may use TF32, PyTorch's usual
    setting for speed; bfloat16 runs under autocast. Channels last.
    """
    device = torch.device("cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    m = config.model
    model = ResNet(m.stage_sizes, m.width, m.last_stride).to(device).train()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def images(size: int) -> Tensor:
        noise = torch.randn((config.batch_size, 3, size, size), device=device)
        return noise.contiguous(memory_format=torch.channels_last)

    def forward_and_backward(*views: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            features = [model(view) for view in views]
        torch.stack([each.float().square().mean() for each in features]).sum().backward()

    def forward(*views: Tensor) -> None:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            for view in views:
                model(view)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    first, second, plain = images(config.views.size), images(config.views.size), images(config.views.plain_size)

    def one_view() -> None:
        forward_and_backward(first)
        wait()

    def trunk() -> None:
        forward(first, second, *([plain] if m.facemae and m.masking == "semantic" else []))
        forward_and_backward(first, second)
        wait()

    return {"torch ResNet-50": one_view, "torch trunk": trunk}
