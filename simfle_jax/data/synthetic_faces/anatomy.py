"""Where every part of a face lies, given its identity and its action units.

All curves are in face units (see identity.py) and frontal; camera.py brings them into the image. The 68 landmarks are
points of the very curves that are painted, in the iBUG 300-W order: jaw 0-16 from the left of the image to the right,
brows 17-26, bridge of the nose 27-30, its base 31-35, the eye on the image's left 36-41 (outer corner, upper lid,
inner corner, lower lid), the one on the right 42-47 (inner corner, upper lid, outer corner, lower lid), outer lips
48-59, inner lips 60-67 (each from the left corner over the upper lip to the right corner and back below).
"""

import numpy as np

from simfle_jax.data.synthetic_faces.identity import Identity

Units = dict[str, np.ndarray]

_T5 = np.linspace(0, 1, 5)
_ARC = np.linspace(0, 1, 13)  # holds 1/3 and 2/3, where the lid landmarks lie
_LIPS = np.linspace(-1, 1, 13)  # holds +-2/3, +-1/2, +-1/3, 0, where the lip landmarks lie
_JAW = np.linspace(0, np.pi, 33)
_SIDES = ((0, -1.0), (1, 1.0))  # index into the units' values, sign of x


def curves(person: Identity, units: Units) -> dict[str, np.ndarray]:
    """The face's curves by name, each [points, 2]; names ending in 0 and 1 lie on the image's left and right."""
    drop = jaw_drop(units)
    out = {"jaw": _jaw(person, drop)}
    for side, sign in _SIDES:
        unit = {name: float(value[side]) for name, value in units.items()}
        mirror = np.array([sign, 1.0])
        out[f"brow{side}"] = _brow(person, unit) * mirror
        upper, lower = _lids(person, unit)
        out[f"upper_lid{side}"] = upper * mirror
        out[f"lower_lid{side}"] = lower * mirror
    out |= _nose(person, units)
    out |= _mouth(person, units, drop)
    return out


def landmarks(parts: dict[str, np.ndarray]) -> np.ndarray:
    """[68, 2]: the landmarks among the points of `curves`, before or after projection."""
    eyes = []
    for side, flip in ((0, True), (1, False)):
        upper, lower = parts[f"upper_lid{side}"], parts[f"lower_lid{side}"]  # both from the inner corner outwards
        if flip:
            eyes += [upper[12], upper[8], upper[4], upper[0], lower[4], lower[8]]
        else:
            eyes += [upper[0], upper[4], upper[8], upper[12], lower[8], lower[4]]
    top, bottom = parts["outer_upper"], parts["outer_lower"]
    inner_top, inner_bottom = parts["inner_upper"], parts["inner_lower"]
    return np.concatenate([
        parts["jaw"][::2],
        parts["brow0"][::-1],
        parts["brow1"],
        parts["bridge"],
        parts["nose_base"],
        np.stack(eyes),
        top[[0, 2, 4, 6, 8, 10, 12]],
        bottom[[10, 8, 6, 4, 2]],
        inner_top[[0, 3, 6, 9, 12]],
        inner_bottom[[9, 6, 3]],
    ])  # fmt: skip


def jaw_drop(units: Units) -> float:
    """How far the chin moves down, in face units."""
    return float(0.13 * units["AU26"].mean() + 0.30 * units["AU27"].mean())


def _jaw(person: Identity, drop: float) -> np.ndarray:
    """[33, 2] from the left temple over the chin to the right temple: a superellipse that narrows downwards."""
    s = person.shape
    power = 2 / s["squareness"]
    cos, sin = np.cos(_JAW), np.sin(_JAW).clip(0)
    depth = sin**power
    x = -s["width"] * np.sign(cos) * np.abs(cos) ** power * (1 - s["taper"] * depth)
    y = -0.06 + (s["chin"] + 0.06 + 0.8 * drop) * depth
    return np.stack([x, y], 1)


def _brow(person: Identity, unit: dict[str, float]) -> np.ndarray:
    """[5, 2] along the brow's middle, from its inner end to its outer end."""
    s, t = person.shape, _T5
    x = s["brow_inner"] + t * s["brow_length"] - 0.045 * unit["AU4"] * (1 - t)
    arch = s["brow_arch"] * np.sin(np.pi * t**1.4) - s["brow_tilt"] * (t - 0.5)
    raised = 0.17 * unit["AU1"] * (1 - t) ** 1.4 + 0.15 * unit["AU2"] * np.sin(np.pi * (0.12 + 0.7 * t)) ** 1.5
    lowered = unit["AU4"] * (0.045 + 0.095 * (1 - t) ** 1.3) + 0.06 * unit["AU9"] * (1 - t)
    return np.stack([x, -s["brow_y"] - arch - raised + lowered], 1)


