"""The operations on images by name, each with a strength from 0 to 1, for policies and for `policy: auto`.

An operation is one or two transforms whose arguments grow with the strength. Borders are reflected, so that no black
frame distinguishes an augmented image from its parent. At strength 1 most people still recognize the object in a
photograph; `auto` measures whether the label is preserved on the data at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
from pydantic import JsonValue

REFLECT_BORDER = cv2.BORDER_REFLECT_101
Arguments = Mapping[str, JsonValue]  # of one transform, as in params.yaml and in recipes
Entry = Mapping[str, Arguments]  # name and arguments of each transform


class CannotChange(ValueError):
    """The operation cannot be applied to this row: for example, an image of one pixel cannot become smaller."""

    reason = "cannot_be_changed"


class MadeBlank(CannotChange):
    """The operations turn this image into a blank one."""

    reason = "blank"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation on images.

    kind: for the docs; entry: strength → transform and arguments, with probability 1; graded: has a strength.
    """

    kind: str
    entry: Callable[[float], Entry]
    graded: bool = True


def _affine(**arguments: JsonValue) -> Entry:
    identity: dict[str, JsonValue] = {"scale": 1.0, "rotate": 0.0, "translate_percent": 0.0, "shear": 0.0}
    return {"Affine": {**identity, **arguments, "border_mode": REFLECT_BORDER, "p": 1.0}}


def _entry(name: str, **arguments: JsonValue) -> Entry:
    return {name: {**arguments, "p": 1.0}}


def _ungraded(name: str, **arguments: JsonValue) -> Callable[[float], Entry]:
    return lambda _: _entry(name, **arguments)


def _morphology(*operations: str) -> Callable[[float], Entry]:
    return lambda s: _entry("LuminosityMorphology", operations=[*operations], size=[3, 3 + 2 * round(2 * s)])


