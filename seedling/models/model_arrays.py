"""Write and check a model's arrays of numbers (safetensors), which contain no executable code.

A model file may come from an untrusted source. The name, kind and shape of each array are checked before a learner uses
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Kinds = Mapping[str, tuple[str, int]]  # name → "i" for integers or "f" for floating point, and the number of dimensions


def write_arrays(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write a safetensors file; the same arrays give the same bytes."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}, path)


def check_arrays(arrays: Mapping[str, NDArray[Any]], kinds: Kinds, optional: Kinds | None = None) -> None:
    """Raise ValueError if an array is missing, unknown, or has another kind or number of dimensions."""
    allowed = {**kinds, **(optional or {})}
    if missing := sorted(kinds.keys() - arrays.keys()):
        raise ValueError(f"the array '{missing[0]}' is missing")
    if unknown := sorted(arrays.keys() - allowed.keys()):
        raise ValueError(f"the array '{unknown[0]}' is unknown")
    for name, array in arrays.items():
        kind, dimensions = allowed[name]
        if array.dtype.kind != kind or array.ndim != dimensions:
            raise ValueError(f"the array '{name}' is {array.dtype} with {array.ndim} dimensions")
        if kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the array '{name}' contains values that are not finite")
    lengths = {len(arrays[name]) for name in ("feature", "threshold", "left", "right", "value") if name in arrays}
    if len(lengths) > 1 or len({len(arrays[name]) for name in arrays if name.startswith("share")}) > 1:
        raise ValueError("the arrays of the nodes differ in length")


def check_classes(present: NDArray[Any], classes: int) -> None:
    """Raise ValueError if the classes of a learner are not distinct, sorted numbers below `classes`."""
    if not len(present) or (np.diff(present) <= 0).any() or present[0] < 0 or present[-1] >= classes:
        raise ValueError(f"its classes are not among the model's {classes}")
