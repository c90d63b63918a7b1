"""Children of pictures by an albumentations policy, the same for the same parent whatever the order or worker."""

from __future__ import annotations

import difflib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import albumentations as A
import cv2
import numpy as np

from tasks import images
from tasks.augment.catalogue import OPERATIONS, CannotChange
from tasks.augment.transforms import OURS
from tasks.errors import InputError
from tasks.images import Pixels

APART = 0x9E3779B97F4A7C15  # the golden ratio's bits (Steele et al. 2014): seeds of a picture's steps lie far from one another, and are mixed where they are used
Policy = Sequence[Mapping[str, Mapping[str, Any]]]
Own = Callable[[Pixels, np.random.Generator], Pixels]
Step = Callable[[Pixels, int], tuple[Pixels, bool]]


class PolicyTransform:
    """A policy that can be applied from several threads; each builds its own transforms. A grey picture's children are grey: coloured noise would tell
    them from their parents.

    They are called one by one, each with a seed of its own: `Compose` gives all the same one, so that what happens to a picture half of the time
    would happen always together, and its checks take as long as a small picture's changes.
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

    def _build(self) -> list[Step]:
        return [
            partial(_by_own, self._own[arguments["name"]], float(arguments.get("p", 1.0)))
            if name == "own"
            else partial(_by_transform, build(name, arguments))
            for one in self._policy
            for name, arguments in one.items()
        ]

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """The child of this picture that this seed gives, (height, width, 3)."""
        return self.apply(pixels, seed)[0]

    def apply(self, pixels: Pixels, seed: int) -> tuple[Pixels, list[str]]:
        """The child, and the names of the steps that were carried out: each has its own chance."""
        if not hasattr(self._of_thread, "steps"):
            self._of_thread.steps = self._build()
        child, applied = pixels, []
        for number, (name, step) in enumerate(zip(self._names, self._of_thread.steps, strict=True)):
            child, done = step(child, (seed + (number + 1) * APART) % 2**32)
            applied += [name] if done else []
        if applied and images.is_grey(pixels) and not images.is_grey(child):
            child = cv2.cvtColor(cv2.cvtColor(child, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return child, applied


def _by_transform(transform: A.BasicTransform, pixels: Pixels, seed: int) -> tuple[Pixels, bool]:
    transform.set_random_seed(seed)
    try:
        changed: Pixels = transform(image=pixels)["image"]
    except Exception as error:  # albumentations has a kind of its own for many a reason
        raise CannotChange(f"{type(transform).__name__}: {error}") from error
    if changed.ndim != 3 or changed.shape[2] != 3 or changed.dtype != np.uint8 or changed.size == 0:
        raise CannotChange(f"{type(transform).__name__} gives {changed.dtype} of shape {changed.shape}")
    return changed, bool(transform.params)  # which it has where it was its turn


def _by_own(own: Own, p: float, pixels: Pixels, seed: int) -> tuple[Pixels, bool]:
    rng = np.random.default_rng(seed)
    if p < 1 and rng.random() >= p:
        return pixels, False
    try:
        changed = own(pixels.copy(), rng)
    except Exception as error:
        raise InputError(
            f"data/augmenting.py: '{own.__name__}' stopped at a picture: {type(error).__name__}: {error}"
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


def build(name: str, arguments: Mapping[str, Any]) -> A.BasicTransform:
    """The transform. Raises InputError for one that neither albumentations nor Seedling has, and for arguments that it does not take."""
    made: Any = OURS.get(name) or getattr(A, name, None)
    if not _usable(made):
        near = difflib.get_close_matches(
            name, [*OPERATIONS, *OURS, *(one for one in dir(A) if _usable(getattr(A, one)))], 1
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
            f"params.yaml: augment.policy: {name} needs {', '.join(transform.targets_as_params)}, and rows have pictures alone."
        )
    if lacking := _lacking(transform):
        raise InputError(f"params.yaml: augment.policy: {name} needs more than a picture: {lacking}")
    return transform


def _lacking(transform: A.BasicTransform) -> str | None:
    """What a transform misses that is given a picture and nothing else."""
    try:
        transform(image=np.zeros((64, 64, 3), np.uint8))
    except (KeyError, NotImplementedError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  (a crop that is larger than this picture: another one may do)
        return None
    return None


def _usable(made: Any) -> bool:
    """Whether it is a transform that can be made, and not what transforms are derived from."""
    kinds = (A.ImageOnlyTransform, A.DualTransform)
    return isinstance(made, type) and issubclass(made, kinds) and made not in {*kinds, A.NoOp}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
