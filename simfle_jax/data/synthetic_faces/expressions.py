"""Eight expressions as combinations of facial action units.

The combinations follow Ekman and Friesen's Facial Action Coding System (EMFACS tables): each expression has a few
variants, every image draws one of them, its overall strength, and an intensity of its own for each unit.
"""

import numpy as np

EXPRESSIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")

# Brows 1 2 4; lids 5 7 43; cheeks 6; nose 9; lips 10 12 14 15 17 20 23 25; jaw 26 27.
UNITS = (
    "AU1", "AU2", "AU4", "AU5", "AU6", "AU7", "AU9", "AU10", "AU12", "AU14", "AU15", "AU17", "AU20", "AU23", "AU25",
    "AU26", "AU27", "AU43",
)  # fmt: skip

_VARIANTS: dict[str, tuple[dict[str, float], ...]] = {
    "anger": (
        dict(AU4=1.0, AU5=0.45, AU7=0.6, AU17=0.4, AU23=0.9),
        dict(AU4=1.0, AU5=0.6, AU7=0.5, AU10=0.5, AU23=0.4, AU25=0.7, AU26=0.35),
    ),
    "contempt": (
        dict(AU12=0.65, AU14=1.0),
        dict(AU12=0.45, AU14=0.9, AU7=0.25, AU2=0.55),
    ),
    "disgust": (
        dict(AU4=0.45, AU7=0.7, AU9=1.0, AU10=0.8, AU17=0.5, AU15=0.35),
        dict(AU4=0.35, AU7=0.6, AU9=0.9, AU10=1.0, AU25=0.6),
    ),
    "fear": (
        dict(AU1=1.0, AU2=0.5, AU4=0.55, AU5=1.0, AU20=1.0, AU25=0.8, AU26=0.25),
        dict(AU1=0.9, AU2=0.4, AU4=0.5, AU5=0.9, AU20=0.9, AU25=0.5),
    ),
    "happiness": (
        dict(AU6=0.8, AU12=1.0, AU25=0.9),
        dict(AU6=0.7, AU12=0.85),
        dict(AU6=1.0, AU12=1.0, AU25=0.9, AU26=0.45),
    ),
    "neutral": ({},),
    "sadness": (
        dict(AU1=1.0, AU4=0.4, AU15=1.0, AU17=0.55, AU43=0.3),
        dict(AU1=0.9, AU4=0.3, AU15=0.9, AU43=0.45),
    ),
    "surprise": (
        dict(AU1=1.0, AU2=1.0, AU5=0.7, AU25=0.5, AU26=0.5, AU27=0.75),
        dict(AU1=0.9, AU2=1.0, AU5=0.6, AU25=0.5, AU26=0.8, AU27=0.2),
    ),
}
_ONE_SIDED = {"contempt": ("AU2", "AU12", "AU14")}


def sample_units(rng: np.random.Generator, expression: str, strength: float) -> dict[str, np.ndarray]:
    """Intensities in [0, 1] of every action unit, one for each half of the face: {unit: [image left, right]}."""
    variants = _VARIANTS[expression]
    chosen = variants[rng.integers(len(variants))]
    target = np.array([chosen.get(unit, 0.0) for unit in UNITS])[:, None]
    # Every unit varies around its share of the expression, a little differently on the two sides, and faint
    # movements that belong to no expression (a raised brow, a tense lid) come on top.
    overall = rng.uniform(0.75, 1.0)
    own = rng.uniform(0.75, 1.2, (len(UNITS), 1)) * rng.uniform(0.9, 1.1, (len(UNITS), 2))
    faint = rng.uniform(0, 0.25, (len(UNITS), 1)) * (rng.random((len(UNITS), 1)) < 0.15)
    values = target * overall * own + faint
    side = rng.integers(2)
    for unit in _ONE_SIDED.get(expression, ()):
        values[UNITS.index(unit), side] *= 0.1
    values = strength * values.clip(0, 1)
    return dict(zip(UNITS, values))
