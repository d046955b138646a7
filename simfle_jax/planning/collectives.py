"""What devices exchange in one step, read from the compiled program's text."""

import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
WIDTHS = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}

_INSTRUCTION = re.compile(rf"^\s*(?:ROOT )?%?\S+ = (.*?) ({'|'.join(KINDS)})(-start)?\((.*)$")
_ARRAY = re.compile(rf"\b({'|'.join(WIDTHS)})\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")


class Collective(NamedTuple):
    """One exchange. `arrays` are the (type, elements) that it combines, `times` how often a step runs it."""

    kind: str
    arrays: tuple[tuple[str, int], ...]
    times: int

    @property
    def bytes(self) -> int:
        """Size of the whole arrays (of an all-gather, what every device has afterwards)."""
        return sum(WIDTHS[kind] * size for kind, size in self.arrays)


def collectives(text: str, devices: int, loop_times: int = 1) -> list[Collective]:
    """The collectives of a compiled program, the text of `compiled.as_text()`.

    loop_times: how often loops with collectives in them run; here that is the loop over micro-batches alone.
    """
    bodies = dict(computations(text))
    looped = _reachable(bodies, re.findall(r"\bwhile\(.*?\bbody=%?([\w.\-]+)", text))
    found: dict[object, Collective] = {}
    for name, lines in bodies.items():
        for number, line in enumerate(lines):
            match = _INSTRUCTION.match(line)
            if not match:
                continue
            # A TPU's program may advance one exchange in many steps that share its channel.
            channel = re.search(r"channel_id=(\d+)", line)
            key = (match[2], channel[1]) if channel else (name, number)
            found[key] = _collective(match, devices, loop_times if name in looped else 1)
    return list(found.values())


def _collective(match: re.Match[str], devices: int, times: int) -> Collective:
    kind, started = match[2], bool(match[3])
    arrays = [(a, _elements(dims)) for a, dims in _ARRAY.findall(match[1])]
    if started and kind in ("all-gather", "collective-permute"):  # (operands, results, ...): the results are wanted
        arrays = arrays[len(arrays) // 2 :] if kind == "all-gather" else arrays[:1]
    if kind == "reduce-scatter":
        arrays = [(a, size * devices) for a, size in arrays[len(arrays) // 2 if started else 0 :]]
    return Collective(kind, tuple(arrays), times)


def _elements(dimensions: str) -> int:
    count = 1
    for size in filter(None, dimensions.split(",")):
        count *= int(size)
    return count


def array_bytes(shape: str) -> int:
    """Of all arrays in a shape as programs' texts have it, such as `(bf16[8,4]{1,0}, f32[4]{0})`."""
    return sum(WIDTHS[kind] * _elements(dims) for kind, dims in _ARRAY.findall(shape))


def computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """The names of a program's computations, and their instructions as lines; the entry is the last one."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            name, lines = header[1], []
        elif line.startswith("}"):
            yield name, lines
            name, lines = "", []
        else:
            lines.append(line)


def _reachable(bodies: dict[str, list[str]], start: list[str]) -> set[str]:
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [called for line in bodies.get(name, ()) for called in _CALLED.findall(line)]
    return seen


def seconds(kind: str, size: float, devices: int, link: float, latency: float) -> float:
    """Time of one exchange of `size` bytes in a ring: an all-reduce sends nearly everything twice, the others once."""
    passes = 2 if kind == "all-reduce" else 1
    return passes * size * (devices - 1) / devices / link + latency
