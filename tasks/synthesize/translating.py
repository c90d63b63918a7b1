"""Pictures of one source as they would look from another: the picture of the one, with the colours and the light of the other.

Each channel's values are matched to those of a picture from there (histogram matching, Gonzalez and Woods 2018, chapter 3), as far as is drawn. It
wants no training, so one picture of the other place is enough; a translation that is learnt (CycleGAN, Zhu et al. 2017) wants hundreds, and a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from tasks import images
from tasks.errors import InputError
from tasks.generation import Row, identify, payloads, recipe_json, source_of
from tasks.params import Facts, SynthesizeParams
from tasks.progress import Progress, counted
from tasks.randomness import generator, how_many

LEAST = 0.5  # of the way to the other picture's values, at least


def matched(content: images.Pixels, look: images.Pixels, share: float) -> images.Pixels:
    """The content, (height, width, 3), whose channels have their values moved by `share` of the way to where those of `look`, of any size, lie."""
    result, levels = np.empty_like(content), np.arange(256)
    for channel in range(3):
        mine, there = (np.bincount(one[..., channel].ravel(), minlength=256).cumsum() for one in (content, look))
        # The least level up to which as large a part of the look lies as of the content; whole numbers, so that equal parts are equal.
        target = np.searchsorted(there * mine[-1], mine * there[-1])
        table = np.rint((1 - share) * levels + share * target).astype(np.uint8)
        result[..., channel] = table[content[..., channel]]
    return result


def translated(
    rows: pd.DataFrame, params: SynthesizeParams, facts: Facts, collected: Path, progress: Progress
) -> Iterator[tuple[Row, str | None]]:
    """Labelled training rows as from another source, each with the reason where it cannot be one. rows: all of validate's, indexed by id.

    The look is that of a row of the pool, or of the row's own fold: what judges a row must not be in what was made for another. Raises InputError
    where there is no such source, or only one.
    """
    if not params.translate:
        return
    sources = rows["origin"].map(source_of)
    _check(params.translate_into, sorted(set(sources[rows["split"].isin(["train", "pool"])])))
    labelled = rows[(rows["split"] == "train") & rows["label"].notna()]
    looks = _Looks(rows, labelled, sources, params.translate_into)
    drawn: list[tuple[str, str | None, float]] = []
    for one in labelled.index:
        if sources[one] == params.translate_into:
            continue
        able = looks.of(one)
        for number in range(how_many(params.translate, facts.seed, "translate", one)):
            rng = generator(facts.seed, "translate", one, number)
            look = able[int(rng.integers(len(able)))] if able else None
            drawn.append((one, look, round(float(rng.uniform(LEAST, 1.0)), 4)))
    encoded = dict(payloads([collected], {name for one, look, _ in drawn for name in (one, look) if name}))
    for one, look, share in counted(drawn, progress, "translate pictures", len(drawn)):
        known = labelled.loc[one]
        pixels = images.decode(bytes(encoded[one]), facts.max_megapixels)  # type: ignore[arg-type]
        if look is not None:
            pixels = matched(pixels, images.decode(bytes(encoded[look]), facts.max_megapixels), share)  # type: ignore[arg-type]
        recipe, parents = recipe_json("translate", share=share), [one] if look is None else [one, look]
        row = Row(
            id=identify(images.content(pixels), parents, recipe),
            split="train",
            fold=None if pd.isna(known["fold"]) else int(known["fold"]),
            label=known["label"],
            label_source="translate",
            weight=params.weight * float(known["weight"]),
            parents=parents,
            recipe=recipe,
            group=known["group"],
            payload=images.encode(pixels),
        )
        yield row, "no_other_source" if look is None else None


def _check(into: str | None, known: list[str]) -> None:
    """Raises InputError where there is no such source, or no other one."""
    if into is not None and into not in known:
        raise InputError(
            f"params.yaml: synthesize.translate_into: there is no source '{into}'; there is {', '.join(known)} (the first folder, the table or the "
            "site of a row's origin)."
        )
    if len(known) < 2:
        raise InputError(
            f"params.yaml: synthesize.translate: all rows come from one source ({', '.join(known) or 'none'}): put pictures from elsewhere into a "
            "folder of their own, or set it to 0."
        )


class _Looks:
    """Rows whose look may be taken: of the pool, and of each fold, by source."""

    def __init__(self, rows: pd.DataFrame, labelled: pd.DataFrame, sources: pd.Series, into: str | None) -> None:
        self._folds, self._sources = labelled["fold"].fillna(-1).astype(int), sources
        self._able: dict[tuple[int | None, str], list[str]] = {}
        self._into = into
        for one in sorted(rows.index[rows["split"] == "pool"]):
            self._able.setdefault((None, sources[one]), []).append(one)
        for one in sorted(labelled.index):
            self._able.setdefault((self._folds[one], sources[one]), []).append(one)
        self._known = sorted({source for _, source in self._able})

    def of(self, one: str) -> list[str]:
        """Those that this row may take the look of."""
        others = (
            [self._into] if self._into is not None else [name for name in self._known if name != self._sources[one]]
        )
        return [
            row for place in (None, self._folds[one]) for name in others for row in self._able.get((place, name), [])
        ]
