"""Arrays in signatures: `Float[Array, "batch height width channel"]` names the kind of number and every axis.

The tests check these types whenever a function is called or traced (tests/conftest.py); outside of them they cost
nothing. Within one signature the same word is the same length, `{size}` is the argument of that name, and `*batch` is
any number of axes. A single axis is written with a blank before it, as in `" batch"`, for the linter's sake.

The words, the same everywhere: batch, height, width, channel (of images and of feature maps), patch (of an image), pixel
(of a patch, its channels apart), kept (patches), token, group (of channels), feature (of a vector), projection (its
features behind a head), input and output (of a layer), class, image (of a whole data set), set, epoch.
"""

from typing import TYPE_CHECKING

import jax
import numpy as np

# What may come from NumPy too, as weights from a file do and images from a loader. It is used as a jax.Array is, and is
# one to mypy, which would otherwise take every result for either of the two.
if TYPE_CHECKING:
    AnyArray = jax.Array
else:
    AnyArray = jax.Array | np.ndarray
