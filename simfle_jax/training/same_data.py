"""That all processes of a run list the same images, and their fingerprint, which only one of them finds out."""

import jax
import numpy as np

from simfle_jax.data.sources import Record, Source
from simfle_jax.errors import UserError
from simfle_jax.runs import peers


class KnownSource:
    """A source with a fingerprint that was told by another process."""

    def __init__(self, source: Source, fingerprint: str):
        self._source, self.fingerprint = source, fingerprint
        self.classes: tuple[str, ...] | None = source.classes
        self.labels: np.ndarray | None = source.labels

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        return self._source[index]

    def name(self, index: int) -> str:
        return self._source.name(index)


def same_data(source: Source) -> Source:
    """The source with the fingerprint that process 0 finds: a file server is asked for all sizes once, not by each.

    Raises:
        UserError: on all processes, when one of them lists other images.
    """
    if jax.process_count() == 1:
        return source
    # Only sources that must ask every file have a quick one; in others the whole one is a few reads.
    quick = peers.gather_texts(peers.together(lambda: getattr(source, "quick_fingerprint", None) or source.fingerprint))
    for index, other in enumerate(quick):
        if other != quick[0]:
            raise UserError(
                f"process {index} has other images than process 0, in number, names or sizes: "
                "start all processes with the same data"
            )
    first = jax.process_index() == 0
    return KnownSource(source, peers.gather_texts(peers.together(lambda: source.fingerprint if first else ""))[0])
