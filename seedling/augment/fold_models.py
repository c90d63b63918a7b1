"""Models of the other folds: which operations help, which rows are hard, which augmented rows changed their label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from seedling.augment.adversarial import adversarial_images
from seedling.augment.batches import InheritedColumns, row_of
from seedling.augment.cross_fitting import LabeledRows, LabelGuard, hardness, read_labeled_rows
from seedling.augment.makers import Augmented, Resources
from seedling.augment.screening import MAX_SCREENED_ROWS, CannotScreen, Screening, screen
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.dataset.generation import Row, recipe_json
from seedling.errors import InputError
from seedling.features.classical import FeatureMaker
from seedling.media import images
from seedling.models.model import single_threaded
from seedling.progress import Progress, counted
from seedling.stats.randomness import generator


@dataclass(frozen=True)
class FoldModels:
    """Tasks for models of the other folds. parents: labeled training rows, by id; features: not fitted yet."""

    parents: pd.DataFrame
    classes: list[str]
    collected: Path
    features: FeatureMaker
    params: AugmentParams
    config: WorkspaceConfig
    progress: Progress

    @property
    def _n_folds(self) -> int:
        return int(self.parents["fold"].nunique())

    def _read(self, max_rows: int) -> LabeledRows:
        return read_labeled_rows(
            self.parents, self.classes, self.collected, self.features, max_rows, self.config.seed, self.progress
        )

    def screen(self, resources: Resources) -> tuple[Screening | None, str]:
        """Return the operations that help, or None and the reason if the rows do not allow a screening."""
        try:
            with single_threaded():
                rows = self._read(MAX_SCREENED_ROWS[self.config.effort])
                return screen(rows, self.params.weight, self.config, resources, self.progress), ""
        except CannotScreen as error:
            return None, str(error)

    def hardness(self) -> Mapping[str, float]:
        """Return the hardness per row id; empty if params do not use it or there are fewer than two folds."""
        if not self.params.hard or self._n_folds < 2:
            return {}
        with single_threaded():
            return hardness(self._read(len(self.parents)))

    def guard(self) -> LabelGuard | None:
        """Return the label guard; None if params do not use it or there are fewer than two folds."""
        if not self.params.label_guard or self._n_folds < 2:
            return None
        with single_threaded():
            return LabelGuard(self._read(len(self.parents)))

    def adversarial_rows(self) -> Iterator[tuple[Row, str]]:
        """Yield adversarial images of a share `augment.adversarial` of the rows, each with its content id."""
        params, config = self.params, self.config
        if params.adversarial and config.modality != "image":
            raise InputError(
                "params.yaml: augment.adversarial changes images, but this is a text workspace: remove it."
            )
        if not params.adversarial or self._n_folds < 2:
            return
        rows = self._read(len(self.parents))
        chances = [generator(config.seed, "adversarial", row_id).random() for row_id in rows.ids]
        selected = [row for row, chance in enumerate(chances) if chance < params.adversarial]
        with single_threaded():
            perturbed = adversarial_images(
                rows, selected, params.adversarial_attack, params.adversarial_levels, config.max_megapixels
            )
            for row, pixels, details in counted(perturbed, self.progress, "create adversarial images", len(selected)):
                parent_id, recipe = rows.ids[row], recipe_json(params.adversarial_attack, **details)
                augmented = Augmented(images.encode(pixels), recipe, images.content(pixels))
                columns = InheritedColumns.of(self.parents.loc[parent_id].to_dict())
                yield row_of(parent_id, columns, augmented, params)
