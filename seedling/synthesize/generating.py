"""Images of a class from a small generator (seedling/models/image_flow.py), one generator per fold.

Each generator trains on the labeled rows of its own fold alone, so that a generated row belongs to the fold of all rows
that it depends on. If the pool is large enough, one generator is first pretrained on the pool's images without labels.
Generated images that are nearly copies of training images are rejected: they add no information.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from seedling.models.image_flow import ImageFlow
    from seedling.models.training import FitContext

TRAINING_STEPS = {"quick": 150, "normal": 800, "thorough": 5_000}  # per fold, and the same for pretraining
MIN_POOL_IMAGES = 200  # for pretraining
MAX_POOL_IMAGES = 5_000
MAX_ROUGHNESS_RATIO = 1.25  # of an image's roughness to that of the roughest row
MIN_THUMBNAIL_DIFFERENCE = 6.0  # mean difference of thumbnails, 0 to 255; below, an image is a copy
PRETRAINING = -1  # in place of a fold
Watcher = Callable[[int, float], None]  # called with the step and the loss


@dataclass(frozen=True)
class GeneratedClass:
    """The images of one class from one fold's generator. training_ids: the rows of the class that it trained on."""

    fold: int
    label: str
    training_ids: list[str]
    image_arrays: list[images.Pixels]


def generated_rows(
    rows: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    config: WorkspaceConfig,
    collected: Path,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    """Yield images per class and fold, `synthesize.generate` per labeled row, with the reason to reject each or None.

    rows: all of validate's, indexed by id. The parents of an image are the two most similar rows of its class and fold;
    `learnt_from` in the recipe is the hash of all rows of the class that its generator trained on. Raises InputError if
    no labeled row has a fold, and Diverged if the training of a generator diverges.
    """
    parents = rows[(rows["split"] == "train") & rows["label"].notna() & rows["fold"].notna()]
    if not params.generate:
        return
    if not len(parents):
        raise InputError(
            "params.yaml: synthesize.generate: no labeled row has a fold, so there are no rows to train on: label a "
            "second row of some classes, or set it to 0."
        )
    from seedling.models.model import single_threaded

    pool = sorted(rows.index[rows["split"] == "pool"], key=lambda row_id: derived_seed(config.seed, "generate", row_id))
    pool = pool[:MAX_POOL_IMAGES]
    held_out = rows.index[rows["split"].isin(["test", "validation"])]
    side = params.generate_side
    small_images = _read_squares([*parents.index, *pool, *held_out], side, collected, config, progress)
    steps = params.generate_steps or TRAINING_STEPS[config.effort]
    training = _GeneratorTraining(parents, pool, small_images, classes, params, config.seed, steps, progress)
    with single_threaded():
        generated = training.run()
    copies = CopyFilter(
        {row_id: small_images[row_id] for row_id in [*parents.index, *pool]},
        {row_id: small_images[row_id] for row_id in held_out},
        sum(len(class_images.image_arrays) for class_images in generated),
    )
    details = {"seed": config.seed, "steps": steps, "side": side, "pool": len(pool) if training.has_pretraining else 0}
    for class_images in generated:
        weight = params.weight * float(parents.loc[class_images.training_ids, "weight"].mean())
        yield from _rows_of_class(class_images, copies, weight, details)


def _rows_of_class(
    generated: GeneratedClass, copies: CopyFilter, weight: float, details: Mapping[str, int | str]
) -> Iterator[tuple[Row, str | None]]:
    """Yield a row per generated image, and the reason to reject it or None. details: of the training, for recipes."""
    learnt_from = identify(b"", generated.training_ids)
    for number, pixels in enumerate(generated.image_arrays):
        recipe = recipe_json("generated", learnt_from=learnt_from, number=number, **details)
        parent_ids = copies.nearest(pixels, generated.training_ids)
        row = Row(
            id=identify(images.content(pixels), parent_ids, recipe),
            split="train",
            fold=generated.fold,
            label=generated.label,
            label_source="generated",
            weight=weight,
            parent_ids=parent_ids,
            recipe=recipe,
            group=learnt_from,
            payload=images.encode(pixels),
        )
        yield row, copies.reason(pixels, generated.training_ids)


class CopyFilter:
    """Reject images that are copies, or unlike all rows, by the mean difference of thumbnails."""

    def __init__(
        self, training: Mapping[str, images.Pixels], held_out: Mapping[str, images.Pixels], max_images: int
    ) -> None:
        """Compute the thumbnails of all rows.

        training: training and pool images of all folds; held_out: images of the test and validation splits;
        max_images: the number of calls of `reason`.
        """
        self._index = {row_id: index for index, row_id in enumerate(training)}
        self._training = _thumbnails(training.values())
        self._held_out = _thumbnails(held_out.values())
        self._accepted = np.zeros((max_images, *self._training.shape[1:]), np.float32)
        self._n_accepted = 0
        self._max_roughness = max((roughness(pixels) for pixels in training.values()), default=0.0)

    def nearest(self, pixels: images.Pixels, row_ids: Sequence[str]) -> list[str]:
        """Return the two most similar of the rows, or fewer if there are fewer."""
        thumbnails = self._training[[self._index[row_id] for row_id in row_ids]]
        differences = _differences(thumbnails, images.thumbnail(pixels))
        return [row_ids[index] for index in np.argsort(differences, kind="stable")[:2]]

    def reason(self, pixels: images.Pixels, training_ids: Sequence[str]) -> str | None:
        """Return the reason to reject the image, or None; an image that passes is remembered."""
        thumbnail = images.thumbnail(pixels)
        if (_differences(self._held_out, thumbnail) < MIN_THUMBNAIL_DIFFERENCE).any():
            return "near_duplicate_of_test"
        if roughness(pixels) > MAX_ROUGHNESS_RATIO * max(self._max_roughness, 1.0):
            return "unlike_any_row"
        copied = np.flatnonzero(_differences(self._training, thumbnail) < MIN_THUMBNAIL_DIFFERENCE)
        if len(copied):
            is_parent = np.isin(copied, [self._index[row_id] for row_id in training_ids])
            return "copy_of_a_parent" if is_parent.all() else "copy_of_another_row"
        if (_differences(self._accepted[: self._n_accepted], thumbnail) < MIN_THUMBNAIL_DIFFERENCE).any():
            return "copy_of_another_row"
        self._accepted[self._n_accepted] = thumbnail
        self._n_accepted += 1
        return None


def roughness(pixels: images.Pixels) -> float:
    """Return the mean absolute difference of neighboring pixels, 0 to 255: high if a generator left noise."""
    values = pixels.astype(np.float32)
    return float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()) / 2


