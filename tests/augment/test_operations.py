"""Operations on images, compared with independent formulas; they compose, serialize and keep masks and boxes."""

from __future__ import annotations

import math
import re
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from scipy import ndimage, stats

from seedling.augment.catalog import OPERATIONS, PRESETS, CannotChange, MadeBlank
from seedling.augment.color import MORPHOLOGIES, ORDERS, change_luminosity, reorder_channels, rotate_colors
from seedling.augment.image_policy import PolicyTransform, build
from seedling.augment.light import TILE_PIXELS, Spot, add_spots
from seedling.augment.makers import Resources, maker_of, steps_of
from seedling.augment.noise import MIN_PHOTONS_FOR_NORMAL, gaussian_noise, photon_noise
from seedling.augment.sentences import Context
from seedling.augment.transforms import (
    TRANSFORMS,
    ChannelOrder,
    ColorRotation,
    Glare,
    LuminosityMorphology,
    PhotonNoise,
)
from seedling.config.params import WorkspaceConfig
from seedling.errors import InputError
from seedling.media.images import encode, is_blank

IMAGES = WorkspaceConfig(modality="image")


def scene(height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth colored image with values far from 0 and 255, so that little saturates."""
    rows, columns = np.mgrid[:height, :width]
    channels = [120 + 40 * np.sin(rows / 7), 120 + 40 * np.cos(columns / 9), 110 + 30 * np.sin((rows + columns) / 11)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def lab(pixels: np.ndarray) -> np.ndarray:
    """CIE LAB of sRGB under D65 in floating point, by its definition."""
    value = pixels / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_the_six_channel_orders_are_those_of_numpy() -> None:
    """All permutations, once each."""
    image = scene()
    assert len({*ORDERS}) == 6
    for first, second, third in ORDERS:
        assert (reorder_channels(image, (first, second, third)) == image[..., [first, second, third]]).all()


@pytest.mark.parametrize("degrees", [0, 30, 90, -120, 180])
def test_a_color_rotation_turns_a_and_b_and_keeps_luminosity(degrees: float) -> None:
    """In LAB, L is unchanged and (a, b) is rotated, up to 8-bit rounding and the faces of the RGB cube."""
    image = scene()
    before, after = lab(image), lab(rotate_colors(image, degrees))
    turn = math.radians(degrees)
    wanted_a = before[..., 1] * math.cos(turn) - before[..., 2] * math.sin(turn)
    wanted_b = before[..., 1] * math.sin(turn) + before[..., 2] * math.cos(turn)
    assert np.abs(after[..., 0] - before[..., 0]).mean() < 0.5
    assert np.abs(after[..., 1] - wanted_a).mean() < 1.0
    assert np.abs(after[..., 2] - wanted_b).mean() < 1.0


@pytest.mark.parametrize("operation", MORPHOLOGIES)
def test_morphology_changes_luminosity_alone(operation: str) -> None:
    """Gray morphology of scipy on L, with the same ellipse; a and b are unchanged."""
    rng = np.random.default_rng(3)
    image = np.clip(scene() + rng.integers(-30, 30, (40, 56, 1)), 0, 255).astype(np.uint8)
    element = np.array(
        [[0, 0, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], dtype=bool
    )
    luminosity = np.rint(lab(image)[..., 0] * 255 / 100)
    of_scipy = {
        "erosion": ndimage.grey_erosion,
        "dilation": ndimage.grey_dilation,
        "opening": ndimage.grey_opening,
        "closing": ndimage.grey_closing,
        "gradient": ndimage.morphological_gradient,
        "top_hat": ndimage.white_tophat,
        "black_hat": ndimage.black_tophat,
    }[operation]
    expected = of_scipy(luminosity, footprint=element) * 100 / 255
    after = lab(change_luminosity(image, operation, 5))  # type: ignore[arg-type]
    inner = (slice(5, -5), slice(5, -5))  # the borders are each library's own
    assert np.abs(after[..., 0] - expected)[inner].mean() < 1.0
    if operation in {"erosion", "dilation", "opening", "closing"}:  # of a dark image colors cannot be seen
        assert np.abs(after - lab(image))[..., 1:][inner].mean() < 1.5


def test_a_smooth_spot_adds_a_gaussian_to_every_channel() -> None:
    """exp(-d' S^-1 d / 2) times the strength, nothing beyond three standard deviations, and saturation."""
    image = np.full((60, 80, 3), (90, 120, 200), np.uint8)
    spot = Spot(x=30.0, y=25.0, long=10.0, short=4.0, degrees=30.0, strength=0.5)
    changed, mask = add_spots(image, [spot])
    turn = math.radians(30.0)
    axes = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    covariance = axes @ np.diag([10.0**2, 4.0**2]) @ axes.T
    rows, columns = np.mgrid[:60, :80]
    away = np.stack([columns - 30.0, rows - 25.0], axis=-1)
    distance = np.einsum("...i,ij,...j", away, np.linalg.inv(covariance), away)
    expected = np.where(distance <= 9, 0.5 * np.exp(-distance / 2), 0)
    assert np.abs(mask - expected).max() < 1e-5
    light = np.rint(255 * expected)[..., None]
    assert np.abs(changed.astype(int) - np.minimum(image + light, 255)).max() <= 1
    assert (changed[mask == 0] == image[mask == 0]).all()


def test_a_negative_spot_darkens_and_the_input_stays_unchanged() -> None:
    """A negative strength darkens; the input array is not modified."""
    image = scene()
    before = image.copy()
    changed, mask = add_spots(image, [Spot(20, 20, 8, 8, 0, -0.4)])
    assert (image == before).all()
    assert mask.min() == pytest.approx(-0.4)
    assert changed[20, 20].astype(int).tolist() == (image[20, 20].astype(int) - 102).clip(0).tolist()


def test_the_grain_is_poisson_noise_without_its_mean() -> None:
    """Within a wide spot the mask varies around the smooth one by the grain, with the skew of a Poisson distribution
    with rate 8.
    """
    blank = np.zeros((300, 300, 3), np.uint8)
    wide: dict[str, Any] = {"x": 150.0, "y": 150.0, "long": 1e4, "short": 1e4, "degrees": 0.0, "strength": 0.5}
    _, grained = add_spots(blank, [Spot(**wide, grain=0.2, window=(TILE_PIXELS - 50, 7))])
    _, smooth = add_spots(blank, [Spot(**wide)])
    grains = np.divide(grained, smooth) - 1
    assert grains.mean() == pytest.approx(0, abs=0.01)
    assert grains.std() == pytest.approx(0.2, rel=0.03)
    assert stats.skew(grains.ravel()) == pytest.approx(1 / math.sqrt(8), abs=0.1)


@pytest.mark.parametrize("value", [5, 60, 150])
def test_photon_noise_has_the_mean_and_deviation_of_a_poisson_distribution(value: int) -> None:
    """With 255 photons at white, a gray value v has mean v and standard deviation sqrt(v); dark values are drawn
    exactly.
    """
    image = np.full((200, 200, 3), value, np.uint8)
    noisy = photon_noise(image, 255.0, np.random.default_rng(1)).astype(float)
    assert noisy.mean() == pytest.approx(value, abs=0.1)
    assert noisy.std() == pytest.approx(math.sqrt(value), rel=0.02)
    if value < MIN_PHOTONS_FOR_NORMAL:  # a Poisson number is zero with probability exp(-5)
        assert (noisy == 0).mean() == pytest.approx(math.exp(-value), rel=0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rotate": (-40, 40)},
        {"scale": (0.5, 1.5), "keep_ratio": True, "translate_percent": (-0.2, 0.2)},
        {"scale": (0.7, 1.3), "shear": {"x": (-20, 20), "y": (-10, 10)}, "rotate": (-180, 180), "p": 0.5},
        {"scale": 1.0, "rotate": 0.0, "translate_percent": 0.0, "shear": 0.0},
        {"rotate": (-40, 40), "fit_output": True},
        {"rotate": (-40, 40), "border_mode": cv2.BORDER_CONSTANT, "fill": 7},
    ],
)
def test_an_affine_change_equals_that_of_albumentations(arguments: dict[str, Any]) -> None:
    """With the same seeds: the image, a mask, a box and a keypoint."""
    arguments = {"border_mode": cv2.BORDER_REFLECT_101, "p": 1.0, **arguments}
    beside = {
        "bbox_params": A.BboxParams("pascal_voc", label_fields=["labels"]),
        "keypoint_params": A.KeypointParams("xy", remove_invisible=False),
    }
    ours, theirs = (
        A.Compose([transform(**arguments)], seed=5, **beside) for transform in (TRANSFORMS["Affine"], A.Affine)
    )
    mask = np.arange(40 * 56, dtype=np.int32).reshape(40, 56) // 100
    for _ in range(8):
        inputs = {
            "image": scene(),
            "mask": mask,
            "bboxes": [[3, 4, 20, 30]],
            "labels": [1],
            "keypoints": [(9.0, 11.0)],
        }
        result, reference = ours(**inputs), theirs(**inputs)
        for name in ("image", "mask"):
            assert (result[name] == reference[name]).all()
        for name in ("bboxes", "keypoints"):
            assert np.asarray(result[name]) == pytest.approx(np.asarray(reference[name]), abs=1e-4)


@pytest.mark.parametrize("std", [0.01, 0.04, 0.13])
def test_gaussian_noise_is_normal(std: float) -> None:
    """On middle gray: mean 0, the requested deviation, and a normal distribution up to 256 quantiles and 8-bit
    rounding.
    """
    rng = np.random.default_rng(2)
    image = np.full((300, 300, 3), (128, 128, 127), np.uint8)
    noise = gaussian_noise(image, std, rng.integers(0, 256, image.size, dtype=np.uint8)).astype(float) - image
    assert noise.mean() == pytest.approx(0, abs=0.15)
    assert noise.std() == pytest.approx(math.hypot(255 * std, math.sqrt(1 / 12)), rel=0.02)
    below = np.array([(noise <= edge).mean() for edge in range(-40, 41)])
    assert np.abs(below - stats.norm.cdf(np.arange(-40, 41) + 0.5, scale=255 * std)).max() < 0.01
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.01


def test_noise_on_gray_images_is_as_strong_as_on_colored_ones() -> None:
    """All three channels of a gray image get the same noise; other types than 8-bit images are refused."""
    gray = np.full((200, 200, 3), 128, np.uint8)
    noise = TRANSFORMS["GaussianNoise"](std_range=(0.05, 0.05), p=1)(image=gray)["image"].astype(float) - 128
    assert noise.std() == pytest.approx(0.05 * 255, rel=0.03)
    assert np.ptp(noise, axis=2).max() == 0
    for name in ("GaussianNoise", "PhotonNoise"):
        with pytest.raises(ValueError, match="8-bit images"):
            TRANSFORMS[name](p=1)(image=np.zeros((8, 8, 3), np.float32))


@pytest.mark.parametrize("name", [*OPERATIONS])
def test_an_operation_keeps_the_shape_is_deterministic_and_depends_on_the_seed(name: str) -> None:
    """8-bit RGB of the same size at every strength, equal for equal seeds; at strength 0.8 it changes a photograph-like
    image.
    """
    rng = np.random.default_rng(5)
    image = np.clip(
        np.repeat(np.repeat(rng.integers(0, 255, (12, 12, 3)), 8, 0), 8, 1) + rng.normal(0, 5, (96, 96, 3)), 0, 255
    ).astype(np.uint8)
    for strength in (0.0, 0.4, 0.8, 1.0):
        transform = PolicyTransform([OPERATIONS[name].entry(strength)])
        changed_once = transform(image, 11)
        assert (changed_once.shape, changed_once.dtype) == (image.shape, image.dtype)
        assert (changed_once == transform(image, 11)).all()
    by_seed = [PolicyTransform([OPERATIONS[name].entry(0.8)])(image, seed) for seed in range(6)]
    assert any((changed != image).any() for changed in by_seed)


@pytest.mark.parametrize("name", ["rotate", "shift", "scale", "crop", "shear", "perspective", "elastic"])
def test_geometric_operations_add_no_black_border(name: str) -> None:
    """Nothing dark appears at the edges of a bright image."""
    for seed in range(10):
        assert PolicyTransform([OPERATIONS[name].entry(1.0)])(np.full((48, 48, 3), 230, np.uint8), seed).min() > 200


def test_steps_are_drawn_independently() -> None:
    """Two steps with probability 0.5 are both applied in a quarter of the augmented rows, not in half of them."""
    image = scene(16, 16)
    policy = [{"InvertImg": {"p": 0.5}}, {"HorizontalFlip": {"p": 0.5}}]
    counts = {"both": 0, "one": 0, "none": 0}
    for seed in range(400):
        changed = PolicyTransform(policy)(image, seed)
        inverted = int(changed.astype(int).sum() != image.astype(int).sum())
        upright = 255 - changed if inverted else changed
        flipped = int((upright != image).any())
        counts[["none", "one", "both"][inverted + flipped]] += 1
    assert 70 <= counts["both"] <= 130
    assert 160 <= counts["one"] <= 240


def test_custom_transforms_compose_serialize_and_keep_boxes_and_masks() -> None:
    """Within albumentations' Compose, to a dictionary and back, with a mask and a box."""
    ours = [
        A.NoOp(p=1),
        ChannelOrder(p=1),
        ColorRotation((20, 40), p=1),
        LuminosityMorphology(["erosion"], (3, 5), p=1),
        Glare(mask=True, p=1),
        PhotonNoise(p=1),
    ]
    whole = A.Compose(ours, bbox_params=A.BboxParams("pascal_voc", label_fields=["labels"]), seed=3)
    mask = np.arange(40 * 56, dtype=np.int32).reshape(40, 56)
    done = whole(image=scene(), mask=mask, bboxes=[[3, 4, 20, 30]], labels=[1])
    assert (done["mask"] == mask).all()
    assert np.asarray(done["bboxes"]) == pytest.approx(np.array([[3, 4, 20, 30]]), abs=1e-4)
    assert done["glare_mask"].shape == (40, 56)
    again = A.from_dict(A.to_dict(whole))
    again.set_random_seed(9)
    whole.set_random_seed(9)
    assert (
        again(image=scene(), bboxes=[], labels=[])["image"] == whole(image=scene(), bboxes=[], labels=[])["image"]
    ).all()
    assert {*TRANSFORMS} >= {type(transform).__name__ for transform in ours[1:]}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (["glar"], "unknown transform 'glar'. Did you mean glare?"),
        ([{"glare": 1.5}], "glare takes a number from 0 to 1, not 1.5"),
        ([{"glare": {"power": 1}}], "glare takes strength and p, not power"),
        ([{"HorizontalFlip": {"chance": 1}}], "HorizontalFlip: .*chance"),
        ([{"ChannelOrder": {"orders": [[0, 1, 1]]}}], "each must contain 0, 1 and 2 once"),
        ([{"Glare": {"size": [0.5, 0.1]}}], "size: expected two ascending numbers"),
        ([{"Compose": {"transforms": []}}], "unknown transform 'Compose'"),
        ([{"flip_left_right": 0.1}], "takes p, not 0.1: write {flip_left_right: {p: 0.1}} for a probability"),
        ([{"HorizontalFlip": 0.5}], "transforms take arguments"),
        ([{"rotate": {"p": "abc"}}], "rotate takes a number from 0 to 1, not 'abc'"),
        (["BBoxSafeRandomCrop"], "BBoxSafeRandomCrop does not turn an image into an image: KeyError"),
        (["Normalize"], "it returns float32 of shape (64, 64, 3), but rows hold 8-bit RGB"),
        (["rainyy"], "unknown transform 'rainyy'. Did you mean rainy?"),
        ([{"OverlayElements": {}}], "OverlayElements needs"),
    ],
)
def test_an_invalid_policy_is_explained(policy: list[object], message: str) -> None:
    """The message has the name, the cause, and what is allowed."""
    with pytest.raises(InputError, match=re.escape(message).replace("\\.\\*", ".*")):
        maker_of(steps_of(policy, IMAGES, {}), IMAGES, Resources({"rainy": lambda pixels, _: pixels}, Context()))


