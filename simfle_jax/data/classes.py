"""Classes by name: sources number the same classes differently, so labels are mapped wherever two of them meet."""

import unicodedata

import numpy as np

from simfle_jax.data.sources import Record, Source, check_same_classes
from simfle_jax.errors import UserError


def class_key(name: str) -> str:
    """What makes two class names the same: file systems store one name in several Unicode forms (NFC, NFD)."""
    return unicodedata.normalize("NFC", name).strip()


def numbering(classes: tuple[str, ...], where: str) -> dict[str, int]:
    """The number of every class by its key.

    Raises:
        UserError: two of the names are the same but for Unicode form or spaces at the ends.
    """
    numbers = {class_key(name): number for number, name in enumerate(classes)}
    if len(numbers) < len(classes):
        alike = [name for name in classes if [class_key(other) for other in classes].count(class_key(name)) > 1]
        raise UserError(
            f"{where} has classes whose names look alike: {', '.join(map(ascii, alike))}; merge or rename them"
        )
    return numbers


def with_classes(source: Source, classes: tuple[str, ...], where: str, remedy: str = "make them equal") -> Source:
    """The source with its labels renumbered by name into the order of `classes`; remedy: as of `check_same_classes`.

    Raises:
        UserError: the source, which the message calls `where`, has other classes.
    """
    numbers, found = numbering(classes, "train"), source.classes or ()
    own = numbering(found, where)
    check_same_classes(tuple(numbers), tuple(own), where, remedy)
    return (
        source if found == classes else Renumbered(source, classes, np.array([numbers[key] for key in own], np.int32))
    )


class Renumbered:
    """A labelled source with other numbers for its classes: `numbers[k]` stands for its own class k."""

    def __init__(self, source: Source, classes: tuple[str, ...], numbers: np.ndarray):
        assert source.labels is not None
        self.source = source
        self.classes: tuple[str, ...] | None = classes
        self.labels: np.ndarray | None = numbers[source.labels]

    @property
    def fingerprint(self) -> str:
        """That of the source: its listing is the same."""
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        assert self.labels is not None
        return self.source[index]._replace(label=int(self.labels[index]))

    def name(self, index: int) -> str:
        """That of the source."""
        return self.source.name(index)
