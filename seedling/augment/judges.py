"""What asks models of the other folds: which operations help, which rows are hard, which children changed their label, and what misleads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from seedling.augment.adversarial import misleading
from seedling.augment.families import row_of
from seedling.augment.makers import Made, Resources
from seedling.augment.screening import ROWS, CannotScreen, Screening, screen
from seedling.augment.teaching import Guard, Parents, hardness, read_parents
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.dataset.generation import Row, recipe_json
from seedling.errors import InputError
from seedling.features.classical import FeatureMaker
from seedling.media import images
from seedling.models.model import single_threaded
from seedling.progress import Progress, counted
from seedling.stats.randomness import generator


@dataclass(frozen=True)
class Judges:
    """They see the labeled training rows, by id, and their features, which are not fitted yet."""

    parents: pd.DataFrame
    classes: list[str]
    collected: Path
    features: FeatureMaker
    params: AugmentParams
    facts: WorkspaceConfig
    progress: Progress

    @property
    def _folds(self) -> int:
        return int(self.parents["fold"].nunique())

    def _drawn(self, at_most: int) -> Parents:
        return read_parents(
            self.parents, self.classes, self.collected, self.features, at_most, self.facts.seed, self.progress
        )

    def screened(self, resources: Resources) -> tuple[Screening | None, str]:
        """Which operations help; None, and why, where that cannot be told."""
        try:
            with single_threaded():
                drawn = self._drawn(ROWS[self.facts.effort])
                return screen(drawn, self.params.weight, self.facts, resources, self.progress), ""
        except CannotScreen as error:
            return None, str(error)

    def hardness(self) -> Mapping[str, float]:
        """How hard rows are to models of the other folds; empty where nobody asks, or nobody could say."""
        if not self.params.hard or self._folds < 2:
            return {}
        with single_threaded():
            return hardness(self._drawn(len(self.parents)))

    def guard(self) -> Guard | None:
        """Who says which children changed their label; None where params want nobody, or nobody could."""
        if not self.params.label_guard or self._folds < 2:
            return None
        with single_threaded():
            return Guard(self._drawn(len(self.parents)))

    def misleading(self) -> Iterator[tuple[Row, str]]:
        """Adversarial children of as many rows as params ask for, with the hash of their content alone."""
        params, facts = self.params, self.facts
        if params.adversarial and facts.modality != "image":
            raise InputError(
                "params.yaml: augment.adversarial changes images, but this is a text workspace: remove it."
            )
        if not params.adversarial or self._folds < 2:
            return
        drawn = self._drawn(len(self.parents))
        chances = [generator(facts.seed, "adversarial", one).random() for one in drawn.ids]
        chosen = [row for row, chance in enumerate(chances) if chance < params.adversarial]
        with single_threaded():
            found = misleading(
                drawn, chosen, params.adversarial_attack, params.adversarial_levels, facts.max_megapixels
            )
            for row, pixels, told in counted(found, self.progress, "mislead models", len(chosen)):
                name, recipe = drawn.ids[row], recipe_json(params.adversarial_attack, **told)
                made = Made(images.encode(pixels), recipe, images.content(pixels))
                yield row_of(name, self.parents.loc[name].to_dict(), made, params)