def test_a_blank_augmented_row_is_rejected() -> None:
    """An all-black result raises MadeBlank.

    A blank parent, which a user may allow, is augmented. One color is blank, and so are two colors that differ by
    one level, but not by two.
    """
    dark = {"RandomBrightnessContrast": {"brightness_limit": [-1, -1], "contrast_limit": [0, 0], "p": 1.0}}
    maker = maker_of(steps_of([dark], IMAGES, {}), IMAGES, Resources.of(None))
    with pytest.raises(MadeBlank):
        maker(encode(scene()), 0)
    assert maker(encode(np.full((40, 40, 3), 9, np.uint8)), 0).recipe
    assert is_blank(np.full((40, 40, 3), (250, 10, 90), np.uint8))
    halves = np.full((40, 40, 3), 9, np.uint8)
    halves[:20] += 1
    assert is_blank(halves)
    halves[:20] += 1
    assert not is_blank(halves)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (3, 200, 3)])
def test_images_of_unusual_shapes_are_changed_or_refused(shape: tuple[int, int, int]) -> None:
    """With one pixel or one row, every operation returns an 8-bit RGB image or raises CannotChange."""
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    unable = set()
    for name in OPERATIONS:
        try:
            changed = PolicyTransform([OPERATIONS[name].entry(1.0)])(image, 1)
            assert changed.ndim == 3
        except CannotChange:
            unable.add(name)
    assert len(unable) <= 3


