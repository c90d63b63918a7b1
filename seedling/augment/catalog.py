"""The operations on images by name, each with a strength from 0 to 1: what a policy may name, what `policy: auto` tries, what the docs show.

An operation is one or two transforms with arguments that grow with the strength; borders are reflected, so that no black frame tells a child from
its parent. At strength 1 most people still name a photograph's object; whether *this* data keeps its label is what `auto` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2

REFLECTED = cv2.BORDER_REFLECT_101
Entry = Mapping[str, Mapping[str, Any]]  # one transform's name and arguments


class CannotChange(ValueError):
    """An operation that this row does not bear: an image of one pixel cannot be made smaller."""

    reason = "cannot_be_changed"


class MadeBlank(CannotChange):
    """Operations that leave nothing of this row."""

    reason = "blank"


@dataclass(frozen=True, slots=True)
class Operation:
    """kind: for the docs; graded: whether the strength changes anything; entry: strength → transform and arguments, applied always."""

    kind: str
    entry: Callable[[float], Entry]
    graded: bool = True


def _affine(**arguments: Any) -> Entry:
    still = {"scale": 1.0, "rotate": 0.0, "translate_percent": 0.0, "shear": 0.0}
    return {"Affine": {**still, **arguments, "border_mode": REFLECTED, "p": 1.0}}


def _always(name: str, **arguments: Any) -> Entry:
    return {name: {**arguments, "p": 1.0}}


def _plain(name: str, **arguments: Any) -> Callable[[float], Entry]:
    return lambda _: _always(name, **arguments)


def _morphology(*operations: str) -> Callable[[float], Entry]:
    return lambda s: _always("LuminosityMorphology", operations=[*operations], size=[3, 3 + 2 * round(2 * s)])


OPERATIONS: dict[str, Operation] = {
    "flip_left_right": Operation("geometry", _plain("HorizontalFlip"), graded=False),
    "flip_up_down": Operation("geometry", _plain("VerticalFlip"), graded=False),
    "quarter_turns": Operation("geometry", _plain("RandomRotate90"), graded=False),
    "rotate": Operation("geometry", lambda s: _affine(rotate=[-45 * s, 45 * s])),
    "shift": Operation("geometry", lambda s: _affine(translate_percent=[-0.3 * s, 0.3 * s])),
    "scale": Operation("geometry", lambda s: _affine(scale=[1 - 0.5 * s, 1 + 0.5 * s], keep_ratio=True)),
    "crop": Operation("geometry", lambda s: _affine(scale=[1.05, 1.05 + s], translate_percent=[-0.25 * s, 0.25 * s], keep_ratio=True)),
    "shear": Operation("geometry", lambda s: _affine(shear={"x": [-30 * s, 30 * s], "y": [-30 * s, 30 * s]})),
    "perspective": Operation("geometry", lambda s: _always("Perspective", scale=[0.02, 0.02 + 0.15 * s], border_mode=REFLECTED)),
    "elastic": Operation("geometry", lambda s: _always("ElasticTransform", alpha=20 + 200 * s, sigma=8, border_mode=REFLECTED)),
    "erase": Operation("geometry", lambda s: _always(
        "CoarseDropout", num_holes_range=[1, 2], hole_height_range=[0.1, 0.1 + 0.4 * s], hole_width_range=[0.1, 0.1 + 0.4 * s], fill="random_uniform"
    )),
    "blur": Operation("sharpness", lambda s: _always("GaussianBlur", sigma_limit=[0.3, 0.3 + 2.5 * s], blur_limit=0)),
    "motion_blur": Operation("sharpness", lambda s: _always("MotionBlur", blur_limit=[3, 3 + 2 * round(5 * s)])),
    "defocus": Operation("sharpness", lambda s: _always("Defocus", radius=[1, 1 + round(3 * s)], alias_blur=[0.1, 0.3])),
    "sharpen": Operation("sharpness", lambda s: _always("Sharpen", alpha=[0.1, 0.1 + 0.6 * s], lightness=[1.0, 1.0])),
    "downscale": Operation("sharpness", lambda s: _always("Downscale", scale_range=[max(0.2, 0.9 - 0.7 * s), 0.95])),
    "jpeg": Operation("sharpness", lambda s: _always("ImageCompression", quality_range=[round(100 - 65 * s), 100])),
    "gaussian_noise": Operation("noise", lambda s: _always("GaussianNoise", std_range=[0.01, 0.01 + 0.12 * s])),
    "photon_noise": Operation("noise", lambda s: _always("PhotonNoise", photons=[400 * 0.05**s, 1000.0])),
    "iso_noise": Operation("noise", lambda s: _always("ISONoise", color_shift=[0.01, 0.01 + 0.08 * s], intensity=[0.05, 0.05 + 0.4 * s])),
    "salt_and_pepper": Operation("noise", lambda s: _always("SaltAndPepper", amount=[0.005, 0.005 + 0.06 * s])),
    "brightness_contrast": Operation("light", lambda s: _always("RandomBrightnessContrast", brightness_limit=0.5 * s, contrast_limit=0.5 * s)),
    "gamma": Operation("light", lambda s: _always("RandomGamma", gamma_limit=[100 - 60 * s, 100 + 120 * s])),
    "local_contrast": Operation("light", lambda s: _always("CLAHE", clip_limit=[1.0, 1.0 + 5 * s])),
    "glare": Operation("light", lambda s: _always("Glare", strength=[0.2, 0.2 + 0.7 * s], size=[0.05, 0.05 + 0.25 * s])),
    "shadow": Operation("light", lambda s: _always("SoftShadow", strength=[0.2, 0.2 + 0.6 * s], size=[0.1, 0.1 + 0.4 * s])),
    "color_rotation": Operation("color", lambda s: _always("ColorRotation", degrees=[-180 * s, 180 * s])),
    "channel_order": Operation("color", _plain("ChannelOrder"), graded=False),
    "gray": Operation("color", _plain("ToGray"), graded=False),
    "invert": Operation("color", _plain("InvertImg"), graded=False),
    "erosion": Operation("luminosity", _morphology("erosion")),
    "dilation": Operation("luminosity", _morphology("dilation")),
    "opening": Operation("luminosity", _morphology("opening")),
    "closing": Operation("luminosity", _morphology("closing")),
    "gradient": Operation("luminosity", _morphology("gradient")),
    "top_hat": Operation("luminosity", _morphology("top_hat")),
    "black_hat": Operation("luminosity", _morphology("black_hat")),
}  # fmt: skip

MEDIUM = 0.4  # the strength of an operation that is named without one
WEAK_AND_STRONG = (0.2, 0.8)  # tried beside it

REPLACING = {"gradient", "top_hat", "black_hat"}  # leave little of an image; two of them nothing

SETS: dict[str, list[dict[str, dict[str, float]]]] = {
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
