"""Operations on images, against independent formulas; and that they compose, serialize and keep masks and boxes."""

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
    """A smooth colored image within the middle of the cube, so that little saturates."""
    rows, columns = np.mgrid[:height, :width]
    channels = [120 + 40 * np.sin(rows / 7), 120 + 40 * np.cos(columns / 9), 110 + 30 * np.sin((rows + columns) / 11)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def lab(pixels: np.ndarray) -> np.ndarray:
    """CIE LAB of sRGB under D65, by its definition, in floating point."""
    value = pixels / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_there_are_six_orders_of_channels_and_each_is_numpys() -> None:
    """All permutations, once each."""
    image = scene()
    assert len({*ORDERS}) == 6
    for first, second, third in ORDERS:
        assert (reorder_channels(image, (first, second, third)) == image[..., [first, second, third]]).all()


@pytest.mark.parametrize("degrees", [0, 30, 90, -120, 180])
def test_a_rotation_of_colors_turns_a_and_b_and_leaves_luminosity(degrees: float) -> None:
    """In LAB by its definition: L stays, and (a, b) is turned, within what 8 bits and the cube's faces allow."""
    image = scene()
    before, after = lab(image), lab(rotate_colors(image, degrees))
    turn = math.radians(degrees)
    wanted_a = before[..., 1] * math.cos(turn) - before[..., 2] * math.sin(turn)
    wanted_b = before[..., 1] * math.sin(turn) + before[..., 2] * math.cos(turn)
    assert np.abs(after[..., 0] - before[..., 0]).mean() < 0.5
    assert np.abs(after[..., 1] - wanted_a).mean() < 1.0
    assert np.abs(after[..., 2] - wanted_b).mean() < 1.0


@pytest.mark.parametrize("operation", MORPHOLOGIES)
def test_morphology_is_of_the_luminosity_alone(operation: str) -> None:
    """Scipy's gray morphology of L by its definition, with the same ellipse; a and b stay."""
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
    wanted = of_scipy(luminosity, footprint=element) * 100 / 255
    after = lab(change_luminosity(image, operation, 5))  # type: ignore[arg-type]
    inner = (slice(5, -5), slice(5, -5))  # the borders are each library's own
    assert np.abs(after[..., 0] - wanted)[inner].mean() < 1.0
    if operation in {"erosion", "dilation", "opening", "closing"}:  # of a dark image colors cannot be seen
        assert np.abs(after - lab(image))[..., 1:][inner].mean() < 1.5


def test_a_smooth_spot_adds_a_gaussian_to_every_channel() -> None:
    """The formula written out: exp(-d' S^-1 d / 2) times the strength, nothing beyond three standard deviations, and saturation."""
    image = np.full((60, 80, 3), (90, 120, 200), np.uint8)
    spot = Spot(x=30.0, y=25.0, long=10.0, short=4.0, degrees=30.0, strength=0.5)
    made, mask = add_spots(image, [spot])
    turn = math.radians(30.0)
    axes = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    covariance = axes @ np.diag([10.0**2, 4.0**2]) @ axes.T
    rows, columns = np.mgrid[:60, :80]
    away = np.stack([columns - 30.0, rows - 25.0], axis=-1)
    distance = np.einsum("...i,ij,...j", away, np.linalg.inv(covariance), away)
    wanted = np.where(distance <= 9, 0.5 * np.exp(-distance / 2), 0)
    assert np.abs(mask - wanted).max() < 1e-5
    light = np.rint(255 * wanted)[..., None]
    assert np.abs(made.astype(int) - np.minimum(image + light, 255)).max() <= 1
    assert (made[mask == 0] == image[mask == 0]).all()


def test_a_shadow_takes_and_the_order_of_input_is_left_alone() -> None:
    """A negative strength darkens; the image that was given stays as it was."""
    image = scene()
    before = image.copy()
    made, mask = add_spots(image, [Spot(20, 20, 8, 8, 0, -0.4)])
    assert (image == before).all()
    assert mask.min() == pytest.approx(-0.4)
    assert made[20, 20].astype(int).tolist() == (image[20, 20].astype(int) - 102).clip(0).tolist()


def test_the_grain_is_poisson_noise_without_its_mean() -> None:
    """Over a wide spot the mask varies around the smooth one by the grain, with the skew that a Poisson number of rate 8 has."""
    blank = np.zeros((300, 300, 3), np.uint8)
    wide: dict[str, Any] = {"x": 150.0, "y": 150.0, "long": 1e4, "short": 1e4, "degrees": 0.0, "strength": 0.5}
    _, grained = add_spots(blank, [Spot(**wide, grain=0.2, window=(TILE_PIXELS - 50, 7))])
    _, smooth = add_spots(blank, [Spot(**wide)])
    grains = np.divide(grained, smooth) - 1
    assert grains.mean() == pytest.approx(0, abs=0.01)
    assert grains.std() == pytest.approx(0.2, rel=0.03)
    assert stats.skew(grains.ravel()) == pytest.approx(1 / math.sqrt(8), abs=0.1)


@pytest.mark.parametrize("value", [5, 60, 150])
def test_photon_noise_has_a_poisson_numbers_mean_and_deviation(value: int) -> None:
    """Of 255 photons at white a gray of v has v of them: mean v, standard deviation the root of v; dark grays by exact draws."""
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
def test_an_affine_change_is_albumentations_own_to_the_bit(arguments: dict[str, Any]) -> None:
    """With the same seeds: the image, a mask, a box and a keypoint beside it."""
    arguments = {"border_mode": cv2.BORDER_REFLECT_101, "p": 1.0, **arguments}
    beside = {
        "bbox_params": A.BboxParams("pascal_voc", label_fields=["labels"]),
        "keypoint_params": A.KeypointParams("xy", remove_invisible=False),
    }
    ours, theirs = (A.Compose([one(**arguments)], seed=5, **beside) for one in (TRANSFORMS["Affine"], A.Affine))
    mask = np.arange(40 * 56, dtype=np.int32).reshape(40, 56) // 100
    for _ in range(8):
        given = {"image": scene(), "mask": mask, "bboxes": [[3, 4, 20, 30]], "labels": [1], "keypoints": [(9.0, 11.0)]}
        one, other = ours(**given), theirs(**given)
        for name in ("image", "mask"):
            assert (one[name] == other[name]).all()
        for name in ("bboxes", "keypoints"):
            assert np.asarray(one[name]) == pytest.approx(np.asarray(other[name]), abs=1e-4)


@pytest.mark.parametrize("std", [0.01, 0.04, 0.13])
def test_gaussian_noise_is_normal(std: float) -> None:
    """On middle gray: mean 0, the deviation asked for, and the normal's own distribution to within what 256 quantiles and 8 bits allow."""
    rng = np.random.default_rng(2)
    image = np.full((300, 300, 3), (128, 128, 127), np.uint8)
    noise = gaussian_noise(image, std, rng.integers(0, 256, image.size, dtype=np.uint8)).astype(float) - image
    assert noise.mean() == pytest.approx(0, abs=0.15)
    assert noise.std() == pytest.approx(math.hypot(255 * std, math.sqrt(1 / 12)), rel=0.02)
    below = np.array([(noise <= edge).mean() for edge in range(-40, 41)])
    assert np.abs(below - stats.norm.cdf(np.arange(-40, 41) + 0.5, scale=255 * std)).max() < 0.01
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.01


def test_a_gray_images_noise_is_as_strong_as_a_colored_ones() -> None:
    """The same number for all three channels of a gray image; noise on anything but 8-bit colors is refused."""
    gray = np.full((200, 200, 3), 128, np.uint8)
    made = TRANSFORMS["GaussianNoise"](std_range=(0.05, 0.05), p=1)(image=gray)["image"].astype(float) - 128
    assert made.std() == pytest.approx(0.05 * 255, rel=0.03)
    assert np.ptp(made, axis=2).max() == 0
    for name in ("GaussianNoise", "PhotonNoise"):
        with pytest.raises(ValueError, match="8-bit images"):
            TRANSFORMS[name](p=1)(image=np.zeros((8, 8, 3), np.float32))


@pytest.mark.parametrize("name", [*OPERATIONS])
def test_an_operation_keeps_form_repeats_itself_and_changes_with_the_seed(name: str) -> None:
    """8-bit RGB of the same size at every strength, the same for the same seed; at strength 0.8 it changes a photograph-like image."""
    rng = np.random.default_rng(5)
    image = np.clip(
        np.repeat(np.repeat(rng.integers(0, 255, (12, 12, 3)), 8, 0), 8, 1) + rng.normal(0, 5, (96, 96, 3)), 0, 255
    ).astype(np.uint8)
    for strength in (0.0, 0.4, 0.8, 1.0):
        transform = PolicyTransform([OPERATIONS[name].entry(strength)])
        made = transform(image, 11)
        assert (made.shape, made.dtype) == (image.shape, image.dtype)
        assert (made == transform(image, 11)).all()
    by_seed = [PolicyTransform([OPERATIONS[name].entry(0.8)])(image, seed) for seed in range(6)]
    assert any((changed != image).any() for changed in by_seed)


@pytest.mark.parametrize("name", ["rotate", "shift", "scale", "crop", "shear", "perspective", "elastic"])
def test_geometry_shows_no_black_border(name: str) -> None:
    """Of a bright image nothing dark comes in at the edges."""
    for seed in range(10):
        assert PolicyTransform([OPERATIONS[name].entry(1.0)])(np.full((48, 48, 3), 230, np.uint8), seed).min() > 200


def test_steps_draw_apart_from_one_another() -> None:
    """Two steps that happen half of the time happen together in a quarter of the children, not in half of them."""
    image = scene(16, 16)
    policy = [{"InvertImg": {"p": 0.5}}, {"HorizontalFlip": {"p": 0.5}}]
    counts = {"both": 0, "one": 0, "none": 0}
    for seed in range(400):
        made = PolicyTransform(policy)(image, seed)
        inverted = int(made.astype(int).sum() != image.astype(int).sum())
        upright = 255 - made if inverted else made
        flipped = int((upright != image).any())
        counts[["none", "one", "both"][inverted + flipped]] += 1
    assert 70 <= counts["both"] <= 130
    assert 160 <= counts["one"] <= 240


def test_our_transforms_compose_serialize_and_leave_boxes_and_masks() -> None:
    """Within albumentations' Compose, to a dictionary and back, with a mask and a box beside the image."""
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
    assert {*TRANSFORMS} >= {type(one).__name__ for one in ours[1:]}


@pytest.mark.parametrize(
    ("policy", "said"),
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
def test_a_policy_that_cannot_be_is_explained(policy: list[object], said: str) -> None:
    """The name, what is wrong, and what there is."""
    with pytest.raises(InputError, match=re.escape(said).replace("\\.\\*", ".*")):
        maker_of(steps_of(policy, IMAGES, {}), IMAGES, Resources({"rainy": lambda pixels, _: pixels}, Context()))


def test_a_child_on_which_nothing_is_left_is_none() -> None:
    """All black: it says so. A parent that is blank itself, as a user may allow it, has children; one color is blank, two levels' difference
    is something.
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
def test_odd_images_are_changed_or_said_to_be_unable(shape: tuple[int, int, int]) -> None:
    """One pixel, one row: every operation gives an image of 8-bit RGB or says that it cannot."""
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    unable = set()
    for name in OPERATIONS:
        try:
            made = PolicyTransform([OPERATIONS[name].entry(1.0)])(image, 1)
            assert made.ndim == 3
        except CannotChange:
            unable.add(name)
    assert len(unable) <= 3


def test_the_sets_are_policies() -> None:
    """Each can be built, and its child can be made again from the recipe."""
    for policy in PRESETS.values():
        make = maker_of(steps_of(policy, IMAGES, {}), IMAGES, Resources.of(None))
        first, recipe, _ = make(encode(scene()), 4)
        assert first == make(encode(scene()), 4)[0]
        assert recipe is not None
        assert '"transforms"' in recipe


@pytest.mark.parametrize("name", [*OPERATIONS, "RandomShadow", "GridDropout", "RandomCropFromBorders", "ToSepia"])
def test_a_step_is_albumentations_own_call_to_the_bit(name: str) -> None:
    """Of every operation, and of some transforms that no operation has: the same image as the transform gives by itself, where it takes its turn."""
    steps = steps_of([{name: {"p": 0.6}}], IMAGES, {})
    policy = PolicyTransform([{one.name: dict(one.arguments)} for one in steps])
    stream, _ = policy._build()
    (transform,) = (build(one.name, one.arguments) for one in steps)
    transform.set_random_state(stream.np_random, stream.py_random)
    turns = set()
    for seed in range(12):
        child, applied = policy.apply(scene(), seed)
        stream.reseed(seed)
        assert (child == transform(image=scene())["image"]).all()
        assert bool(applied) == bool(transform.params)
        turns.add(bool(applied))
    assert turns == {True, False}


def test_children_of_a_image_that_is_read_once_are_those_of_one_read_anew() -> None:
    """Whatever operation came before: none leaves a trace on its parent."""
    for name in OPERATIONS:
        maker = maker_of(steps_of([name], IMAGES, {}), IMAGES, Resources.of(None))
        parent = maker.read(encode(scene()))
        assert [maker.make(parent, seed) for seed in range(3)] == [maker(encode(scene()), seed) for seed in range(3)]
        assert (parent == scene()).all()


def test_a_gray_images_children_are_gray() -> None:
    """Noise is drawn for each channel, and would color them; a colored image's children keep their colors."""
    gray = np.repeat(scene()[..., :1], 3, axis=2)
    for name in ("gaussian_noise", "iso_noise", "photon_noise", "salt_and_pepper"):
        made = PolicyTransform([OPERATIONS[name].entry(0.8)])(gray, 3)
        assert (made != gray).any()
        assert (made[..., 0] == made[..., 1]).all()
        assert (made[..., 1] == made[..., 2]).all()
    assert np.ptp(PolicyTransform([OPERATIONS["gaussian_noise"].entry(0.8)])(scene(), 3).astype(int), axis=2).max() > 5
