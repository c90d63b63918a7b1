"""Children of images by an albumentations policy, the same for the same parent whatever the order or worker."""

from __future__ import annotations

import difflib
import random
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import albumentations as A
import cv2
import numpy as np

from seedling.augment.catalog import OPERATIONS, CannotChange
from seedling.augment.transforms import OURS
from seedling.errors import InputError
from seedling.media import images
from seedling.media.images import Pixels

Policy = Sequence[Mapping[str, Mapping[str, Any]]]
Own = Callable[[Pixels, np.random.Generator], Pixels]
Step = Callable[[Pixels], tuple[Pixels, bool]]


class Stream:
    """The generators that all steps of a policy draw from, one after the other: Python's and numpy's, both of a child's seed.

    `Compose` gives every transform generators of the same seed, so that what happens to an image half of the time would happen always together;
    and to make generators takes longer than to change a small image.
    """

    def __init__(self) -> None:
        self.py_random = random.Random()  # noqa: S311  (not for secrets)
        self._bits = np.random.PCG64()
        self.numbers = np.random.Generator(self._bits)
        self._state = self._bits.state

    def begin(self, seed: int) -> None:
        """From here on what is drawn is this seed's."""
        self.py_random.seed(seed)
        self._state["state"] = {"state": self.py_random.getrandbits(128), "inc": 1}
        self._state["has_uint32"] = self._state["uinteger"] = 0
        self._bits.state = self._state


