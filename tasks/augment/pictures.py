"""Children of pictures by an albumentations policy, the same for the same parent whatever the order or worker."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations as A
import cv2

from tasks.errors import InputError
from tasks.images import Pixels

Policy = Sequence[Mapping[str, Mapping[str, Any]]]

# Changes that keep the label of nearly anything. No flips: a mirrored digit or letter is another one.
# Borders are reflected, so that no black frame tells a child from its parent.
DEFAULT_POLICY: Policy = (
    {
        "Affine": {
            "rotate": [-10, 10],
            "translate_percent": [-0.08, 0.08],
            "scale": [0.9, 1.1],
            "shear": [-5, 5],
            "border_mode": cv2.BORDER_REFLECT_101,
            "p": 1.0,
        }
    },
    {"RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.5}},
    {"GaussNoise": {"std_range": [0.01, 0.05], "p": 0.3}},
)


class PolicyTransform:
    """A policy that can be applied from several threads; each builds its own albumentations pipeline."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._of_thread = threading.local()
        build(policy)  # a policy that cannot be built is said at once

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """The child of this picture that this seed gives, (height, width, 3)."""
        if not hasattr(self._of_thread, "pipeline"):
            self._of_thread.pipeline = build(self._policy)
        pipeline = self._of_thread.pipeline
        pipeline.set_random_seed(seed % 2**32)
        child: Pixels = pipeline(image=pixels)["image"]
        return child


def build(policy: Policy) -> A.Compose:
    """The albumentations pipeline. Raises InputError for a transform or an argument that albumentations has not."""
    transforms = []
    for one in policy:
        for name, arguments in one.items():
            transform = getattr(A, name, None)
            if transform is None:
                raise InputError(f"params.yaml: augment.policy: albumentations has no '{name}'.")
            try:
                transforms.append(transform(**{key: _tuple(value) for key, value in arguments.items()}))
            except (TypeError, ValueError) as error:
                raise InputError(f"params.yaml: augment.policy: {name}: {error}") from error
    return A.Compose(transforms)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
