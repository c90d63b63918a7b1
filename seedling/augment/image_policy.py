"""Augmented images by an albumentations policy; equal for equal parent and seed, whatever the order or the worker."""

from __future__ import annotations

import difflib
import random
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, cast

import albumentations as A
import cv2
import numpy as np

from seedling.augment.catalog import OPERATIONS, Arguments, CannotChange, Entry
from seedling.augment.transforms import TRANSFORMS
from seedling.errors import InputError
from seedling.media import images
from seedling.media.images import Pixels
from seedling.plugins import defined_in

Policy = Sequence[Entry]
Plugin = Callable[[Pixels, np.random.Generator], Pixels]
Step = Callable[[Pixels], tuple[Pixels, bool]]


class RandomStream:
    """The generators that all steps of a policy share, Python's and numpy's, seeded once per augmented image.

    `Compose` seeds each transform alike, so that two steps with probability 0.5 would always be applied together. To
    create new generators takes longer than to augment a small image, so these are reseeded.
    """

    def __init__(self) -> None:
        self.py_random = random.Random()  # noqa: S311  (not for secrets)
        self._bits = np.random.PCG64()
        self.np_random = np.random.Generator(self._bits)
        self._state = self._bits.state

    def reseed(self, seed: int) -> None:
        """Restart both generators from the seed."""
        self.py_random.seed(seed)
        self._state["state"] = {"state": self.py_random.getrandbits(128), "inc": 1}
        self._state["has_uint32"] = self._state["uinteger"] = 0
        self._bits.state = self._state