def _lids(person: Identity, unit: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower lid, each [13, 2] from the inner to the outer corner."""
    s, t = person.shape, _ARC
    narrowed = 0.022 * unit["AU7"] + 0.018 * unit["AU6"] + 0.02 * unit["AU9"]
    up = (s["eye_up"] + 0.055 * unit["AU5"] - narrowed) * (1 - 0.95 * unit["AU43"])
    low = s["eye_low"] + 0.012 * unit["AU5"] - 0.8 * narrowed
    up, low = max(up, 0.004), max(low, 0.002)
    x = s["eye_x"] + s["eye_width"] * (2 * t - 1)
    corners = 0.012 - (s["canthus"] + 0.012) * t
    # A raised inner brow (sadness, fear) draws the inner half of the upper lid upwards with it.
    slant = 0.016 * unit["AU1"] * (1 - t) * np.sin(np.pi * t) * 2
    upper = corners - up * np.sin(np.pi * t) ** 0.85 - slant
    lower = corners + low * np.sin(np.pi * t**1.1) ** 0.9
    return np.stack([x, upper], 1), np.stack([x, np.maximum(lower, upper)], 1)


def _nose(person: Identity, units: Units) -> dict[str, np.ndarray]:
    """The bridge [4, 2] from the root to the tip, and the base [5, 2] from the left wing to the right one."""
    s = person.shape
    lift = 0.05 * units["AU9"] + 0.02 * units["AU10"]
    tip = s["nose_y"] - 0.10 - 0.3 * lift.mean()
    bridge = np.stack([np.zeros(4), np.linspace(0.0, tip, 4)], 1)
    half = s["nose_width"] * (1 + 0.14 * units["AU9"] + 0.12 * units["AU12"] + 0.08 * units["AU10"])
    wing = s["nose_y"] - 0.035 - lift
    under = s["nose_y"] - 0.4 * lift
    x = [-half[0], -0.5 * half[0], 0.0, 0.5 * half[1], half[1]]
    y = [wing[0], under[0], s["nose_y"] + 0.015, under[1], wing[1]]
    return {"bridge": bridge, "nose_base": np.stack([np.array(x), np.array(y)], 1)}


def _mouth(person: Identity, units: Units, drop: float) -> dict[str, np.ndarray]:
    """Four lip curves, each [13, 2] from the left corner to the right one."""
    s, u = person.shape, {name: float(value.mean()) for name, value in units.items()}
    side = np.where(_LIPS < 0, 0, 1)
    reach, rise = _corners(s, units)
    x = _LIPS * reach[side]
    edge = np.abs(_LIPS)
    parted = 1 - edge**2.4
    raised = 0.075 * u["AU10"] + 0.03 * u["AU9"]
    centre = s["mouth_y"] - raised - 0.03 * u["AU17"] + 0.015 * u["AU12"]
    line = centre - (rise[side] - raised) * edge**1.7 + 0.4 * drop * edge**2
    gap_up = (0.022 * u["AU25"] + 0.012 * u["AU12"] * u["AU25"]) * parted
    gap_low = (0.060 * u["AU25"] + 0.03 * u["AU12"] * u["AU25"] + 0.85 * drop + 0.05 * u["AU10"] * u["AU25"]) * parted
    tight = (1 - 0.62 * u["AU23"]) * (1 - 0.22 * u["AU12"]) * (1 - 0.25 * u["AU20"])
    bow = 1 - 0.22 * np.exp(-((_LIPS / 0.13) ** 2))
    upper_lip = s["lip_up"] * tight * bow * (1 - edge**1.8) * (1 + 0.25 * u["AU10"])
    lower_lip = s["lip_low"] * tight * (1 - edge**2.6) * (1 + 0.25 * u["AU17"])
    inner_upper, inner_lower = line - gap_up, line + gap_low
    inner_x = x * 0.95
    return {
        "outer_upper": np.stack([x, inner_upper - upper_lip], 1),
        "outer_lower": np.stack([x, inner_lower + lower_lip], 1),
        "inner_upper": np.stack([inner_x, inner_upper], 1),
        "inner_lower": np.stack([inner_x, inner_lower], 1),
    }


def _corners(s: dict[str, float], units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the mouth's left and right corner from the middle, and how far they lie above its centre."""
    wider = 0.10 * units["AU12"] + 0.10 * units["AU20"] + 0.02 * units["AU14"]
    narrower = 0.05 * units["AU23"] + 0.07 * units["AU27"] + 0.02 * units["AU17"]
    rise = s["mouth_curve"] + 0.125 * units["AU12"] + 0.05 * units["AU14"] - 0.115 * units["AU15"]
    rise = rise - 0.035 * units["AU20"] - 0.02 * units["AU17"] - 0.01 * units["AU10"]
    return s["mouth_width"] + wider - narrower, rise
