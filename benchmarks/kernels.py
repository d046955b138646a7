"""The kernels of a program compiled for a GPU, read from its text: what they are, whose they are, and the bytes they touch."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from simfle_jax.planning.collectives import array_bytes, computations

# What costs nothing by itself.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
# Whose a kernel is, by the first of these files in the trace of its instruction, from the innermost call outwards.
PARTS = {
    "augment.py": "augmentation", "colour.py": "augmentation", "views.py": "augmentation",
    "facemae.py": "FaceMAE", "transformer.py": "FaceMAE", "semantic_masking.py": "grouping and masking",
    "channel_grouping.py": "grouping and masking", "batch_norm.py": "BatchNorm", "column_sums.py": "BatchNorm",
    "pooling.py": "pooling", "residual.py": "ends of residual blocks", "convolution.py": "convolutions",
    "product.py": "1x1 convolutions and heads", "heads.py": "1x1 convolutions and heads", "optimizer.py": "update",
    "step.py": "update", "losses.py": "losses", "ties.py": "losses", "instruments.py": "instruments",
}  # fmt: skip
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|called_computations)=\{?%?([\w.\-]+)")


class Kernel(NamedTuple):
    """One kernel of a step: `bytes` of its operands and results, run `times`; `detail` tells a convolution's axes."""

    name: str
    kind: str
    part: str
    dtype: str
    detail: str
    bytes: int
    times: int


class Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest[: _closing(self.rest)])


def kernels(text: str) -> list[Kernel]:
    """The kernels that a step of the program runs, the text of `compiled.as_text()`; loops count once for each turn."""
    parsed = {name: [*_instructions(lines)] for name, lines in computations(text)}
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)
    frames = Frames(text)
    return [*_run(parsed, entry[1], 1, frames)] if entry else []


def _instructions(lines: list[str]) -> Iterator[Instruction]:
    for line in lines:
        if match := _INSTRUCTION.match(line):
            yield Instruction(*match.groups())


def _run(parsed: dict[str, list[Instruction]], name: str, times: int, frames: "Frames") -> Iterator[Kernel]:
    shapes = {instruction.name: instruction.shape for instruction in parsed[name]}
    for instruction in parsed[name]:
        opcode = instruction.opcode
        called = _CALLED.findall(instruction.rest)
        if opcode in ("call", "while", "conditional"):
            turns = re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.rest)
            for inner in called:
                yield from _run(parsed, inner, times * int(turns[1]) if turns else times, frames)
        elif opcode not in FREE and not opcode.endswith("-done"):
            inside = [i for inner in called for i in parsed.get(inner, ())]
            touched = [shapes.get(operand, "") for operand in instruction.operands] + [_result(instruction)]
            size = sum(map(array_bytes, touched))
            part = frames.part(instruction.rest) or next(filter(None, (frames.part(i.rest) for i in inside)), "other")
            dtype = re.match(r"\(?(\w+)\[", instruction.shape)
            kind = _kind(instruction, inside)
            yield Kernel(instruction.name, kind, part, dtype[1] if dtype else "", _axes(instruction), size, times)


def _kind(instruction: Instruction, inside: list[Instruction]) -> str:
    opcodes = {i.opcode for i in inside}
    target = re.search(r'custom_call_target="([^"]+)"', instruction.rest)
    if "convolution" in {instruction.opcode, *opcodes} or (target and "conv" in target[1].lower()):
        return "convolution"
    if {"dot", "dot-general"} & {instruction.opcode, *opcodes} or (target and "cublas" in target[1]):
        return "product"
    if target:
        return f"call of {target[1]}"
    if instruction.opcode != "fusion":
        return "copy or transpose" if instruction.opcode in ("copy", "transpose", "copy-start") else instruction.opcode
    if "reduce" in opcodes or "reduce-window" in opcodes:
        return "fusion with sums"
    moves = {"transpose", "copy", "bitcast", "parameter", "constant", "reshape", "slice", "concatenate", "pad", "tuple"}
    return "copy or transpose" if opcodes <= moves | {"convert", "broadcast"} else "fusion by elements"


def _result(instruction: Instruction) -> str:
    """The shape of what an instruction gives, less the scratch memory of a library's call."""
    return (
        re.sub(r"[su]8\[[\d,]*\]", "", instruction.shape) if instruction.opcode == "custom-call" else instruction.shape
    )


def _axes(instruction: Instruction) -> str:
    labels = re.search(r"dim_labels=(\S+?)(?:,|$)", instruction.rest)
    target = re.search(r'custom_call_target="__cudnn\$(\w+)"', instruction.rest)
    return " ".join(found[1] for found in (target, labels) if found)


def _closing(text: str) -> int:
    """Where the parenthesis that is open at the beginning of `text` is closed."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place
    return len(text)


class Frames:
    """Which part of the step an instruction comes from, by the table of stack frames that a program's text begins with."""

    def __init__(self, text: str):
        head = text[: text.find("\n%")] if "\nStackFrames" in text else ""
        files = dict(re.findall(r'^(\d+) "([^"]+\.py)"', head, re.MULTILINE))
        places = re.findall(r"^(\d+) \{file_name_id=(\d+)", head, re.MULTILINE)
        self.files = {place: files.get(file, "").rpartition("/")[2] for place, file in places}
        frames = re.findall(r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?", head, re.MULTILINE)
        self.frames = {frame: (place, parent) for frame, place, parent in frames}

    def part(self, attributes: str) -> str:
        """'' where nothing is known of an instruction."""
        named = re.search(r'source_file="[^"]*?([\w]+\.py)"', attributes)
        found = re.search(r"stack_frame_id=(\d+)", attributes)
        if not found:
            return PARTS.get(named[1], "") if named else ""
        frame, seen = found[1], set[str]()
        while frame in self.frames and frame not in seen:
            seen.add(frame)
            place, parent = self.frames[frame]
            if part := PARTS.get(self.files.get(place, "")):
                return part
            frame = parent
        return ""


def kind_of_name(name: str) -> str:
    """What a kernel of a library does, guessed by its name alone."""
    words = {"convolution": ("conv", "implicit", "wgrad", "dgrad"), "product": ("gemm", "nvjet", "cutlass", "matmul")}
    found = [kind for kind, parts in words.items() if any(part in name.lower() for part in parts)]
    return found[0] if found else "other"
