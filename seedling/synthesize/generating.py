"""Images of a class that a small generator makes (seedling/models/image_flow.py), one generator a fold.

Each learns from its own fold's labeled rows alone, so that a row stays in the fold of all that it was made from; before that all of them learn together
what the pool's images look like, whose labels nobody knows. What comes out almost as it went in is rejected: it teaches nothing new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.config.params import SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import Row, identify, payloads, recipe_json
from seedling.errors import InputError
from seedling.media import images
from seedling.parallel.executor import in_threads
from seedling.progress import Progress, counted
from seedling.stats.randomness import derived_seed, how_many

STEPS = {"quick": 150, "normal": 800, "thorough": 5_000}  # of training, of a fold's generator, and before of the pool's
ENOUGH_IN_POOL = 200  # images: from here on the pool is learnt from
MOST_FROM_POOL = 5_000
MARGIN = 1.25  # how much rougher than any row an image may be
COPY = 6.0  # mean difference of thumbnails, 0 to 255, from which on an image is another one


@dataclass(frozen=True)
class Taught:
    """What a fold's generator made of one class. family: the rows it learnt the class from."""

    fold: int
    label: str
    family: list[str]
    image_arrays: list[images.Pixels]


def generated(
    rows: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    facts: WorkspaceConfig,
    collected: Path,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    """Images of every class and fold, each with the reason where it cannot stay. rows: all of validate's, indexed by id.

    So many a labeled row as params say. Its parents are the two rows of its class and fold that it is most like; the recipe's `learnt_from` is the hash of
    all that its generator learnt the class from. Raises InputError where no row lies in a fold, Diverged where a generator's training breaks down.
    """
    parents = rows[(rows["split"] == "train") & rows["label"].notna() & rows["fold"].notna()]
    if not params.generate:
        return
    if not len(parents):
        raise InputError(
            "params.yaml: synthesize.generate: no labeled row lies in a fold, so there is nothing to learn from: label a second row of some "
            "classes, or set it to 0."
        )
    from seedling.models.model import single_threaded

    pool = sorted(rows.index[rows["split"] == "pool"], key=lambda one: derived_seed(facts.seed, "generate", one))
    pool = pool[:MOST_FROM_POOL]
    held_out = rows.index[rows["split"].isin(["test", "validation"])]
    small = _small([*parents.index, *pool, *held_out], params.generate_side, collected, facts, progress)
    steps = params.generate_steps or STEPS[facts.effort]
    with single_threaded():
        made = _by_fold(parents, pool, small, classes, params, facts, steps, progress)
    gray = all(images.is_gray(small[one]) for one in parents.index)
    known = Copies(
        {one: small[one] for one in [*parents.index, *pool]},
        {one: small[one] for one in held_out},
        sum(len(one.image_arrays) for one in made),
    )
    told = {"steps": steps, "side": params.generate_side, "pool": len(pool) if len(pool) >= ENOUGH_IN_POOL else 0}
    for one in made:
        learnt_from, weight = identify(b"", one.family), params.weight * float(parents.loc[one.family, "weight"].mean())
        for number, pixels in enumerate(one.image_arrays):
            child = _as_gray(pixels) if gray else pixels
            recipe = recipe_json("generated", learnt_from=learnt_from, number=number, seed=facts.seed, **told)
            near = known.nearest(child, one.family)
            row = Row(
                id=identify(images.content(child), near, recipe),
                split="train",
                fold=one.fold,
                label=one.label,
                label_source="generated",
                weight=weight,
                parent_ids=near,
                recipe=recipe,
                group=learnt_from,
                payload=images.encode(child),
            )
            yield row, known.reason(child, one.family)


class Copies:
    """Which image is almost another one, or like none: by the mean difference of their thumbnails."""

    def __init__(self, taught: Mapping[str, images.Pixels], held_out: Mapping[str, images.Pixels], most: int) -> None:
        """taught: what a generator may have learnt, or other folds' rows; held_out: what judges; most: images that will be asked about."""
        self._place = {name: number for number, name in enumerate(taught)}
        self._taught = _thumbnails(taught.values())
        self._held_out = _thumbnails(held_out.values())
        self._kept = np.zeros((most, *self._taught.shape[1:]), np.float32)
        self._many = 0  # of them
        self._roughest = max((roughness(one) for one in taught.values()), default=0.0)

    def nearest(self, pixels: images.Pixels, family: Sequence[str]) -> list[str]:
        """The two of the family that it is most like, at most."""
        away = _away(self._taught[[self._place[one] for one in family]], images.thumbnail(pixels))
        return [family[one] for one in np.argsort(away, kind="stable")[:2]]

    def reason(self, pixels: images.Pixels, family: Sequence[str]) -> str | None:
        """Why the image is none of its own; None where it is, and is known from now on."""
        mine = images.thumbnail(pixels)
        if (_away(self._held_out, mine) < COPY).any():
            return "near_duplicate_of_test"
        if roughness(pixels) > MARGIN * max(self._roughest, 1.0):
            return "unlike_any_row"
        copied = np.flatnonzero(_away(self._taught, mine) < COPY)
        if len(copied):
            of_family = np.isin(copied, [self._place[one] for one in family])
            return "copy_of_a_parent" if of_family.all() else "copy_of_another_row"
        if (_away(self._kept[: self._many], mine) < COPY).any():
            return "copy_of_another_row"
        self._kept[self._many] = mine
        self._many += 1
        return None


def roughness(pixels: images.Pixels) -> float:
    """The mean difference of neighbors, 0 to 255: what a generator that learnt too little leaves of its noise."""
    values = pixels.astype(np.float32)
    return float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()) / 2


