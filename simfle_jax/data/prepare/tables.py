"""Lists as people have them: UTF-8, UTF-16 or Latin-1, with commas, semicolons or tabs, with or without a header.

Columns are found by the names in the header, in any order and case and with others beside them; without a header
they stand in the owners' order. A row is one line: a stray quote can spoil its own row, never the rows after it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from simfle_jax.data.prepare.plan import Skipped
from simfle_jax.errors import UserError

DELIMITERS = ",;\t"
SAMPLE = 10  # lines that decide which delimiter a list without a header has
SHOWN = 60  # characters of a row in a message
Value = TypeVar("Value")


class Unreadable(ValueError):
    """A row does not hold what it should; the message says what was expected and what was found."""


class Row(NamedTuple):
    """One line of a list: where it stands, its text, and its stripped cells by the owners' names of the columns."""

    where: str
    line: str
    cells: dict[str, str]
    expected: list[str]  # the columns of the list; '' for one without a meaning

    def text(self, column: str) -> str:
        """The cell of a column. Raises Unreadable where the row ends before it."""
        if column not in self.cells:
            columns = ", ".join(filter(None, self.expected))
            raise Unreadable(f"expected the columns {columns}, found {self.line[:SHOWN]!r}")
        return self.cells[column]

    def number(self, column: str) -> float:
        """A finite number. Raises Unreadable."""
        try:
            value = float(self.text(column))
        except ValueError as error:
            raise self._other("a number", column) from (error if isinstance(error, Unreadable) else None)
        if not math.isfinite(value):
            raise self._other("a number", column)
        return value

    def whole(self, column: str) -> int:
        """A whole number, also written as `3.0`. Raises Unreadable."""
        value = self.number(column)
        if not value.is_integer():
            raise self._other("a whole number", column)
        return int(value)

    def _other(self, expected: str, column: str) -> Unreadable:
        return Unreadable(f"expected {expected} as {column!r}, found {self.text(column)[:SHOWN]!r}")


def rows(path: Path, columns: Sequence[str], needed: Sequence[str] = (), delimiters: str = DELIMITERS) -> Iterator[Row]:
    """The rows of a list, in order; empty ones are passed over. `columns` are the owners', in their order.

    A space among `delimiters` stands for any number of them. Raises UserError when the file has no row, or a header
    without one of `needed` (all columns, if empty).
    """
    lines = _lines(path)
    first = list(islice(lines, SAMPLE))
    if not first:
        raise UserError(f"{path} is empty: expected the columns {', '.join(columns)}; fetch it again")
    header, delimiter = _header(path, first[0], columns, needed or columns, delimiters)
    by_place = not header
    if by_place:
        header, delimiter = _by_place(first, columns, delimiters)
    else:
        first.pop(0)
    for number, line in chain(first, lines):
        cells = _split(line, delimiter)
        if any(cells):
            unclear = by_place and any(cells[len(header) :])  # which column is which, if there is one more?
            named = {} if unclear else {name: cell for name, cell in zip(header, cells) if name}
            yield Row(f"{path.name} line {number}", line, named, header)


def parsed(path: Path, found: Iterable[Row], parse: Callable[[Row], Value], skipped: Skipped) -> Iterator[Value]:
    """What `parse` makes of every row; a row for which it raises Unreadable is skipped and counted.

    Raises UserError, with the first reason, when no row can be read.
    """
    good, reasons = 0, list[str]()
    for row in found:
        try:
            value = parse(row)
        except Unreadable as error:
            skipped.add("row not readable", f"{row.where}: {error}")
            reasons.append(f"{row.where}: {error}")
            continue
        good += 1
        yield value
    if reasons and not good:
        raise UserError(f"{path}: none of its {len(reasons):,} rows can be read; {reasons[0]}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that hold something. Zero bytes, which a full disk leaves, are nothing."""
    encoding = _encoding(path)
    # Bytes that are not UTF-8 keep their value: a name in Latin-1 still finds its file.
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    with path.open(encoding=encoding, errors=errors) as file:
        for number, line in enumerate(file, start=1):
            line = line.replace("\0", "").rstrip("\n")
            if line.strip():
                yield number, line


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(256).rstrip(b"\0")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # These lists are ASCII for the most part: in UTF-16 without its mark every second byte is zero.
    zeros = {"utf-16-le": head[1::2].count(0), "utf-16-be": head[::2].count(0)}
    likely = max(zeros, key=lambda name: zeros[name])
    return likely if zeros[likely] > len(head) // 4 else "utf-8-sig"


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error:  # a field beyond any that these lists have
        return [line]


def _header(
    path: Path, first: tuple[int, str], columns: Sequence[str], needed: Sequence[str], delimiters: str
) -> tuple[list[str], str]:
    """(name of every column, '' for others; delimiter) where the first line is a header, else no names."""
    known = {name.lower(): name for name in columns}
    readings = {d: [known.get(cell.lower(), "") for cell in _split(first[1], d)] for d in delimiters}
    delimiter = max(readings, key=lambda d: sum(map(bool, readings[d])))
    names = readings[delimiter]
    if sum(map(bool, names)) < min(2, len(columns)):
        return [], delimiter
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserError(
            f"{path} line {first[0]}: expected the columns {', '.join(needed)}, found no {', '.join(missing)} in "
            f"{first[1][:200]!r}"
        )
    return names, delimiter


def _by_place(sample: list[tuple[int, str]], columns: Sequence[str], delimiters: str) -> tuple[list[str], str]:
    """(name of every column, delimiter) of a list without a header, which may have a column of row numbers first."""

    def fit(header: list[str], delimiter: str) -> int:
        split = (_split(line, delimiter) for _, line in sample)
        return sum(len(row) == len(header) and (header[0] != "" or row[0].isdigit()) for row in split)

    choices = [(header, d) for header in (list(columns), ["", *columns]) for d in delimiters]
    return max(choices, key=lambda choice: fit(*choice))
