"""Rows that are cut and pasted: which object before which background, within a fold, and backgrounds as rows of the class `nothing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.config.params import NOTHING, SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import Row, identify, payloads, recipe_json
from seedling.errors import InputError
from seedling.media import images
from seedling.plugins import AUGMENTING, plugin_functions
from seedling.progress import Progress, counted
from seedling.stats.randomness import generator, how_many
from seedling.synthesize.cutting import Finder, Mask, NoObject, draw_placement, object_mask, pasted, without_object


def cut_rows(
    parents: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    facts: WorkspaceConfig,
    collected: Path,
    data: Path | None,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    """Pasted objects and negatives, each with the reason where it could not be made. parents: labeled training rows, indexed by id.

    Raises InputError where negatives are asked for without a class `nothing`, and for a finder that is nowhere.
    """
    if params.negatives and NOTHING not in classes:
        raise InputError(
            f"params.yaml: synthesize.negatives makes rows of the class '{NOTHING}', and there is none: put some images into data/labeled/{NOTHING}/, or add a source with `role: background`."
        )
    finder = _finder(params, data)
    objects = parents[parents["label"] != NOTHING]
    wanted = [
        (one, number)
        for one in objects.index
        for number in range(how_many(params.cut_and_paste, facts.seed, "paste", one))
    ]
    bare = [one for one in objects.index if how_many(params.negatives, facts.seed, "negative", one)]
    if not wanted and not bare:
        return
    names = sorted({one for one, _ in wanted} | {*bare} | {*parents.index[parents["label"] == NOTHING]})
    shown = _Images(dict(payloads([collected], names)), facts.max_megapixels)
    _find_objects(shown, objects.loc[objects.index.isin(names)], finder, progress)
    behind = _backgrounds(parents, shown, cleared=finder is not None)
    for one, number in counted(wanted, progress, "cut and paste", len(wanted)):
        known = parents.loc[one]
        rng = generator(facts.seed, "cut and paste", one, number)
        others = [other for other in behind(known) if other != one] or ([] if finder else [one])
        mask, where = shown.mask(one), draw_placement(rng)
        if mask is None or not others:
            recipe = recipe_json("cut_and_paste", number=number)
            why = "no_object_found" if mask is None else "no_background"
            yield _row(one, None, known, shown.pixels(one), recipe, params, known["label"]), why
            continue
        other = others[int(rng.integers(len(others)))]
        pixels = pasted(shown.pixels(one), mask, shown.bare(other), where, params.blend)
        placed = {name: round(getattr(where, name), 6) for name in ("scale", "degrees", "x", "y")}
        recipe = recipe_json("cut_and_paste", cut_by=params.cut_by, blend=params.blend, **placed)
        yield _row(one, other if other != one else None, known, pixels, recipe, params, known["label"]), None
    for one in bare:
        reason = "no_object_found" if shown.mask(one) is None else None
        recipe = recipe_json("background", cut_by=params.cut_by)
        yield _row(one, None, parents.loc[one], shown.bare(one), recipe, params, NOTHING), reason


class _Images:
    """Encoded images and packed masks, opened one at a time: a thousand photographs do not fit into memory as pixels."""

    def __init__(self, encoded: dict[str, Any], max_megapixels: float) -> None:
        self._encoded, self._max_megapixels = encoded, max_megapixels
        self._masks: dict[str, tuple[NDArray[np.uint8], tuple[int, int]]] = {}

    def pixels(self, one: str) -> images.Pixels:
        """The image."""
        return images.decode(self._encoded[one], self._max_megapixels)

    def keep(self, one: str, mask: Mask | None) -> None:
        """Where its object is."""
        if mask is not None:
            self._masks[one] = np.packbits(mask), (mask.shape[0], mask.shape[1])

    def mask(self, one: str) -> Mask | None:
        """Where its object is, None where there is none."""
        if one not in self._masks:
            return None
        packed, (height, width) = self._masks[one]
        return np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)

    def bare(self, one: str) -> images.Pixels:
        """The image without its object."""
        mask = self.mask(one)
        return self.pixels(one) if mask is None else without_object(self.pixels(one), mask)


def _finder(params: SynthesizeParams, data: Path | None) -> Finder | None:
    if params.cut_by == "grabcut":
        return None
    own = plugin_functions(data, params.plugin, AUGMENTING[1], "synthesize.plugin")
    if params.cut_by not in own:
        if params.plugin is None:
            raise InputError(
                f"params.yaml: synthesize.cut_by: '{params.cut_by}' is not a method of ours, and no file of functions is named: "
                f"write grabcut, or name the file in data/ that has it, such as `plugin: {AUGMENTING[0]}`, in the same section."
            )
        raise InputError(
            f"params.yaml: synthesize.cut_by: there is no function '{params.cut_by}' in data/{AUGMENTING[0]} or among installed packages (there is: grabcut{''.join(f', {one}' for one in sorted(own))})."
        )
    return own[params.cut_by]


def _find_objects(shown: _Images, objects: pd.DataFrame, finder: Finder | None, progress: Progress) -> None:
    """Each row's object, by as many threads as the machine has cores."""

    def of(one: str) -> Mask | None:
        told = {"id": one, "origin": objects.at[one, "origin"], "label": objects.at[one, "label"]}
        pixels = shown.pixels(one)
        try:
            found = None if finder is None else finder(pixels.copy(), told)
        except Exception as error:
            raise InputError(
                f"data/{AUGMENTING[0]}: the finder stopped at {told['origin']}: {type(error).__name__}: {error}"
            ) from error
        if finder is not None and found is None:
            return None
        try:
            return object_mask(pixels, found)
        except NoObject:
            return None
        except (TypeError, ValueError) as error:
            raise InputError(
                f"data/{AUGMENTING[0]}: the finder must give a mask (height, width), a box (left, top, right, bottom) or None; at {told['origin']} it gave something else: {error}"
            ) from error

    names = list(objects.index)
    with ThreadPoolExecutor() as threads:
        for one, mask in zip(names, counted(threads.map(of, names), progress, "find objects", len(names)), strict=True):
            shown.keep(one, mask)


