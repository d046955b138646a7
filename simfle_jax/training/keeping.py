"""The decoded images kept on disk (`data.cache`), where several processes start at once and a signal may come."""

from simfle_jax.config import Config
from simfle_jax.data.cache import Interrupted, cached
from simfle_jax.data.sources import Source
from simfle_jax.runs import peers
from simfle_jax.training.stop import Stop


def kept(source: Source, config: Config, stop: Stop) -> Source:
    """The source, read from its cache where the settings name one; leaves the process when it is asked to stop.

    All processes must call it. A signal to one ends all of them.
    """
    data = config.data
    if not data.cache:
        return source

    def build() -> Source | None:
        try:
            return cached(source, config.canvas, data.cache, data.threads, stop.noticed, config.least_side)
        except Interrupted:
            return None

    found = peers.together(build)
    if "" in peers.gather_texts("whole" if found else ""):
        stop.leave_unsaved("while the cache of decoded images was built")
    assert found is not None
    return found
