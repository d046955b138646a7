"""Batches in memory that is used again: fresh pages cost the system about a tenth of what decoding costs."""

import collections
import math
import weakref

import numpy as np


class Buffers:
    """Hands out uint8 arrays of one shape and takes their memory back when nothing refers to them any more.

    Whoever holds the array, a view of it or a device array that borrows it keeps it; nobody has to give it back.

    Args:
        shape: of every array.
        keep: how many unused ones to keep; the others are freed.
    """

    def __init__(self, shape: tuple[int, ...], keep: int):
        self.shape = shape
        self._free: collections.deque[np.ndarray] = collections.deque(maxlen=keep)

    def take(self) -> np.ndarray:
        """An array, uint8 of `shape`, with whatever was in it before."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(math.prod(self.shape), np.uint8)
        # Views of `array` refer to it and not to `memory`, because numpy does not look through a memoryview: so
        # `array` goes when the last of them does.
        array = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(self.shape)
