"""Curves that carry no landmark: skull, hair, ears, neck, folds of the skin, irises, glasses (face units)."""

import numpy as np

from simfle_jax.data.synthetic_faces.identity import Identity

Parts = dict[str, np.ndarray]

_CIRCLE = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_HALF = np.linspace(0, np.pi, 13)


def surroundings(person: Identity, parts: Parts, gaze: np.ndarray) -> Parts:
    """Everything `render.paint` needs beyond the curves of anatomy.py, from those curves."""
    out = _head(person, parts) | _hair(person)
    for side, sign in ((0, -1.0), (1, 1.0)):
        own = _around_eye(person, parts, side, sign, gaze)
        own |= _around_nose(person, parts, side, sign)
        own |= _around_mouth(parts, side, sign)
        own |= _glasses(person, sign)
        out |= {f"{name}{side}": np.asarray(points, float) for name, points in own.items()}
    out |= _middle(person, parts)
    return out


def _head(person: Identity, parts: Parts) -> Parts:
    s, jaw = person.shape, parts["jaw"]
    w, chin = s["width"], jaw[16, 1]
    skull = np.stack([w * np.cos(_HALF), -0.06 + (s["top"] + 0.06) * np.sin(_HALF)], 1)
    ear = np.array([[0.96, -0.12], [1.12, -0.18], [1.15, 0.0], [1.08, 0.28], [0.97, 0.36]]) * [w, 1]
    return {
        "skull": skull,
        "ear0": ear * [-1, 1],
        "ear1": ear,
        "neck": np.array([[-0.52, 0.7], [0.52, 0.7], [0.55, chin + 0.3], [0.85, 2.6], [-0.85, 2.6], [-0.55, chin + 0.3]]),
        "shoulders": np.array([[-0.6, chin + 0.33], [0, chin + 0.55], [0.6, chin + 0.33], [1.6, chin + 0.6], [2.0, 3.2],
                               [-2.0, 3.2], [-1.6, chin + 0.6]]),
    }  # fmt: skip


def _hair(person: Identity) -> Parts:
    s, line = person.shape, person.hair_line
    w, top = s["width"], s["top"]
    cap = np.stack([1.1 * w * np.cos(_HALF), 0.1 + (top - 0.24) * np.sin(_HALF)], 1)
    long = np.array([[1.12, -0.5], [1.28, 0.2], [1.3, 1.0], [1.15, 1.7], [-1.15, 1.7], [-1.3, 1.0], [-1.28, 0.2], [-1.12, -0.5],
                     [-0.6, top - 0.16], [0.6, top - 0.16]]) * [w, 1]  # fmt: skip
    lows = {
        "short": [0.12, -0.02, -0.06, -0.02, 0.12],
        "fringe": [0.16, 0.14, 0.17, 0.14, 0.16],
        "parted": [0.22, 0.06, -0.02, -0.10, 0.20],
        "long": [0.24, 0.0, -0.10, 0.0, 0.24],
        "bald": [0.0, 0.0, 0.0, 0.0, 0.0],
    }[person.hair_style]
    x = np.array([-0.84, -0.45, 0.0, 0.45, 0.84]) * w
    edge = np.stack([x, line + np.array(lows)], 1)
    temples = np.array([[-1.02 * w, -0.16], [1.02 * w, -0.16]])
    crown = np.stack([1.07 * w * np.cos(_HALF), -0.3 + (top + 0.16) * np.sin(_HALF)], 1)
    roots = np.stack([np.linspace(-0.7, 0.7, 12) * w, np.full(12, top + 0.02)], 1)
    tips = np.stack(
        [np.linspace(-0.8, 0.8, 12) * w, np.interp(np.linspace(-0.8, 0.8, 12) * w, x, edge[:, 1]) - 0.03], 1
    )
    roots[:, 1] += 0.25 * (np.linspace(-1, 1, 12) ** 2)
    return {
        "hair_cap": cap,
        "long_hair": long,
        "fringe": np.concatenate([temples[:1], edge, temples[1:], crown]),
        "strands_root": roots,
        "strands_tip": tips,
    }


def _around_eye(person: Identity, parts: Parts, side: int, sign: float, gaze: np.ndarray) -> Parts:
    s, mirror = person.shape, np.array([sign, 1.0])
    upper, lower = parts[f"upper_lid{side}"], parts[f"lower_lid{side}"]
    centre = np.array([sign * s["eye_x"], -0.018])
    crow = np.array([sign * (s["eye_x"] + s["eye_width"] + 0.04), 0.0])
    return {
        "iris": (centre + gaze)[None],
        "crease": upper[1:12:2] * [1, 1] - [0, s["crease"]],
        "bag": lower[2:11:2] + [0, 0.035],
        "crow_up": crow + np.array([[0, -0.01], [0.05, -0.035], [0.10, -0.07]]) * mirror,
        "crow_low": crow + np.array([[0, 0.02], [0.05, 0.035], [0.10, 0.06]]) * mirror,
        "cheek": np.array([[sign * 0.45, 0.36]]),
    }