OPERATIONS: dict[str, Operation] = {
    "flip_left_right": Operation("geometry", _ungraded("HorizontalFlip"), graded=False),
    "flip_up_down": Operation("geometry", _ungraded("VerticalFlip"), graded=False),
    "quarter_turns": Operation("geometry", _ungraded("RandomRotate90"), graded=False),
    "rotate": Operation("geometry", lambda s: _affine(rotate=[-45 * s, 45 * s])),
    "shift": Operation("geometry", lambda s: _affine(translate_percent=[-0.3 * s, 0.3 * s])),
    "scale": Operation("geometry", lambda s: _affine(scale=[1 - 0.5 * s, 1 + 0.5 * s], keep_ratio=True)),
    "crop": Operation("geometry", lambda s: _affine(
        scale=[1.05, 1.05 + s], translate_percent=[-0.25 * s, 0.25 * s], keep_ratio=True
    )),
    "shear": Operation("geometry", lambda s: _affine(shear={"x": [-30 * s, 30 * s], "y": [-30 * s, 30 * s]})),
    "perspective": Operation("geometry", lambda s: _entry(
        "Perspective", scale=[0.02, 0.02 + 0.15 * s], border_mode=REFLECT_BORDER
    )),
    "elastic": Operation("geometry", lambda s: _entry(
        "ElasticTransform", alpha=20 + 200 * s, sigma=8, border_mode=REFLECT_BORDER
    )),
    "erase": Operation("geometry", lambda s: _entry(
        "CoarseDropout",
        num_holes_range=[1, 2],
        hole_height_range=[0.1, 0.1 + 0.4 * s],
        hole_width_range=[0.1, 0.1 + 0.4 * s],
        fill="random_uniform",
    )),
    "blur": Operation("sharpness", lambda s: _entry("GaussianBlur", sigma_limit=[0.3, 0.3 + 2.5 * s], blur_limit=0)),
    "motion_blur": Operation("sharpness", lambda s: _entry("MotionBlur", blur_limit=[3, 3 + 2 * round(5 * s)])),
    "defocus": Operation("sharpness", lambda s: _entry("Defocus", radius=[1, 1 + round(3 * s)], alias_blur=[0.1, 0.3])),
    "sharpen": Operation("sharpness", lambda s: _entry("Sharpen", alpha=[0.1, 0.1 + 0.6 * s], lightness=[1.0, 1.0])),
    "downscale": Operation("sharpness", lambda s: _entry("Downscale", scale_range=[max(0.2, 0.9 - 0.7 * s), 0.95])),
    "jpeg": Operation("sharpness", lambda s: _entry("ImageCompression", quality_range=[round(100 - 65 * s), 100])),
    "gaussian_noise": Operation("noise", lambda s: _entry("GaussianNoise", std_range=[0.01, 0.01 + 0.12 * s])),
    "photon_noise": Operation("noise", lambda s: _entry("PhotonNoise", photons=[400 * 0.05**s, 1000.0])),
    "iso_noise": Operation("noise", lambda s: _entry(
        "ISONoise", color_shift=[0.01, 0.01 + 0.08 * s], intensity=[0.05, 0.05 + 0.4 * s]
    )),
    "salt_and_pepper": Operation("noise", lambda s: _entry("SaltAndPepper", amount=[0.005, 0.005 + 0.06 * s])),
    "brightness_contrast": Operation("light", lambda s: _entry(
        "RandomBrightnessContrast", brightness_limit=0.5 * s, contrast_limit=0.5 * s
    )),
    "gamma": Operation("light", lambda s: _entry("RandomGamma", gamma_limit=[100 - 60 * s, 100 + 120 * s])),
    "local_contrast": Operation("light", lambda s: _entry("CLAHE", clip_limit=[1.0, 1.0 + 5 * s])),
    "glare": Operation("light", lambda s: _entry("Glare", strength=[0.2, 0.2 + 0.7 * s], size=[0.05, 0.05 + 0.25 * s])),
    "shadow": Operation("light", lambda s: _entry(
        "SoftShadow", strength=[0.2, 0.2 + 0.6 * s], size=[0.1, 0.1 + 0.4 * s]
    )),
    "color_rotation": Operation("color", lambda s: _entry("ColorRotation", degrees=[-180 * s, 180 * s])),
    "channel_order": Operation("color", _ungraded("ChannelOrder"), graded=False),
    "gray": Operation("color", _ungraded("ToGray"), graded=False),
    "invert": Operation("color", _ungraded("InvertImg"), graded=False),
    "erosion": Operation("luminosity", _morphology("erosion")),
    "dilation": Operation("luminosity", _morphology("dilation")),
    "opening": Operation("luminosity", _morphology("opening")),
    "closing": Operation("luminosity", _morphology("closing")),
    "gradient": Operation("luminosity", _morphology("gradient")),
    "top_hat": Operation("luminosity", _morphology("top_hat")),
    "black_hat": Operation("luminosity", _morphology("black_hat")),
}  # fmt: skip

DEFAULT_STRENGTH = 0.4  # of an operation that is named without a strength
SCREENED_STRENGTHS = (0.2, 0.8)  # that `policy: auto` tries besides the default

RESIDUAL_OPERATIONS = {"gradient", "top_hat", "black_hat"}  # they leave little of an image; two leave nothing

PRESETS: dict[str, list[dict[str, dict[str, float]]]] = {
    "photographs": [
        {"flip_left_right": {"p": 0.5}},
        {"rotate": {"strength": 0.2, "p": 0.5}},
        {"crop": {"strength": 0.2, "p": 0.5}},
        {"brightness_contrast": {"strength": 0.3, "p": 0.5}},
    ],
    "seen from above": [
        {"flip_left_right": {"p": 0.5}},
        {"flip_up_down": {"p": 0.5}},
        {"quarter_turns": {"p": 0.5}},
        {"scale": {"strength": 0.2, "p": 0.5}},
        {"brightness_contrast": {"strength": 0.3, "p": 0.5}},
    ],
    "glyphs": [
        {"rotate": {"strength": 0.2, "p": 0.5}},
        {"shift": {"strength": 0.3, "p": 0.5}},
        {"scale": {"strength": 0.2, "p": 0.5}},
        {"shear": {"strength": 0.3, "p": 0.5}},
        {"erosion": {"strength": 0.0, "p": 0.2}},
        {"dilation": {"strength": 0.0, "p": 0.2}},
    ],
}
