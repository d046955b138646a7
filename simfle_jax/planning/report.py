"""What the compiled step needs and how fast it can be, as one table or as JSON."""

import dataclasses
import math
from collections import defaultdict
from typing import Any

from simfle_jax.planning.collectives import Collective, seconds
from simfle_jax.planning.targets import Target
from simfle_jax.training.memory import BY_DEFAULT, FRACTION


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device; `workspace` holds activations, gradients and whatever else lives within a step."""

    parameters: int
    target_parameters: int
    optimizer: int
    statistics: int
    images: int
    workspace: int
    program: int

    @property
    def total(self) -> int:
        """All that lives at once."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Plan:
    """One training step on a target.

    flops: of all products and convolutions, per device, counted from the program. compiler_flops, compiler_bytes and
    compiler_seconds are the compiler's own, None where it gives none. expected: bytes to reduce, by hand.
    """

    target: Target
    batch_size: int
    dtype: str
    memory: Memory
    collectives: list[Collective]
    expected: dict[str, int]
    flops: float
    compiler_flops: float | None
    compiler_bytes: float | None
    compiler_seconds: float | None

    @property
    def fits(self) -> bool:
        """Whether the memory of a device suffices."""
        return self.memory.total <= self.target.chip.memory

    @property
    def exchanges(self) -> dict[str, tuple[int, int, int]]:
        """By kind: how many in a step, their bytes, and the bytes of the largest."""
        kinds = defaultdict(list)
        for c in self.collectives:
            kinds[c.kind].append(c)
        return {
            kind: (sum(c.times for c in found), sum(c.times * c.bytes for c in found), max(c.bytes for c in found))
            for kind, found in sorted(kinds.items())
        }

    @property
    def compute_seconds(self) -> float:
        """The compiler's estimate, or all products at the device's peak."""
        return self.compiler_seconds or self.flops / self.target.chip.peak

    @property
    def exchange_seconds(self) -> float:
        """All collectives one after the other, nothing hidden behind computation."""
        chip, count = self.target.chip, self.target.count
        latency = chip.hop * sum(self.target.shape)
        return sum(c.times * seconds(c.kind, c.bytes, count, chip.link, latency) for c in self.collectives)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: bytes and seconds per device and step; what is not known is None."""
        step = self.compute_seconds + self.exchange_seconds
        found = {
            "target": self.target.name,
            "devices": self.target.count,
            "batch_size": self.batch_size,
            "dtype": self.dtype,
            "memory": dataclasses.asdict(self.memory)
            | {"total": self.memory.total, "available": self.target.chip.memory},
            "fits": self.fits,
            "collectives": {
                kind: {"count": count, "bytes": size, "largest": largest}
                for kind, (count, size, largest) in self.exchanges.items()
            },
            "exchanges": [c._asdict() for c in self.collectives],
            "expected_bytes": self.expected,
            "flops": self.flops,
            "compiler": {"flops": self.compiler_flops, "bytes": self.compiler_bytes, "seconds": self.compiler_seconds},
            "compute_seconds": self.compute_seconds,
            "exchange_seconds": self.exchange_seconds,
            "images_per_second": self.batch_size / step if step else math.nan,
            "efficiency": self.compute_seconds / step if step else math.nan,
            "share_of_peak": self.flops / self.target.chip.peak / step if step else math.nan,
        }
        return _without_unknown(found)

    def table(self) -> str:
        """The same for reading."""
        chip, count = self.target.chip, self.target.count
        lines = [
            f"{count} x {chip.title}, batch {self.batch_size} ({self.batch_size // count} a device), {self.dtype}",
            *("", "memory of a device", *self._memory_lines()),
            *("", "exchanged in a step", *self._exchange_lines()),
            *("", "time of a step", *self._time_lines()),
        ]
        return "\n".join(lines)

    def _memory_lines(self) -> list[str]:
        names = {"workspace": "activations and workspace"}
        lines = [
            f"  {names.get(name, name.replace('_', ' ')):<28}{_size(size):>12}"
            for name, size in dataclasses.asdict(self.memory).items()
        ]
        available = self.target.chip.memory
        verdict = "" if math.isinf(available) else f" of {_size(available)}: {'fits' if self.fits else 'DOES NOT FIT'}"
        if self.fits and self.target.chip.platform == "cuda" and self.memory.total > 0.75 * available:
            verdict += f" with {FRACTION}=.95 in the environment: {BY_DEFAULT}"
        return [*lines, f"  {'total':<28}{_size(self.memory.total):>12}{verdict}"]

    def _exchange_lines(self) -> list[str]:
        lines = [
            f"  {kind:<20}{number:5} of {_size(size)} in all, the largest {_size(largest)}"
            for kind, (number, size, largest) in self.exchanges.items()
        ]
        parts = ", ".join(f"{name} {_size(size)}" for name, size in self.expected.items())
        return [*(lines or ["  nothing"]), f"  to reduce, by hand: {_size(sum(self.expected.values()))} ({parts})"]

    def _time_lines(self) -> list[str]:
        lines = [f"  {'products':<28}{self.flops / 1e12:9.4f} TFLOP a device, counted from the program"]
        if self.compiler_flops and self.compiler_bytes:
            lines.append(
                f"  {'all operations':<28}{self.compiler_flops / 1e12:9.4f} TFLOP and {self.compiler_bytes / 1e9:.2f} GB "
                "moved, says the compiler"
            )
        if math.isnan(self.target.chip.peak):
            return lines
        says = (
            "the compiler's estimate" if self.compiler_seconds else "all products at the peak; the compiler gives none"
        )
        found = self.as_dict()
        return [
            *lines,
            f"  {'computation':<28}{self.compute_seconds * 1e3:9.2f} ms, {says}",
            f"  {'exchange':<28}{self.exchange_seconds * 1e3:9.2f} ms, if nothing of it is hidden",
            f"  {'images/s':<28}{found['images_per_second']:9.0f} at most by these figures",
            f"  {'efficiency':<28}{found['efficiency']:9.1%} of the devices' computation alone",
            f"  {'share of the peak':<28}{found['share_of_peak']:9.1%} of {self.target.chip.peak / 1e12:.0f} TFLOP/s",
        ]


def _size(count: float) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 2**power:
            return f"{count / 2**power:.2f} {unit}"
    return f"{count} B"


def _without_unknown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_unknown(v) for key, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
