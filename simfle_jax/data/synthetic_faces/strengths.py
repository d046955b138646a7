"""How strongly each factor of a generated face varies."""

from dataclasses import dataclass, fields

from simfle_jax.errors import UserError


@dataclass(frozen=True)
class Strengths:
    """One number per factor: 0 switches its variation off, 1 is its full range.

    expression   amplitude of the facial action units (at 0 every class looks neutral)
    identity     face shape, sizes and positions of the features
    skin         colour and age of the skin, colour of the lips
    hair         colour and style of the hair, beards, brow colour
    glasses      share of identities with glasses (a third at 1)
    gaze         direction of the eyes
    pose         roll, yaw and pitch of the head (+-20, 35 and 18 degrees at 1)
    light        direction of the light: one side of the face falls into shadow
    tint         colour cast of the whole image
    gamma        brightness curve of the whole image
    background   colours and shapes behind the head, colour of the clothes
    occlusion    share of images with an object before the face (a half at 1)
    blur         out of focus or low resolution
    noise        grain of the sensor
    crop         size of the face within the image: tight at 0, down to 1/1.6 of it at 1
    translation  position of the face within the image (+-9 % of the side at 1)
    closeup      no variation but the framing: the whole face at 0; at 1 brows to mouth fill the image, as the owners of
                 aligned data sets crop, and landmarks (of the jaw, or a mouth wide open) may lie outside
    """

    expression: float
    identity: float
    skin: float
    hair: float
    glasses: float
    gaze: float
    pose: float
    light: float
    tint: float
    gamma: float
    background: float
    occlusion: float
    blur: float
    noise: float
    crop: float
    translation: float
    closeup: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise UserError(f"strength {field.name}={value}: give a number from 0 (off) to 1 (full range)")


# Minutes of training on a CPU learn from this one. What two views agree on most easily (depth of the skin, hair, brightness
# curve, background) varies less than in WILD, or short training learns that and little else. Colour casts make an
# untrained encoder poor, but strong ones also keep BYOL on two directions for thousands of updates.
DEMO = Strengths(
    expression=1.0, identity=1.0, skin=0.4, hair=0.4, glasses=0.0, gaze=0.5, pose=0.0, light=0.0, tint=0.2,
    gamma=0.3, background=0.5, occlusion=0.0, blur=0.0, noise=0.3, crop=0.0, translation=1.0,
    closeup=1.0,
)  # fmt: skip

WILD = Strengths(
    expression=1.0, identity=1.0, skin=1.0, hair=1.0, glasses=1.0, gaze=1.0, pose=1.0, light=1.0, tint=0.6,
    gamma=0.6, background=1.0, occlusion=1.0, blur=1.0, noise=1.0, crop=1.0, translation=1.0,
    closeup=0.0,
)  # fmt: skip

PRESETS = {"demo": DEMO, "wild": WILD}
