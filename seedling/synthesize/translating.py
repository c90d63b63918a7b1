"""Images in the style of another source: the content of one image with the colors and the light of another.

The values of each channel are matched to those of an image of the other source (histogram matching, Gonzalez and Woods
2018, chapter 3), up to a random share. This needs no training, so that one image of the other source is enough; a
learned translation (CycleGAN, Zhu et al. 2017) needs hundreds of images and a GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd

from seedling.config.params import SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import Row, identify, payloads, recipe_json, source_of
from seedling.errors import InputError
from seedling.media import images
from seedling.progress import Progress
from seedling.stats.randomness import generator, how_many

MIN_SHARE = 0.5  # of the change to the style image's values
ROWS_PER_BATCH = 256  # whose parents are read together


def match_colors(content: images.Pixels, style: images.Pixels, share: float) -> images.Pixels:
    """Return the content, (height, width, 3), with its channels matched to those of the style image, of any size.

    Each level v becomes (1 - share) * v + share * F_style^-1(F_content(v)). F(v) is the middle of the ranks of the
    pixels with level v, so that a uniform background, which covers many ranks, does not jump to their end.
    """
    result, levels = np.empty_like(content), np.arange(256)
    for channel in range(3):
        content_counts, style_counts = (
            np.bincount(image[..., channel].ravel(), minlength=256) for image in (content, style)
        )
        content_ranks, style_ranks = (
            (counts.cumsum() - counts / 2) / counts.sum() for counts in (content_counts, style_counts)
        )
        target = np.interp(content_ranks, style_ranks[style_counts > 0], levels[style_counts > 0])
        table = np.rint((1 - share) * levels + share * target).astype(np.uint8)
        result[..., channel] = table[content[..., channel]]
    return result


def translated_rows(
    rows: pd.DataFrame, params: SynthesizeParams, config: WorkspaceConfig, collected: Path, progress: Progress
) -> Iterator[tuple[Row, str | None]]:
    """Yield labeled training rows in the style of another source, each with the reason to reject it or None.

    rows: all of validate's, indexed by id. The style image is of the pool or of the row's own fold, so that no row
    contains content of another fold or of the test split. Raises InputError if translate_into is unknown, if there is
    only one source, or if no other source has rows of the row's class or of the pool.
    """
    if not params.translate:
        return
    sources = rows["origin"].map(source_of)
    labeled = rows[(rows["split"] == "train") & rows["label"].notna()]
    _check_sources(params.translate_into, sorted(set(sources[rows["split"].isin(["train", "pool"])])))
    styles = _StyleRows(rows, labeled, sources, params.translate_into)
    drawn: list[StyleDraw] = []
    for row_id in labeled.index[sources[labeled.index] != params.translate_into]:
        for number in range(how_many(params.translate, config.seed, "translate", row_id)):
            rng = generator(config.seed, "translate", row_id, number)
            candidates = styles.candidates(row_id)
            style_id = candidates[int(rng.integers(len(candidates)))] if candidates else None
            drawn.append(StyleDraw(row_id, style_id, round(float(rng.uniform(MIN_SHARE, 1.0)), 4)))
    if all(draw.style_id is None for draw in drawn):
        raise InputError(
            "params.yaml: synthesize.translate: no labeled row has another source whose style it can take, that is, "
            "one with rows of its class or of the pool: put images from elsewhere into a folder of their own, or set "
            "it to 0."
        )
    seen = set[bytes]()
    for first in range(0, len(drawn), ROWS_PER_BATCH):
        batch = drawn[first : first + ROWS_PER_BATCH]
        ids = {row_id for draw in batch for row_id in (draw.content_id, draw.style_id) if row_id}
        encoded = {row_id: cast("bytes", image) for row_id, image in payloads([collected], ids)}
        progress("translate images", first, len(drawn))
        for draw in batch:
            parent: Any = labeled.loc[draw.content_id]  # ids are unique, which pandas' stubs cannot know
            yield _translated_row(draw, parent, encoded, seen, params, config)


class StyleDraw(NamedTuple):
    """A row to translate. style_id: of the style image, None if there is none; share: of the change to its values."""

    content_id: str
    style_id: str | None
    share: float


def _translated_row(
    draw: StyleDraw,
    parent: pd.Series,
    encoded: Mapping[str, bytes],
    seen: set[bytes],
    params: SynthesizeParams,
    config: WorkspaceConfig,
) -> tuple[Row, str | None]:
    """Return the row, and the reason to reject it or None. seen: contents of earlier rows; this one is added."""
    content_id, style_id, share = draw
    original, reason = images.decode(encoded[content_id], config.max_megapixels), None
    pixels = original
    if style_id is None:
        reason = "no_other_source"
    else:
        pixels = match_colors(original, images.decode(encoded[style_id], config.max_megapixels), share)
        if (pixels == original).all():
            reason = "copy_of_a_parent"
    content, parent_ids = images.content(pixels), [content_id] if style_id is None else [content_id, style_id]
    if reason is None and content in seen:
        reason = "exact_duplicate"
    seen.add(content)
    recipe = recipe_json("translate", share=share)
    row = Row(
        id=identify(content, parent_ids, recipe),
        split="train",
        fold=None if pd.isna(parent["fold"]) else int(parent["fold"]),
        label=parent["label"],
        label_source="translate",
        weight=params.weight * float(parent["weight"]),
        parent_ids=parent_ids,
        recipe=recipe,
        group=parent["group"],
        payload=images.encode(pixels),
    )
    return row, reason


def _check_sources(into: str | None, sources: list[str]) -> None:
    """Raises InputError if the source `into` does not exist, or is the only one."""
    if into is not None and into not in sources:
        raise InputError(
            f"params.yaml: synthesize.translate_into: unknown source '{into}'. The sources are {', '.join(sources)} "
            "(the first folder, the table or the site of a row's origin)."
        )
    if len(sources) < 2:
        raise InputError(
            f"params.yaml: synthesize.translate: all rows come from one source ({', '.join(sources) or 'none'}): put "
            "images from elsewhere into a folder of their own, or set it to 0."
        )


class _StyleRows:
    """Rows whose style may be taken: of the pool, and of each fold, by source.

    A pool row that is a near-duplicate of a labeled row belongs to the fold of that row.
    """

    def __init__(self, rows: pd.DataFrame, labeled: pd.DataFrame, sources: pd.Series, into: str | None) -> None:
        self._folds, self._sources, self._labels = labeled["fold"].fillna(-1).astype(int), sources, labeled["label"]
        group_to_fold = dict(zip(labeled["group"], self._folds, strict=True))
        self._by_fold_and_source: dict[tuple[int | None, str], list[str]] = defaultdict(list)
        self._classes: dict[str, set[str]] = defaultdict(set)
        for row_id in sorted(rows.index[rows["split"] == "pool"]):
            self._by_fold_and_source[group_to_fold.get(rows.at[row_id, "group"]), sources[row_id]].append(row_id)
        for row_id in sorted(labeled.index):
            self._by_fold_and_source[self._folds[row_id], sources[row_id]].append(row_id)
            self._classes[sources[row_id]].add(self._labels[row_id])
        all_sources = sorted({source for _, source in self._by_fold_and_source})
        self._target_sources = [into] if into is not None else all_sources
        self._cache: dict[tuple[int, str, str], list[str]] = {}

    def candidates(self, row_id: str) -> list[str]:
        """Return the rows whose style this row may take: of sources that also have its class, or no labeled row.

        The style of a source that has other classes only would be the style of these classes.
        """
        fold, source, label = self._folds[row_id], self._sources[row_id], self._labels[row_id]
        if (fold, source, label) not in self._cache:
            others = [
                name
                for name in self._target_sources
                if name != source and (label in self._classes[name] or not self._classes[name])
            ]
            self._cache[fold, source, label] = [
                style_id
                for style_fold in (None, fold)
                for name in others
                for style_id in self._by_fold_and_source[style_fold, name]
            ]
        return self._cache[fold, source, label]
