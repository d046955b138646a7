"""Facts of single images in a csv: people's votes as soft labels, and the groups that scores are told for."""

import csv
import hashlib

import numpy as np

from simfle_jax.data.classes import class_key
from simfle_jax.data.sources import Source
from simfle_jax.errors import UserError
from simfle_jax.runs.at_hand import content

GROUPS = 20  # different values of a column at most: more are no groups


class ImageTable:
    """The lines of a csv by the `name` of their image, which ends in CLASS/IMAGE or SPLIT/CLASS/IMAGE.

    Raises:
        UserError: the file cannot be read, has no column `name` or no other, or names an image twice.
    """

    def __init__(self, file: str):
        self.file = file
        try:
            found = content(file)
            reader = csv.DictReader(found.decode("utf-8-sig").splitlines(), restval="")
            self.columns = tuple(column for column in reader.fieldnames or () if column != "name")
            lines = list(reader)
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{file} cannot be read as a csv: {error}") from None
        self.digest = hashlib.sha256(found).hexdigest()
        if "name" not in (reader.fieldnames or ()) or not self.columns:
            raise UserError(f"{file} must begin with a line of columns, `name` and others; it is {reader.fieldnames}")
        self.rows: dict[str, dict[str, str]] = {}
        for number, line in enumerate(lines, 2):
            if line["name"] in self.rows:
                raise UserError(f"{file}, line {number}: {line['name']} is there twice")
            self.rows[line["name"]] = line

    def row(self, split: str, name: str) -> dict[str, str] | None:
        """The line of an image of a split, or None."""
        return self.rows.get(f"{split}/{name}", self.rows.get(name))


def read_votes(file: str, source: Source, split: str, classes: tuple[str, ...]) -> tuple[np.ndarray, str]:
    """Shares of the votes of every image of a source over the classes, float32 [n, K]; and the file's digest.

    Columns are found by the classes' names; votes for anything else, as for `unknown`, do not count.

    Raises:
        UserError: a class has no column, an image no line, or a line no vote for a class.
    """
    table = ImageTable(file)
    columns = {class_key(column): column for column in table.columns}
    lacking = [name for name in classes if class_key(name) not in columns]
    if lacking:
        raise UserError(f"data.votes: {file} has no column {lacking[0]}, only {', '.join(table.columns)}")
    votes = np.zeros((len(source), len(classes)), np.float32)
    for number in range(len(source)):
        name = source.name(number)
        row = table.row(split, name)
        if row is None:
            raise UserError(f"data.votes: {file} has no line for {split}/{name}; prepare writes votes.csv with all")
        try:
            votes[number] = [float(row[columns[class_key(label)]]) for label in classes]
        except (TypeError, ValueError):
            raise UserError(f"data.votes: {file}: the votes for {split}/{name} are not all numbers") from None
        if not np.isfinite(votes[number]).all() or votes[number].min() < 0 or votes[number].sum() <= 0:
            raise UserError(f"data.votes: {file}: {split}/{name} needs votes of 0 or more, one above 0")
    return votes / votes.sum(1, keepdims=True), table.digest


def read_groups(file: str, names: list[str], split: str) -> dict[str, list[str]]:
    """The value of every column of the csv for each of the images; '' for an image without a line.

    Raises:
        UserError: no image has a line, or a column has too many values to be groups.
    """
    table = ImageTable(file)
    rows = [table.row(split, name) for name in names]
    if not any(rows):
        raise UserError(f"data.groups: {file} has no line for any image of {split}, such as {names[0]}")
    found = {column: [row[column] if row else "" for row in rows] for column in table.columns}
    for column, values in found.items():
        if len(set(values)) > GROUPS:
            raise UserError(
                f"data.groups: the column {column} of {file} has {len(set(values))} values: name at most {GROUPS} groups"
            )
    return found
