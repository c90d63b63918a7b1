"""Pictures of a class that a small generator makes (tasks/learners/picture_flow.py), one generator a fold.

Each learns from its own fold's labelled rows alone, so that a row stays in the fold of all that it was made from; before that all of them learn together
what the pool's pictures look like, whose labels nobody knows. What comes out almost as it went in is rejected: it teaches nothing new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks import images
from tasks.generation import Row, identify, payloads, recipe_json
from tasks.parallel import in_threads
from tasks.params import Facts, SynthesizeParams
from tasks.progress import Progress, counted
from tasks.randomness import derived_seed, generator

STEPS = {"quick": 150, "normal": 800, "thorough": 5_000}  # of training, of a fold's generator, and before of the pool's
ENOUGH_IN_POOL = 200  # pictures: from here on the pool is learnt from
MOST_FROM_POOL = 20_000
COPY = 6.0  # mean difference of thumbnails, 0 to 255, from which on a picture is another one


def generated(
    rows: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    facts: Facts,
    collected: Path,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    """Pictures of every class and fold, each with the reason where it cannot stay. rows: all of validate's, indexed by id.

    So many a labelled row as params say. Raises Diverged where a generator's training breaks down.
    """
    parents = rows[(rows["split"] == "train") & rows["label"].notna() & rows["fold"].notna()]
    if not params.generate or not len(parents):
        return
    from tasks.learners.model import single_threaded

    pool = rows.index[rows["split"] == "pool"]
    if len(pool) > MOST_FROM_POOL:
        pool = pd.Index(sorted(pool, key=lambda one: derived_seed(facts.seed, "generate", one))[:MOST_FROM_POOL])
    small = _small([*parents.index, *pool], params.generate_side, collected, facts, progress)
    with single_threaded():
        made = _by_fold(parents, pool, small, classes, params, facts, progress)
    grey = all(images.is_grey(small[one]) for one in parents.index)
    for (fold, label), (family, pictures, steps) in made:
        mine = parents.loc[family]
        known = np.stack([images.thumbnail(small[one]) for one in family])
        for number, pixels in enumerate(pictures):
            child = _as_grey(pixels) if grey else pixels
            recipe = recipe_json("generated", steps=steps, side=params.generate_side, number=number)
            row = Row(
                id=identify(images.content(child), family, recipe),
                split="train",
                fold=fold,
                label=label,
                label_source="generated",
                weight=params.weight * float(mine["weight"].mean()),
                parents=family,
                recipe=recipe,
                group=identify(f"{fold} {label}".encode(), family),
                payload=images.encode(child),
            )
            nearest = float(np.abs(known - images.thumbnail(child)).mean(axis=(1, 2, 3)).min())
            yield row, "copy_of_a_parent" if nearest < COPY else None


def _small(
    names: Sequence[str], side: int, collected: Path, facts: Facts, progress: Progress
) -> dict[str, NDArray[np.uint8]]:
    """Every picture, (side, side, 3), its middle square."""
    found = {}
    for name, encoded in counted(payloads([collected], names), progress, "read pictures", len(names)):
        pixels = images.decode(bytes(encoded), facts.max_megapixels)  # type: ignore[arg-type]
        height, width = pixels.shape[:2]
        across = min(height, width)
        top, left = (height - across) // 2, (width - across) // 2
        found[name] = images.resized(pixels[top : top + across, left : left + across], side, side)
    return found


def _by_fold(
    parents: pd.DataFrame,
    pool: Sequence[str],
    small: dict[str, NDArray[np.uint8]],
    classes: Sequence[str],
    params: SynthesizeParams,
    facts: Facts,
    progress: Progress,
) -> list[tuple[tuple[int, str], tuple[list[str], list[images.Pixels], int]]]:
    """(fold, label) → the rows that were learnt from, the pictures, and how many steps the fold's generator learnt."""
    from tasks.learners.picture_flow import PictureFlow
    from tasks.learners.training import Setting

    steps, side = params.generate_steps or STEPS[facts.effort], params.generate_side
    folds = sorted({int(one) for one in parents["fold"]})
    total = steps * (len(folds) + (len(pool) >= ENOUGH_IN_POOL))
    done = dict.fromkeys(["pool", *folds], 0)

    def watched(name: Any) -> Any:
        def watch(step: int, loss: float) -> None:
            done[name] = step
            progress("teach generators", sum(done.values()), total)

        return watch

    first = PictureFlow(len(classes), side, Setting(len(classes), derived_seed(facts.seed, "generate"), steps))
    if len(pool) >= ENOUGH_IN_POOL:
        shown = np.stack([small[one] for one in pool])
        first.fit(shown, np.full(len(shown), -1, dtype=np.int64), watched("pool"))

    def of_fold(fold: int) -> list[tuple[tuple[int, str], tuple[list[str], list[images.Pixels], int]]]:
        mine = parents[parents["fold"] == fold]
        flow = first.copy(Setting(len(classes), derived_seed(facts.seed, "generate", fold), steps, device=fold))
        labels = pd.Index(classes).get_indexer(mine["label"]).astype(np.int64)
        flow.fit(np.stack([small[one] for one in mine.index]), labels, watched(fold))
        found = []
        for label, some in mine.groupby("label", sort=True):
            family = sorted(some.index)
            many = sum(_many(params.generate, facts.seed, one) for one in family)
            seeds = [derived_seed(facts.seed, "generate", fold, label, number) for number in range(many)]
            found.append(((fold, str(label)), (family, list(flow.sample(classes.index(str(label)), seeds)), steps)))
        return found

    return [one for some in in_threads(of_fold, folds) for one in some]


def _many(a_row: float, seed: int, row: str) -> int:
    """Of one row, so that the mean is what params say."""
    return int(a_row) + int(generator(seed, "generate", row).random() < a_row % 1)


def _as_grey(pixels: images.Pixels) -> images.Pixels:
    grey: images.Pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return grey
