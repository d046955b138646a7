"""Paints one face: from curves in pixels to an RGB image, before any nuisance of the camera.

Everything is drawn two to four times too large and averaged down. Soft shading (sockets, cheeks, side of the nose) and
fine lines (folds, wrinkles) are drawn into two grey layers, blurred, and multiplied onto the skin.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from simfle_jax.data.synthetic_faces.identity import Identity
from simfle_jax.data.synthetic_faces.splines import smooth

Parts = dict[str, np.ndarray]

_NEUTRAL = 128  # grey of a shading layer that leaves the skin as it is
# Shadows on skin are warm: blue and green lose more than red.
_SHADE = (np.arange(256)[:, None] / _NEUTRAL) ** np.array([0.85, 1.05, 1.12])
_SHADE_TABLE = _SHADE.astype(np.float32)


@dataclass(frozen=True)
class Look:
    """What of one image the geometry does not tell: unit intensities averaged over both sides, gaze, background."""

    units: dict[str, np.ndarray]
    gaze: np.ndarray  # [2], in face units
    light: np.ndarray  # [2], direction of the light in the image plane, length up to 1
    background: Image.Image
    clothes: np.ndarray

    def unit(self, name: str) -> float:
        """Mean intensity of an action unit."""
        return float(self.units[name].mean())


class Canvas:
    """An image under construction: the picture and its scale, in pixels to a face unit."""

    def __init__(self, image: Image.Image, scale: float) -> None:
        self.image = image
        self.scale = scale
        self.pen = ImageDraw.Draw(image)

    def polygon(self, points: np.ndarray, colour: object) -> None:
        self.pen.polygon(points.ravel().tolist(), fill=_paint(colour))

    def line(self, points: np.ndarray, colour: object, width: float) -> None:
        """`width` in face units; nothing thinner than a pixel is drawn."""
        self.pen.line(
            points.ravel().tolist(), fill=_paint(colour), width=max(1, round(width * self.scale)), joint="curve"
        )

    def spot(self, centre: np.ndarray, radius: float, colour: object, tall: float = 1.0) -> None:
        """An ellipse; `radius` in face units."""
        r = radius * self.scale
        (x, y) = centre
        self.pen.ellipse([x - r, y - r * tall, x + r, y + r * tall], fill=_paint(colour))


def _paint(colour: object) -> int | tuple[int, ...]:
    if isinstance(colour, (int, float)):
        return int(colour)
    return tuple(np.clip(np.asarray(colour), 0, 255).astype(int).tolist())


def paint(parts: Parts, scale: float, person: Identity, look: Look) -> Image.Image:
    """The face of `person` over look.background; parts in pixels of that background, scale in pixels to a unit."""
    canvas = Canvas(look.background.copy(), scale)
    _behind(canvas, parts, person, look)
    _skin(canvas, parts, person)
    _shade(canvas, parts, person, look)
    _lips(canvas, parts, person)
    _eyes_and_mouth(canvas, parts, person, look)
    _lashes(canvas, parts, person)
    _brows(canvas, parts, person)
    _beard(canvas, parts, person)
    _fringe(canvas, parts, person)
    if person.glasses:
        _glasses(canvas, parts, person)
    return canvas.image


def _behind(canvas: Canvas, parts: Parts, person: Identity, look: Look) -> None:
    if person.hair_style == "long":
        canvas.polygon(smooth(parts["long_hair"], closed=True), person.hair * 0.8)
    canvas.polygon(parts["shoulders"], look.clothes)
    canvas.polygon(parts["neck"], person.skin * 0.72)
    if person.hair_style != "bald":
        canvas.polygon(smooth(parts["hair_cap"], closed=True), person.hair)


def _skin(canvas: Canvas, parts: Parts, person: Identity) -> None:
    for side in "01":
        canvas.polygon(smooth(parts[f"ear{side}"], closed=True), person.skin * 0.86)
    canvas.polygon(np.concatenate([parts["jaw"], parts["skull"]]), person.skin)


def _shade(canvas: Canvas, parts: Parts, person: Identity, look: Look) -> None:
    """Multiplies the soft and the fine shading onto what is painted so far."""
    soft = Canvas(Image.new("L", canvas.image.size, _NEUTRAL), canvas.scale)
    fine = Canvas(Image.new("L", canvas.image.size, _NEUTRAL), canvas.scale)
    _relief(soft, parts, look)
    _folds(fine, parts, person, look)
    layers = [
        np.asarray(
            soft.image.filter(ImageFilter.BoxBlur(0.055 * canvas.scale)).filter(
                ImageFilter.BoxBlur(0.04 * canvas.scale)
            )
        ),
        np.asarray(fine.image.filter(ImageFilter.BoxBlur(0.011 * canvas.scale))),
    ]
    form = _form(parts, canvas.image.size, look.light)
    shade = layers[0].astype(np.float32) * layers[1] * form * (1 / _NEUTRAL)
    lit = np.asarray(canvas.image) * _SHADE_TABLE[shade.clip(0, 255).astype(np.uint8)]
    canvas.image.paste(Image.fromarray(lit.clip(0, 255).astype(np.uint8)))


def _form(parts: Parts, size: tuple[int, int], light: np.ndarray) -> np.ndarray:
    """[height, width]: how bright an ellipsoid in the place of the head is; 1 at its middle."""
    jaw = parts["jaw"]
    centre = (jaw[0] + jaw[-1]) / 2 + 0.25 * (jaw[16] - (jaw[0] + jaw[-1]) / 2)
    half = np.linalg.norm(jaw[-1] - jaw[0]) / 2
    x = ((np.arange(size[0]) + 0.5 - centre[0]) / half).astype(np.float32)[None]
    y = ((np.arange(size[1]) + 0.5 - centre[1]) / (1.5 * half)).astype(np.float32)[:, None]
    square = np.minimum(x**2 + y**2, 1.3)
    slope = x.clip(-1.1, 1.1) * np.float32(light[0]) + y.clip(-1.1, 1.1) * np.float32(light[1])
    return (1.06 - 0.30 * square**1.5 + 0.55 * slope).clip(0.22, 1.6)


def _relief(soft: Canvas, parts: Parts, look: Look) -> None:
    """Sockets, cheeks, nose, chin."""
    happy, wide = look.unit("AU6"), look.unit("AU5")
    for side in "01":
        upper, lower, brow = parts[f"upper_lid{side}"], parts[f"lower_lid{side}"], parts[f"brow{side}"]
        socket = np.concatenate([brow, upper[::-3]])
        soft.polygon(socket, 96 + 10 * wide)
        soft.line(lower[2:11] + [0, 0.045 * soft.scale], 108, 0.03)
        soft.spot(parts[f"cheek{side}"][0], 0.17, 146 + 14 * happy, 0.75)
        soft.polygon(parts[f"nose_side{side}"], 98)
    soft.line(parts["bridge"][:4], 164, 0.06)
    soft.spot(parts["bridge"][3], 0.055, 172)
    soft.line(parts["nose_base"] + [0, 0.03 * soft.scale], 84, 0.04)
    soft.line(parts["outer_lower"][3:10] + [0, 0.05 * soft.scale], 88, 0.04)
    soft.spot(parts["chin_boss"][0], 0.11, 144, 0.7)
    soft.spot(parts["forehead"][0], 0.32, 140, 0.5)
    soft.line(parts["jaw"][8:25], 100, 0.05)


def _folds(fine: Canvas, parts: Parts, person: Identity, look: Look) -> None:
    """Lines that come with the action units, and a little with age."""
    age, unit = person.age, look.unit

    def line(name: str, depth: float, width: float = 0.018) -> None:
        if depth > 0.06:
            fine.line(smooth(parts[name]), _NEUTRAL - 70 * min(depth, 1.0), width)

    for side in "01":
        i = int(side)
        own = {name: float(value[i]) for name, value in look.units.items()}
        cheek = max(own["AU12"], 0.8 * own["AU9"], 0.8 * own["AU10"], 0.5 * own["AU20"], 0.6 * own["AU14"])
        line(f"nasolabial{side}", 0.25 * age + 0.85 * cheek, 0.024)
        line(f"crow_up{side}", 0.2 * age + 0.6 * own["AU6"])
        line(f"crow_low{side}", 0.2 * age + 0.6 * own["AU6"])
        line(f"bag{side}", 0.2 + 0.3 * age + 0.6 * max(own["AU6"], own["AU7"]))
        line(f"dimple{side}", 1.1 * own["AU14"], 0.03)
        line(f"frown{side}", 0.15 * age + 1.1 * unit("AU4"), 0.022)
        line(f"sneer{side}", 1.1 * own["AU9"], 0.02)
        line(f"crease{side}", 0.65 - 0.3 * own["AU4"], 0.016)
        line(f"droop{side}", 0.15 * age + 0.8 * own["AU15"], 0.022)
    for name in ("forehead_low", "forehead_high"):
        line(name, 0.25 * age + 0.75 * min(unit("AU1"), unit("AU2") + 0.3))
    line("sneer_middle", 1.1 * unit("AU9"), 0.022)
    line("chin_fold", 0.2 + 0.7 * unit("AU17"), 0.03)
    line("philtrum", 0.15, 0.03)


def _lips(canvas: Canvas, parts: Parts, person: Identity) -> None:
    upper = np.concatenate([parts["outer_upper"], parts["inner_upper"][::-1]])
    lower = np.concatenate([parts["inner_lower"], parts["outer_lower"][::-1]])
    canvas.polygon(upper, person.lips * 0.86)
    canvas.polygon(lower, person.lips)
    shine = parts["inner_lower"][4:9] * 0.45 + parts["outer_lower"][4:9] * 0.55
    canvas.line(shine, person.lips * 1.12 + 14, 0.014)


def _eyes_and_mouth(canvas: Canvas, parts: Parts, person: Identity, look: Look) -> None:
    """Paints eyeballs and the inside of the mouth, and lets them be seen through their openings alone."""
    inside = Canvas(Image.new("RGB", canvas.image.size, (44, 14, 16)), canvas.scale)
    openings = Canvas(Image.new("L", canvas.image.size, 0), canvas.scale)
    _mouth_inside(inside, parts, look)
    for side in "01":
        upper, lower = parts[f"upper_lid{side}"], parts[f"lower_lid{side}"]
        eyeball = (upper[0] + upper[12]) / 2
        inside.spot(eyeball, 0.26, (232, 226, 220))
        inside.line(upper + [0, 0.012 * canvas.scale], (168, 156, 150), 0.03)
        iris = parts[f"iris{side}"][0]
        size = person.shape["iris"]
        inside.spot(iris, size, person.iris * 0.55)
        inside.spot(iris, size * 0.84, person.iris)
        inside.spot(iris, size * 0.45, (10, 8, 8))
        inside.spot(iris + np.array([-0.022, -0.024]) * canvas.scale, 0.017, (250, 250, 250))
        openings.polygon(np.concatenate([upper, lower[::-1]]), 255)
    openings.polygon(np.concatenate([parts["inner_upper"], parts["inner_lower"][::-1]]), 255)
    canvas.image.paste(inside.image, mask=openings.image)
    canvas.line(parts["inner_upper"], person.lips * 0.38, 0.016)


def _mouth_inside(inside: Canvas, parts: Parts, look: Look) -> None:
    """Teeth below the upper lip, the tongue above the lower one; lower teeth where the lip is drawn down."""
    upper, lower = parts["inner_upper"], parts["inner_lower"]
    tongue = np.concatenate([lower[3:10] + [0, -0.09 * inside.scale], lower[9:2:-1]])
    inside.polygon(tongue, (150, 62, 62))
    shown = 0.085 - 0.035 * look.unit("AU27")
    teeth = np.concatenate([upper[1:12] + [0, -0.02 * inside.scale], upper[11:0:-1] + [0, shown * inside.scale]])
    inside.polygon(teeth, (236, 230, 216))
    if look.unit("AU20") + look.unit("AU10") > 0.5:
        teeth = np.concatenate([lower[2:11] + [0, -0.035 * inside.scale], lower[10:1:-1] + [0, 0.02 * inside.scale]])
        inside.polygon(teeth, (222, 214, 200))


def _lashes(canvas: Canvas, parts: Parts, person: Identity) -> None:
    dark = person.hair * 0.15 + person.skin * 0.08
    for side in "01":
        canvas.line(parts[f"upper_lid{side}"], dark, 0.022)
        canvas.line(parts[f"lower_lid{side}"], person.skin * 0.55, 0.009)
    for side in "01":
        canvas.spot(parts[f"nostril{side}"][0], 0.034, person.skin * 0.28, 0.6)
    for side in "01":
        canvas.line(smooth(parts[f"wing{side}"]), person.skin * 0.6, 0.014)


def _brows(canvas: Canvas, parts: Parts, person: Identity) -> None:
    colour = person.hair * 0.72 + person.skin * 0.06
    half = np.array([0.75, 1.0, 0.95, 0.65, 0.15])[:, None] * person.shape["brow_thick"] * canvas.scale
    for side in "01":
        middle = parts[f"brow{side}"]
        canvas.polygon(
            smooth(np.concatenate([middle - [0, 1] * half, (middle + [0, 1] * half)[::-1]]), closed=True), colour
        )


def _beard(canvas: Canvas, parts: Parts, person: Identity) -> None:
    if person.beard == "none":
        return
    opacity = 70 if person.beard == "stubble" else 225
    mask = Canvas(Image.new("L", canvas.image.size, 0), canvas.scale)
    if person.beard != "moustache":
        mask.polygon(parts["beard"], opacity)
        mask.polygon(np.concatenate([parts["outer_upper"], parts["outer_lower"][::-1]]), 0)
    mask.polygon(parts["moustache"], opacity)
    soft = mask.image.filter(ImageFilter.BoxBlur(0.02 * canvas.scale))
    lips = Canvas(soft, canvas.scale)
    lips.polygon(np.concatenate([parts["outer_upper"], parts["outer_lower"][::-1]]), 0)
    canvas.image.paste(_paint(person.hair * 0.8), mask=soft)


def _fringe(canvas: Canvas, parts: Parts, person: Identity) -> None:
    if person.hair_style == "bald":
        return
    hair = smooth(parts["fringe"], closed=True)
    canvas.polygon(hair, person.hair)
    for i in range(len(parts["strands_root"])):
        strand = np.stack([parts["strands_root"][i], parts["strands_tip"][i]])
        canvas.line(strand, person.hair * (1.25 if i % 2 else 0.78) + (8 if i % 2 else 0), 0.012)


def _glasses(canvas: Canvas, parts: Parts, person: Identity) -> None:
    for side in "01":
        rim = parts[f"rim{side}"]
        canvas.line(np.concatenate([rim, rim[:2]]), person.glasses_colour, 0.03)
        canvas.line(parts[f"temple{side}"], person.glasses_colour, 0.028)
    canvas.line(parts["glasses_bridge"], person.glasses_colour, 0.028)
