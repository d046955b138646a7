"""Arrays in signatures: `Float[Array, "batch height width channel"]` names the kind of number and every axis.

The tests check these types whenever a function is called or traced (tests/conftest.py); outside of them they cost
nothing. Within one signature the same word is the same length, `{size}` is the argument of that name, and `*batch` is
any number of axes. A single axis is written with a blank before it, as in `" batch"`, for the linter's sake.

The words, the same everywhere: batch, height, width, channel (of images and of feature maps), patch (of an image), pixel
(of a patch, its channels apart), kept (patches), token, group (of channels), feature (of a vector), projection (its
features behind a head), input and output (of a layer), class, image (of a whole data set), set, epoch.
"""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray  # for what is called both under jit and with the arrays that a loader gives