def _backgrounds(parents: pd.DataFrame, shown: _Images, *, cleared: bool) -> Callable[[pd.Series], Sequence[str]]:
    """A row → the rows of its fold before whose background it may stand: those of the class `nothing`; where there is none, those whose object was found.
    cleared: where masks or boxes say what is to go, nothing of it stays; what GrabCut takes for the object may leave much of it, so there the label is
    kept true by backgrounds of the same class, and the object may move within its own image.
    """
    empty, found = dict[Any, list[str]](), dict[Any, list[str]]()

    def key(known: pd.Series) -> Any:
        return _fold(known), None if cleared else known["label"]

    for one in parents.index:
        known = parents.loc[one]
        if known["label"] == NOTHING:
            empty.setdefault(_fold(known), []).append(one)
        elif shown.mask(one) is not None:
            found.setdefault(key(known), []).append(one)
    return lambda known: empty.get(_fold(known)) or found.get(key(known), [])


def _fold(known: pd.Series) -> int:
    return -1 if pd.isna(known["fold"]) else int(known["fold"])


def _row(
    one: str,
    behind: str | None,
    known: pd.Series,
    pixels: images.Pixels,
    recipe: str,
    params: SynthesizeParams,
    label: str,
) -> Row:
    parents = [one] if behind is None else [one, behind]
    return Row(
        id=identify(images.content(pixels), parents, recipe),
        split="train",
        fold=None if pd.isna(known["fold"]) else int(known["fold"]),
        label=label,
        label_source="background" if label == NOTHING else "cut_and_paste",
        weight=params.weight * float(known["weight"]),
        parent_ids=parents,
        recipe=recipe,
        group=known["group"],
        payload=images.encode(np.ascontiguousarray(pixels)),
    )