def _thumbnails(image_arrays: Iterable[images.Pixels]) -> NDArray[np.float32]:
    """Return (n, 16, 16, 3)."""
    thumbnails = [images.thumbnail(pixels) for pixels in image_arrays]
    return np.stack(thumbnails) if thumbnails else np.zeros((0, 16, 16, 3), np.float32)


def _differences(thumbnails: NDArray[np.float32], thumbnail: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n,): the mean absolute differences to one thumbnail, 0 to 255."""
    result: NDArray[np.float32] = np.abs(thumbnails - thumbnail).mean(axis=(1, 2, 3))
    return result


def _read_squares(
    row_ids: Sequence[str], side: int, collected: Path, config: WorkspaceConfig, progress: Progress
) -> dict[str, NDArray[np.uint8]]:
    """Return the central square of each image, resized to (side, side, 3)."""
    squares = {}
    for row_id, encoded in counted(payloads([collected], row_ids), progress, "read images", len(row_ids)):
        pixels = images.decode(bytes(encoded), config.max_megapixels)  # type: ignore[arg-type]
        height, width = pixels.shape[:2]
        length = min(height, width)
        top, left = (height - length) // 2, (width - length) // 2
        squares[row_id] = images.resized(pixels[top : top + length, left : left + length], side, side)
    return squares


@dataclass(frozen=True)
class _GeneratorTraining:
    """Trains one generator per fold.

    parents: labeled rows in folds, by id; pool: ids of the pool images for pretraining; small_images: by row id.
    """

    parents: pd.DataFrame
    pool: Sequence[str]
    small_images: Mapping[str, images.Pixels]
    classes: Sequence[str]
    params: SynthesizeParams
    seed: int
    steps: int
    progress: Progress

    @property
    def has_pretraining(self) -> bool:
        """Whether the pool is large enough for pretraining."""
        return len(self.pool) >= MIN_POOL_IMAGES

    def run(self) -> list[GeneratedClass]:
        """Return the images of each fold's generator, by class."""
        folds = sorted({int(fold) for fold in self.parents["fold"]})
        n_trainings = len(folds) + self.has_pretraining
        steps_done = dict.fromkeys([PRETRAINING, *folds], 0)

        def watcher(fold: int) -> Watcher:
            def watch(step: int, loss: float) -> None:
                steps_done[fold] = step
                self.progress("train generators", sum(steps_done.values()), self.steps * n_trainings)

            return watch

        pretrained = self._pretrain(watcher(PRETRAINING))
        by_fold = in_threads(lambda fold: self._generate(pretrained, fold, watcher(fold)), folds)
        return [class_images for fold_images in by_fold for class_images in fold_images]

    def _context(self, *seed_parts: int, device: int = 0) -> FitContext:
        from seedling.models.training import FitContext

        seed = derived_seed(self.seed, "generate", *seed_parts)
        return FitContext(len(self.classes), seed, self.steps, device=device)

    def _pretrain(self, watch: Watcher) -> ImageFlow:
        """Return a generator that is trained on the pool if it has enough images, and untrained otherwise."""
        from seedling.models.image_flow import ImageFlow

        flow = ImageFlow(len(self.classes), self.params.generate_side, self._context())
        if self.has_pretraining:
            pool_images = np.stack([self.small_images[row_id] for row_id in self.pool])
            flow.fit(pool_images, np.full(len(pool_images), -1, dtype=np.int64), watch)
        return flow

    def _generate(self, pretrained: ImageFlow, fold: int, watch: Watcher) -> list[GeneratedClass]:
        fold_rows = self.parents[self.parents["fold"] == fold]
        flow = pretrained.copy(self._context(fold, device=fold))
        labels = pd.Index(self.classes).get_indexer(pd.Index(fold_rows["label"])).astype(np.int64)
        flow.fit(np.stack([self.small_images[row_id] for row_id in fold_rows.index]), labels, watch)
        is_gray = all(images.is_gray(self.small_images[row_id]) for row_id in self.parents.index)
        generated = []
        for label, class_rows in fold_rows.groupby("label", sort=True):
            row_ids = sorted(class_rows.index)
            count = sum(how_many(self.params.generate, self.seed, "generate", row_id) for row_id in row_ids)
            seeds = [derived_seed(self.seed, "generate", fold, label, number) for number in range(count)]
            arrays = flow.sample(self.classes.index(str(label)), seeds)
            pixels = [_as_gray(array) if is_gray else array for array in arrays]
            generated.append(GeneratedClass(fold, str(label), row_ids, pixels))
        return generated


def _as_gray(pixels: images.Pixels) -> images.Pixels:
    gray: images.Pixels = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return gray
