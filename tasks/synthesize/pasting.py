"""Rows that are cut and pasted: which object before which background, within a fold, and backgrounds as rows of the class `nothing`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks import images
from tasks.errors import InputError
from tasks.generation import Row, identify, payloads, recipe_json
from tasks.own_functions import AUGMENTING, own_functions
from tasks.params import NOTHING, Facts, SynthesizeParams
from tasks.progress import Progress, counted
from tasks.randomness import generator
from tasks.synthesize.cutting import Finder, Mask, NoObject, draw_placement, object_mask, pasted, without_object


def cut_rows(
    parents: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    facts: Facts,
    collected: Path,
    data: Path | None,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    """Pasted objects and negatives, each with the reason where it could not be made. parents: labelled training rows, indexed by id.

    Raises InputError where negatives are asked for without a class `nothing`, and for a finder that is nowhere.
    """
    if params.negatives and NOTHING not in classes:
        raise InputError(
            f"params.yaml: synthesize.negatives makes rows of the class '{NOTHING}', and there is none: put some pictures into data/labelled/{NOTHING}/, or add a source with `role: background`."
        )
    finder = _finder(params, data)
    objects = parents[parents["label"] != NOTHING]
    wanted = [
        (one, number)
        for one in objects.index
        for number in range(_many(params.cut_and_paste, facts.seed, "paste", one))
    ]
    bare = [one for one in objects.index if _many(params.negatives, facts.seed, "negative", one)]
    if not wanted and not bare:
        return
    read = payloads([collected], parents.index)
    pictures = {one: images.decode(payload, facts.max_megapixels) for one, payload in read}  # type: ignore[arg-type]
    masks = _masks(objects, pictures, finder, progress)
    behind = _backgrounds(parents, pictures, masks)
    for one, number in counted(wanted, progress, "cut and paste", len(wanted)):
        known = parents.loc[one]
        rng = generator(facts.seed, "cut and paste", one, number)
        others = [other for other in behind.get(_fold(known), ()) if other != one]
        mask, where = masks[one], draw_placement(rng)
        if mask is None or not others:
            yield (
                _row(
                    one, None, known, pictures[one], recipe_json("cut_and_paste", number=number), params, known["label"]
                ),
                ("no_object_found" if mask is None else "no_background"),
            )
            continue
        other = others[int(rng.integers(len(others)))]
        pixels = pasted(pictures[one], mask, _bare(pictures[other], masks.get(other)), where, params.blend)
        recipe = recipe_json(
            "cut_and_paste",
            cut_by=params.cut_by,
            blend=params.blend,
            **{name: round(getattr(where, name), 6) for name in ("scale", "degrees", "x", "y")},
        )
        yield _row(one, other, known, pixels, recipe, params, known["label"]), None
    for one in bare:
        known, mask = parents.loc[one], masks[one]
        pixels = _bare(pictures[one], mask)
        yield (
            _row(one, None, known, pixels, recipe_json("background", cut_by=params.cut_by), params, NOTHING),
            ("no_object_found" if mask is None else None),
        )


def _finder(params: SynthesizeParams, data: Path | None) -> Finder | None:
    if params.cut_by == "grabcut":
        return None
    own = own_functions(data / AUGMENTING[0], AUGMENTING[1]) if data is not None else {}
    if params.cut_by not in own:
        raise InputError(
            f"params.yaml: synthesize.cut_by: there is no function '{params.cut_by}' in data/{AUGMENTING[0]} or among installed packages (there is: grabcut{''.join(f', {one}' for one in sorted(own))})."
        )
    return own[params.cut_by]


def _many(a_row: float, seed: int, way: str, row: str) -> int:
    return int(a_row) + int(generator(seed, way, row).random() < a_row % 1)


def _masks(
    objects: pd.DataFrame, pictures: dict[str, images.Pixels], finder: Finder | None, progress: Progress
) -> dict[str, Mask | None]:
    """Each row's object, None where there is none to be found."""

    def of(one: str) -> Mask | None:
        told = {"id": one, "origin": objects.at[one, "origin"], "label": objects.at[one, "label"]}
        try:
            found = None if finder is None else finder(pictures[one].copy(), told)
        except Exception as error:
            raise InputError(
                f"data/{AUGMENTING[0]}: the finder stopped at {told['origin']}: {type(error).__name__}: {error}"
            ) from error
        if finder is not None and found is None:
            return None
        try:
            return object_mask(pictures[one], found)
        except NoObject:
            return None
        except (TypeError, ValueError) as error:
            raise InputError(
                f"data/{AUGMENTING[0]}: the finder must give a mask (height, width), a box (left, top, right, bottom) or None; at {told['origin']} it gave something else: {error}"
            ) from error

    names = list(objects.index)
    with ThreadPoolExecutor() as threads:
        found = list(counted(threads.map(of, names), progress, "find objects", len(names)))
    return dict(zip(names, found, strict=True))


def _backgrounds(parents: pd.DataFrame, pictures: Any, masks: dict[str, Mask | None]) -> dict[int, list[str]]:
    """Fold → rows before whose background something may stand: those of the class `nothing`, where there are none those whose object was found."""
    of_fold: dict[int, list[str]] = {}
    empty = parents.index[parents["label"] == NOTHING]
    for one in empty if len(empty) else [one for one, mask in masks.items() if mask is not None]:
        of_fold.setdefault(_fold(parents.loc[one]), []).append(one)
    return of_fold


def _fold(known: pd.Series) -> int:
    return -1 if pd.isna(known["fold"]) else int(known["fold"])


def _bare(pixels: images.Pixels, mask: Mask | None) -> images.Pixels:
    return pixels if mask is None else without_object(pixels, mask)


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
        parents=parents,
        recipe=recipe,
        group=known["group"],
        payload=images.encode(np.ascontiguousarray(pixels)),
    )