def _thumbnails(image_arrays: Iterable[images.Pixels]) -> NDArray[np.float32]:
    """(n, 16, 16, 3)."""
    found = [images.thumbnail(one) for one in image_arrays]
    return np.stack(found) if found else np.zeros((0, 16, 16, 3), np.float32)


def _away(many: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,): mean differences, 0 to 255."""
    result: NDArray[np.float32] = np.abs(many - one).mean(axis=(1, 2, 3))
    return result


def _small(
    names: Sequence[str], side: int, collected: Path, facts: WorkspaceConfig, progress: Progress
) -> dict[str, NDArray[np.uint8]]:
    """Every image, (side, side, 3), its middle square."""
    found = {}
    for name, encoded in counted(payloads([collected], names), progress, "read images", len(names)):
        pixels = images.decode(bytes(encoded), facts.max_megapixels)  # type: ignore[arg-type]
        height, width = pixels.shape[:2]
        across = min(height, width)
        top, left = (height - across) // 2, (width - across) // 2
        found[name] = images.resized(pixels[top : top + across, left : left + across], side, side)
    return found


def _by_fold(
    parents: pd.DataFrame,
    pool: Sequence[str],
    small: Mapping[str, images.Pixels],
    classes: Sequence[str],
    params: SynthesizeParams,
    facts: WorkspaceConfig,
    steps: int,
    progress: Progress,
) -> list[Taught]:
    """Every fold's generator taught, and what it made."""
    from seedling.models.image_flow import ImageFlow
    from seedling.models.training import FitContext

    folds = sorted({int(one) for one in parents["fold"]})
    of_pool = len(pool) >= ENOUGH_IN_POOL
    done = dict.fromkeys([-1, *folds], 0)

    def watched(fold: int) -> Callable[[int, float], None]:
        def watch(step: int, loss: float) -> None:
            done[fold] = step
            progress("teach generators", sum(done.values()), steps * (len(folds) + of_pool))

        return watch

    first = ImageFlow(
        len(classes), params.generate_side, FitContext(len(classes), derived_seed(facts.seed, "generate"), steps)
    )
    if of_pool:
        shown = np.stack([small[one] for one in pool])
        first.fit(shown, np.full(len(shown), -1, dtype=np.int64), watched(-1))

    def of_fold(fold: int) -> list[Taught]:
        mine = parents[parents["fold"] == fold]
        flow = first.copy(FitContext(len(classes), derived_seed(facts.seed, "generate", fold), steps, device=fold))
        labels = pd.Index(classes).get_indexer(mine["label"]).astype(np.int64)
        flow.fit(np.stack([small[one] for one in mine.index]), labels, watched(fold))
        found = []
        for label, some in mine.groupby("label", sort=True):
            family = sorted(some.index)
            many = sum(how_many(params.generate, facts.seed, "generate", one) for one in family)
            seeds = [derived_seed(facts.seed, "generate", fold, label, number) for number in range(many)]
            found.append(Taught(fold, str(label), family, list(flow.sample(classes.index(str(label)), seeds))))
        return found

    return [one for some in in_threads(of_fold, folds) for one in some]


def _as_gray(pixels: images.Pixels) -> images.Pixels:
    gray: images.Pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return gray