class PolicyTransform:
    """A policy that can be applied from several threads; each builds its own transforms. A gray image's children are gray: colored noise would tell
    them from their parents.
    """

    def __init__(
        self, policy: Policy, own: Mapping[str, Own] = MappingProxyType({}), names: Sequence[str] | None = None
    ) -> None:
        """own: the user's functions, (pixels, generator) → pixels, which a policy names as {"own": {"name": …}}; names: what the steps are called."""
        self._policy, self._own = policy, own
        self._names = names or [
            arguments.get("name", name) if name == "own" else name for one in policy for name, arguments in one.items()
        ]
        self._of_thread = threading.local()
        self._build()  # a policy that cannot be built is said at once

    def _build(self) -> tuple[Stream, list[Step]]:
        stream, steps = Stream(), list[Step]()
        for name, arguments in (entry for one in self._policy for entry in one.items()):
            if name == "own":
                steps.append(partial(_by_own, self._own[arguments["name"]], float(arguments.get("p", 1.0)), stream))
            else:
                transform = build(name, arguments, list(self._own))
                transform.set_random_state(stream.numbers, stream.py_random)
                steps.append(partial(_by_parts if _is_plain(transform) else _by_transform, transform))
        return stream, steps

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """The child of this image that this seed gives, (height, width, 3)."""
        return self.apply(pixels, seed)[0]

    def apply(self, pixels: Pixels, seed: int) -> tuple[Pixels, list[str]]:
        """The child, and the names of the steps that were carried out: each has its own chance."""
        if not hasattr(self._of_thread, "built"):
            self._of_thread.built = self._build()
        stream, steps = self._of_thread.built
        stream.begin(seed)
        child, applied = pixels, []
        for name, step in zip(self._names, steps, strict=True):
            child, done = step(child)
            applied += [name] if done else []
        if applied and images.is_gray(pixels) and not images.is_gray(child):
            child = cv2.cvtColor(cv2.cvtColor(child, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return child, applied


def _is_plain(transform: A.BasicTransform) -> bool:
    """Whether an image alone goes through it by the parts that every transform has, in their usual order."""
    kind = type(transform)
    usual = (kind.__call__, kind.apply_with_params) == (A.BasicTransform.__call__, A.BasicTransform.apply_with_params)
    return usual and transform.targets.get("image") == transform.apply and not transform.targets_as_params


def _by_parts(transform: A.BasicTransform, pixels: Pixels) -> tuple[Pixels, bool]:
    """The same to the bit; a small image waits longer for what stands around these calls, for masks and boxes, than for some of them."""
    try:
        if not transform.should_apply():
            return pixels, False
        given = {"image": pixels}
        params = transform.update_transform_params(transform.get_params(), given)
        params.update(transform.get_params_dependent_on_data(params, given))
        changed = np.ascontiguousarray(transform.apply(pixels, **params))
    except Exception as error:  # albumentations has a kind of its own for many a reason
        raise CannotChange(f"{type(transform).__name__}: {error}") from error
    return _checked(transform, changed), True


def _by_transform(transform: A.BasicTransform, pixels: Pixels) -> tuple[Pixels, bool]:
    try:
        changed: Pixels = transform(image=pixels)["image"]
    except Exception as error:
        raise CannotChange(f"{type(transform).__name__}: {error}") from error
    return _checked(transform, changed), bool(transform.params)  # which it has where it was its turn


def _checked(transform: A.BasicTransform, changed: Pixels) -> Pixels:
    if changed.ndim != 3 or changed.shape[2] != 3 or changed.dtype != np.uint8 or changed.size == 0:
        raise CannotChange(f"{type(transform).__name__} gives {changed.dtype} of shape {changed.shape}")
    return changed


def _by_own(own: Own, p: float, stream: Stream, pixels: Pixels) -> tuple[Pixels, bool]:
    rng = stream.numbers
    if p < 1 and rng.random() >= p:
        return pixels, False
    try:
        changed = own(pixels.copy(), rng)
    except Exception as error:
        raise InputError(
            f"data/augmenting.py: '{own.__name__}' stopped at an image: {type(error).__name__}: {error}"
        ) from error
    if not (
        isinstance(changed, np.ndarray)
        and changed.dtype == np.uint8
        and changed.ndim == 3
        and changed.shape[2] == 3
        and changed.size
    ):
        raise InputError(f"data/augmenting.py: '{own.__name__}' must give 8-bit RGB, (height, width, 3).")
    return changed, True


def build(name: str, arguments: Mapping[str, Any], own: Sequence[str] = ()) -> A.BasicTransform:
    """The transform. Raises InputError for one that neither albumentations nor Seedling has, and for arguments that it does not take. own: names of the
    user's functions, one of which may be meant.
    """
    made: Any = OURS.get(name) or getattr(A, name, None)
    if not _usable(made):
        near = difflib.get_close_matches(
            name, [*own, *OPERATIONS, *OURS, *(one for one in dir(A) if _usable(getattr(A, one)))], 1
        )
        meant = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"params.yaml: augment.policy: there is no transform '{name}'.{meant} docs/augmenting.md shows what there is."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # albumentations drops what it does not know with a warning
            transform = made(**{key: _tuple(value) for key, value in arguments.items()})
    except (TypeError, ValueError, UserWarning) as error:
        raise InputError(f"params.yaml: augment.policy: {name}: {error}") from error
    if transform.targets_as_params and {*transform.targets_as_params} - {"image"}:
        raise InputError(
            f"params.yaml: augment.policy: {name} needs {', '.join(transform.targets_as_params)}, and rows have images alone."
        )
    if why := _why_no_image(transform):
        raise InputError(f"params.yaml: augment.policy: {name} does not make an image of an image: {why}.")
    return transform


def _why_no_image(transform: A.BasicTransform) -> str | None:
    """What a transform misses that is given an image and nothing else, or what else it makes of one; None for one that makes an image."""
    try:
        changed = transform(image=np.zeros((64, 64, 3), np.uint8), force_apply=True)["image"]
        if changed.dtype != np.uint8 or changed.ndim != 3 or changed.shape[2] != 3:
            return f"it gives {changed.dtype} of shape {changed.shape}, and rows hold 8-bit RGB"
    except (KeyError, NotImplementedError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  (a crop that is larger than this image: another one may do)
        return None
    return None


def _usable(made: Any) -> bool:
    """Whether it is a transform that can be made, and not what transforms are derived from."""
    kinds = (A.ImageOnlyTransform, A.DualTransform)
    return isinstance(made, type) and issubclass(made, kinds) and made not in {*kinds, A.NoOp}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