class PolicyTransform:
    """A policy, usable from several threads; each thread builds its own transforms.

    Augmented images of a gray image are gray: colored noise would distinguish them from their parents.
    """

    def __init__(
        self, policy: Policy, plugins: Mapping[str, Plugin] = MappingProxyType({}), names: Sequence[str] | None = None
    ) -> None:
        """Raises InputError if the policy cannot be built.

        plugins: the user's functions, (pixels, generator) → pixels, which a policy names as {"own": {"name": …}};
        names: display names of the steps.
        """
        self._policy, self._plugins = policy, plugins
        self._names = names or [
            str(arguments.get("name", name)) if name == "own" else name
            for entry in policy
            for name, arguments in entry.items()
        ]
        self._thread_local = threading.local()
        self._build()  # fails here, and not on the first image

    def _build(self) -> tuple[RandomStream, list[Step]]:
        stream, steps = RandomStream(), list[Step]()
        for name, arguments in (item for entry in self._policy for item in entry.items()):
            if name == "own":
                probability = float(cast("float", arguments.get("p", 1.0)))
                steps.append(partial(_apply_plugin, self._plugins[str(arguments["name"])], probability, stream))
            else:
                transform = build(name, arguments, list(self._plugins))
                transform.set_random_state(stream.np_random, stream.py_random)
                steps.append(partial(_apply_parts if _is_plain(transform) else _apply_transform, transform))
        return stream, steps

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """Return the augmented image, (height, width, 3), for the seed."""
        return self.apply(pixels, seed)[0]

    def apply(self, pixels: Pixels, seed: int) -> tuple[Pixels, list[str]]:
        """Return the augmented image and the names of the steps that were applied: each has its own probability."""
        if not hasattr(self._thread_local, "built"):
            self._thread_local.built = self._build()
        stream, steps = self._thread_local.built
        stream.reseed(seed)
        augmented, applied = pixels, []
        for name, step in zip(self._names, steps, strict=True):
            augmented, is_applied = step(augmented)
            applied += [name] if is_applied else []
        if applied and images.is_gray(pixels) and not images.is_gray(augmented):
            augmented = cv2.cvtColor(cv2.cvtColor(augmented, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return augmented, applied


def _is_plain(transform: A.BasicTransform) -> bool:
    """Return whether `_apply_parts` is equivalent to the transform's `__call__` for an image alone."""
    kind = type(transform)
    methods = (kind.__call__, kind.apply_with_params)
    is_default = methods == (A.BasicTransform.__call__, A.BasicTransform.apply_with_params)
    return is_default and transform.targets.get("image") == transform.apply and not transform.targets_as_params


def _apply_parts(transform: A.BasicTransform, pixels: Pixels) -> tuple[Pixels, bool]:
    """Apply a plain transform by its parts, bit for bit like `__call__`.

    For small images the code for masks and boxes in `__call__` takes longer than some transforms.
    """
    try:
        if not transform.should_apply():
            return pixels, False
        data = {"image": pixels}
        params = transform.update_transform_params(transform.get_params(), data)
        params.update(transform.get_params_dependent_on_data(params, data))
        changed = np.ascontiguousarray(transform.apply(pixels, **params))
    except Exception as error:  # albumentations raises many types
        raise CannotChange(f"{type(transform).__name__}: {error}") from error
    return _checked(transform, changed), True


def _apply_transform(transform: A.BasicTransform, pixels: Pixels) -> tuple[Pixels, bool]:
    try:
        changed: Pixels = transform(image=pixels)["image"]
    except Exception as error:
        raise CannotChange(f"{type(transform).__name__}: {error}") from error
    return _checked(transform, changed), bool(transform.params)  # empty if the transform was not applied


def _checked(transform: A.BasicTransform, changed: Pixels) -> Pixels:
    if changed.ndim != 3 or changed.shape[2] != 3 or changed.dtype != np.uint8 or changed.size == 0:
        raise CannotChange(f"{type(transform).__name__} returns {changed.dtype} of shape {changed.shape}")
    return changed


def _apply_plugin(plugin: Plugin, probability: float, stream: RandomStream, pixels: Pixels) -> tuple[Pixels, bool]:
    rng = stream.np_random
    if probability < 1 and rng.random() >= probability:
        return pixels, False
    try:
        changed = plugin(pixels.copy(), rng)
    except Exception as error:
        raise InputError(
            f"{defined_in(plugin)}: '{plugin.__name__}' failed on an image: {type(error).__name__}: {error}"
        ) from error
    if not (
        isinstance(changed, np.ndarray)
        and changed.dtype == np.uint8
        and changed.ndim == 3
        and changed.shape[2] == 3
        and changed.size
    ):
        raise InputError(f"{defined_in(plugin)}: '{plugin.__name__}' must return 8-bit RGB, (height, width, 3).")
    return changed, True


def build(name: str, arguments: Arguments, plugin_names: Sequence[str] = ()) -> A.BasicTransform:
    """Build a transform of albumentations or Seedling. plugin_names: suggested for a misspelled name.

    Raises InputError for an unknown name, for arguments that the transform does not take, and for a transform that
    needs more than an image or returns something else.
    """
    transform_class: Any = TRANSFORMS.get(name) or getattr(A, name, None)
    if not _is_transform_class(transform_class):
        names = [*plugin_names, *OPERATIONS, *TRANSFORMS]
        names += [attribute for attribute in dir(A) if _is_transform_class(getattr(A, attribute))]
        matches = difflib.get_close_matches(name, names, 1)
        suggestion = f" Did you mean {matches[0]}?" if matches else ""
        raise InputError(
            f"params.yaml: augment.policy: unknown transform '{name}'.{suggestion} docs/augmenting.md lists the "
            "operations."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # albumentations ignores unknown arguments with a warning
            transform = transform_class(**{key: _tuple(value) for key, value in arguments.items()})
    except (TypeError, ValueError, UserWarning) as error:
        raise InputError(f"params.yaml: augment.policy: {name}: {error}") from error
    if transform.targets_as_params and {*transform.targets_as_params} - {"image"}:
        raise InputError(
            f"params.yaml: augment.policy: {name} needs {', '.join(transform.targets_as_params)}, but rows have only "
            "an image."
        )
    if obstacle := _obstacle(transform):
        raise InputError(f"params.yaml: augment.policy: {name} does not turn an image into an image: {obstacle}.")
    return transform


def _obstacle(transform: A.BasicTransform) -> str | None:
    """Return why the transform does not turn an image alone into an image, or None."""
    try:
        changed = transform(image=np.zeros((64, 64, 3), np.uint8), force_apply=True)["image"]
        if changed.dtype != np.uint8 or changed.ndim != 3 or changed.shape[2] != 3:
            return f"it returns {changed.dtype} of shape {changed.shape}, but rows hold 8-bit RGB"
    except (KeyError, NotImplementedError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  (a crop may be larger than this image, and fit others)
        return None
    return None


def _is_transform_class(candidate: Any) -> bool:
    """Return whether this is a transform that can be built, and not a base class."""
    bases = (A.ImageOnlyTransform, A.DualTransform)
    return isinstance(candidate, type) and issubclass(candidate, bases) and candidate not in {*bases, A.NoOp}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
