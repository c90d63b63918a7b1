"""Images of one source as they would look from another: the image of the one, with the colors and the light of the other.

Each channel's values are matched to those of an image from there (histogram matching, Gonzalez and Woods 2018, chapter 3), as far as is drawn. It
wants no training, so one image of the other place is enough; a translation that is learnt (CycleGAN, Zhu et al. 2017) wants hundreds, and a GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.config.params import SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import Row, identify, payloads, recipe_json, source_of
from seedling.errors import InputError
from seedling.media import images
from seedling.progress import Progress
from seedling.stats.randomness import generator, how_many

LEAST = 0.5  # of the way to the other image's values, at least
AT_ONCE = 256  # children whose parents are read together


def matched(content: images.Pixels, look: images.Pixels, share: float) -> images.Pixels:
    """The content, (height, width, 3), whose channels have their values moved by `share` of the way to where those of `look`, of any size, lie.

    A level goes where the middle of its pixels' ranks lies there, so that a flat ground, which holds many ranks, does not jump to their end.
    """
    result, levels = np.empty_like(content), np.arange(256)
    for channel in range(3):
        mine, there = (np.bincount(one[..., channel].ravel(), minlength=256) for one in (content, look))
        ranks, ranks_there = ((one.cumsum() - one / 2) / one.sum() for one in (mine, there))
        target = np.interp(ranks, ranks_there[there > 0], levels[there > 0])
        table = np.rint((1 - share) * levels + share * target).astype(np.uint8)
        result[..., channel] = table[content[..., channel]]
    return result


def translated(
    rows: pd.DataFrame, params: SynthesizeParams, facts: WorkspaceConfig, collected: Path, progress: Progress
) -> Iterator[tuple[Row, str | None]]:
    """Labeled training rows as from another source, each with the reason where it cannot be one. rows: all of validate's, indexed by id.

    The look is that of a row of the pool, or of the row's own fold: what judges a row must not be in what was made for another. Raises InputError
    where there is no such source, only one, or none that also has a row's class or is of the pool.
    """
    if not params.translate:
        return
    sources = rows["origin"].map(source_of)
    labeled = rows[(rows["split"] == "train") & rows["label"].notna()]
    _check(params.translate_into, sorted(set(sources[rows["split"].isin(["train", "pool"])])))
    looks = _Looks(rows, labeled, sources, params.translate_into)
    drawn: list[tuple[str, str | None, float]] = []
    for one in labeled.index[sources[labeled.index] != params.translate_into]:
        for number in range(how_many(params.translate, facts.seed, "translate", one)):
            rng = generator(facts.seed, "translate", one, number)
            able = looks.of(one)
            look = able[int(rng.integers(len(able)))] if able else None
            drawn.append((one, look, round(float(rng.uniform(LEAST, 1.0)), 4)))
    if all(look is None for _, look, _ in drawn):
        raise InputError(
            "params.yaml: synthesize.translate: no labeled row has another source to look as if it were from, which must hold rows of its class too, or "
            "of the pool: put images from elsewhere into a folder of their own, or set it to 0."
        )
    known = set[bytes]()
    for first in range(0, len(drawn), AT_ONCE):
        block = drawn[first : first + AT_ONCE]
        encoded = dict(payloads([collected], {name for one, look, _ in block for name in (one, look) if name}))
        progress("translate images", first, len(drawn))
        for one, look, share in block:
            yield _row(one, look, share, labeled.loc[one], encoded, known, params, facts)


def _row(
    one: str,
    look: str | None,
    share: float,
    parent: pd.Series,
    encoded: Mapping[str, Any],
    known: set[bytes],
    params: SynthesizeParams,
    facts: WorkspaceConfig,
) -> tuple[Row, str | None]:
    """The child, and why it cannot stay. known: the content of those before it, to which its own is added."""
    content, reason = images.decode(bytes(encoded[one]), facts.max_megapixels), None
    pixels = content
    if look is None:
        reason = "no_other_source"
    else:
        pixels = matched(content, images.decode(bytes(encoded[look]), facts.max_megapixels), share)
        if (pixels == content).all():
            reason = "copy_of_a_parent"
    told, parents = images.content(pixels), [one] if look is None else [one, look]
    if reason is None and told in known:
        reason = "exact_duplicate"
    known.add(told)
    recipe = recipe_json("translate", share=share)
    row = Row(
        id=identify(told, parents, recipe),
        split="train",
        fold=None if pd.isna(parent["fold"]) else int(parent["fold"]),
        label=parent["label"],
        label_source="translate",
        weight=params.weight * float(parent["weight"]),
        parent_ids=parents,
        recipe=recipe,
        group=parent["group"],
        payload=images.encode(pixels),
    )
    return row, reason


def _check(into: str | None, known: list[str]) -> None:
    """Raises InputError where there is no such source, or no other one."""
    if into is not None and into not in known:
        raise InputError(
            f"params.yaml: synthesize.translate_into: there is no source '{into}'; there is {', '.join(known)} (the first folder, the table or the "
            "site of a row's origin)."
        )
    if len(known) < 2:
        raise InputError(
            f"params.yaml: synthesize.translate: all rows come from one source ({', '.join(known) or 'none'}): put images from elsewhere into a "
            "folder of their own, or set it to 0."
        )


class _Looks:
    """Rows whose look may be taken: of the pool, and of each fold, by source. A row of the pool that is nearly a labeled one is of that one's fold."""

    def __init__(self, rows: pd.DataFrame, labeled: pd.DataFrame, sources: pd.Series, into: str | None) -> None:
        self._folds, self._sources, self._labels = labeled["fold"].fillna(-1).astype(int), sources, labeled["label"]
        fold_of_group = dict(zip(labeled["group"], self._folds, strict=True))
        self._able: dict[tuple[int | None, str], list[str]] = defaultdict(list)
        self._classes: dict[str, set[str]] = defaultdict(set)
        for one in sorted(rows.index[rows["split"] == "pool"]):
            self._able[fold_of_group.get(rows.at[one, "group"]), sources[one]].append(one)
        for one in sorted(labeled.index):
            self._able[self._folds[one], sources[one]].append(one)
            self._classes[sources[one]].add(labeled.at[one, "label"])
        self._known = [into] if into is not None else sorted({source for _, source in self._able})
        self._found: dict[tuple[int, str, str], list[str]] = {}

    def of(self, one: str) -> list[str]:
        """Those that this row may take the look of: of a source that has its class too, or no labeled row. One of other classes alone looks like these."""
        fold, source, label = self._folds[one], self._sources[one], self._labels[one]
        if (fold, source, label) not in self._found:
            others = [
                name
                for name in self._known
                if name != source and (label in self._classes[name] or not self._classes[name])
            ]
            self._found[fold, source, label] = [
                row for place in (None, fold) for name in others for row in self._able[place, name]
            ]
        return self._found[fold, source, label]