def _around_nose(person: Identity, parts: Parts, side: int, sign: float) -> Parts:
    s, mirror = person.shape, np.array([sign, 1.0])
    wing = parts["nose_base"][0 if side == 0 else 4]
    inner = parts[f"brow{side}"][0]
    tip = parts["bridge"][3]
    return {
        "nose_side": np.array([[sign * s["bridge"], -0.02], [sign * s["bridge"] * 2.1, 0.05], wing + [0, -0.06], tip + [sign * 0.07, 0.02]]),
        "nostril": np.array([[wing[0] * 0.52, wing[1] + 0.022]]),
        "wing": wing + np.array([[-0.035, -0.10], [0.005, -0.06], [0.008, -0.01], [-0.03, 0.02]]) * mirror,
        "frown": np.array([[sign * 0.055, inner[1] - 0.02], [sign * 0.045, inner[1] + 0.06], [sign * 0.065, inner[1] + 0.13]]),
        "sneer": np.array([[sign * 0.03, 0.10], [sign * 0.09, 0.15], [sign * 0.14, 0.22]]),
    }  # fmt: skip


def _around_mouth(parts: Parts, side: int, sign: float) -> Parts:
    mirror = np.array([sign, 1.0])
    corner = parts["outer_upper"][0 if side == 0 else 12]
    wing = parts["nose_base"][0 if side == 0 else 4]
    middle = (wing + corner) / 2 + [sign * 0.085, 0.01]
    return {
        "nasolabial": np.array([wing + [sign * 0.03, -0.05], middle, corner + [sign * 0.085, 0.02]]),
        "dimple": corner + np.array([[0.045, -0.075], [0.07, 0.0], [0.045, 0.075]]) * mirror,
        "droop": corner + np.array([[0.01, 0.02], [0.035, 0.07], [0.04, 0.13]]) * mirror,
    }


def _glasses(person: Identity, sign: float) -> Parts:
    s, power = person.shape, 2 / person.glasses_round
    cos, sin = np.cos(_CIRCLE), np.sin(_CIRCLE)
    rim = np.stack([np.sign(cos) * np.abs(cos) ** power * 0.27, np.sign(sin) * np.abs(sin) ** power * 0.2], 1)
    outer = sign * (s["eye_x"] + 0.29)
    return {
        "rim": rim + [sign * (s["eye_x"] + 0.02), 0.03],
        "temple": np.array([[outer, -0.04], [sign * s["width"] * 1.02, -0.08]]),
    }


def _middle(person: Identity, parts: Parts) -> Parts:
    s, jaw = person.shape, parts["jaw"]
    upper, lower = parts["outer_upper"], parts["outer_lower"]
    brow = (parts["brow0"][2, 1] + parts["brow1"][2, 1]) / 2
    lip, chin, x = lower[6, 1], jaw[16, 1], np.array([-0.34, -0.17, 0.0, 0.17, 0.34])
    gap = s["eye_x"] - 0.26
    moustache = np.concatenate([upper[1:12] - [0, 0.008], (upper[11:0:-1] - [0, 0.105]) * [0.85, 1]])
    beard = np.concatenate([jaw[3:30], upper[12:0:-1] * [1.25, 1] - [0, 0.05], upper[:1] * [1.25, 1]])
    return {
        "forehead": np.array([[0.0, -0.5]]),
        "forehead_low": np.stack([x, brow - 0.13 - 0.02 * np.cos(6 * x)], 1),
        "forehead_high": np.stack([0.9 * x, brow - 0.21 - 0.02 * np.cos(6 * x)], 1),
        "sneer_middle": np.array([[-0.06, 0.03], [0.0, 0.01], [0.06, 0.03]]),
        "chin_boss": np.array([[0.0, (lip + chin) / 2 + 0.06]]),
        "chin_fold": np.array([[-0.13, lip + 0.07], [0.0, lip + 0.055], [0.13, lip + 0.07]]),
        "philtrum": np.array([[0.0, s["nose_y"] + 0.05], [0.0, upper[6, 1] - 0.01]]),
        "moustache": moustache,
        "beard": beard,
        "glasses_bridge": np.array([[-gap, 0.0], [0.0, -0.03], [gap, 0.0]]),
    }