def test_the_presets_are_valid_policies() -> None:
    """Each can be built, and its augmented row can be recreated from the recipe."""
    for policy in PRESETS.values():
        make = maker_of(steps_of(policy, IMAGES, {}), IMAGES, Resources.of(None))
        first, recipe, _ = make(encode(scene()), 4)
        assert first == make(encode(scene()), 4)[0]
        assert recipe is not None
        assert '"transforms"' in recipe


@pytest.mark.parametrize("name", [*OPERATIONS, "RandomShadow", "GridDropout", "RandomCropFromBorders", "ToSepia"])
def test_a_step_equals_a_call_of_albumentations(name: str) -> None:
    """For every operation, and for some transforms without an operation, the image is that of the transform alone,
    wherever it is applied.
    """
    steps = steps_of([{name: {"p": 0.6}}], IMAGES, {})
    policy = PolicyTransform([{step.name: dict(step.arguments)} for step in steps])
    stream, _ = policy._build()
    (transform,) = (build(step.name, step.arguments) for step in steps)
    transform.set_random_state(stream.np_random, stream.py_random)
    turns = set()
    for seed in range(12):
        child, applied = policy.apply(scene(), seed)
        stream.reseed(seed)
        assert (child == transform(image=scene())["image"]).all()
        assert bool(applied) == bool(transform.params)
        turns.add(bool(applied))
    assert turns == {True, False}


def test_augmented_rows_of_an_image_do_not_depend_on_earlier_operations() -> None:
    """No operation modifies its parent, so reading an image once is enough."""
    for name in OPERATIONS:
        maker = maker_of(steps_of([name], IMAGES, {}), IMAGES, Resources.of(None))
        parent = maker.read(encode(scene()))
        assert [maker.make(parent, seed) for seed in range(3)] == [maker(encode(scene()), seed) for seed in range(3)]
        assert (parent == scene()).all()


def test_augmented_rows_of_gray_images_are_gray() -> None:
    """Noise is drawn per channel and would color them; colored images stay colored."""
    gray = np.repeat(scene()[..., :1], 3, axis=2)
    for name in ("gaussian_noise", "iso_noise", "photon_noise", "salt_and_pepper"):
        changed = PolicyTransform([OPERATIONS[name].entry(0.8)])(gray, 3)
        assert (changed != gray).any()
        assert (changed[..., 0] == changed[..., 1]).all()
        assert (changed[..., 1] == changed[..., 2]).all()
    assert np.ptp(PolicyTransform([OPERATIONS["gaussian_noise"].entry(0.8)])(scene(), 3).astype(int), axis=2).max() > 5
