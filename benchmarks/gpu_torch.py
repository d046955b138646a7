"""A whole training step in PyTorch's layers on the device at hand: autocast, channels last, without augmentation.

    python benchmarks/gpu_torch.py --out torch.json [--compiled] [--config configs/simfle_reference.py] [--batch-size 256]

--compiled: the loss through torch.compile. What is known is written at once: the seconds to the first step, then the rest.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # JAX reads the settings here and takes no memory of the card
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks import timing, torch_step
from benchmarks.parts_file import PartsFile
from benchmarks.train_step import settings


def main() -> None:
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    known = {"batch_size": options.batch_size, "dtype": options.dtype, "compiled": options.compiled}
    out = PartsFile(options.out, torch=torch.__version__, device=name, **known)
    step = torch_step.contestant("step", settings(options, options.dtype), device, options.compiled)
    began = time.monotonic()
    step()
    out.add(first_step_seconds=time.monotonic() - began)
    step()
    elapsed = sorted(timing.once(step) for _ in range(options.rounds))[options.rounds // 2]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    out.add(step_seconds=elapsed, images_per_second=options.batch_size / elapsed, peak_device_bytes=peak, complete=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/simfle_reference.py")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--compiled", action="store_true", help="through torch.compile")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="file for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
