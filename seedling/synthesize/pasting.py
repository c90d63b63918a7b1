"""Rows of cut and paste: which object on which background, within a fold; and backgrounds as rows of `nothing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.config.params import NOTHING, SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import Row, identify, payloads, recipe_json
from seedling.errors import InputError
from seedling.media import images
from seedling.media.decoded_images import DecodedImages
from seedling.plugins import AUGMENTING_GROUP, defined_in, plugin_functions
from seedling.progress import Progress, counted
from seedling.stats.randomness import generator, how_many
from seedling.synthesize.cutting import Finder, Mask, NoObject, draw_placement, object_mask, paste, remove_object
from seedling.workspace import AUGMENTING_FILE


def cut_rows(
    parents: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    config: WorkspaceConfig,
    collected: Path,
    data: Path | None,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    """Yield pasted objects and backgrounds, each with the reason to reject it or None.

    parents: labeled training rows, indexed by id. Raises InputError for negatives without a class `nothing`, and for an
    unknown finder.
    """
    if params.negatives and NOTHING not in classes:
        raise InputError(
            f"params.yaml: synthesize.negatives makes rows of the class '{NOTHING}', which does not exist: put some "
            f"images into data/labeled/{NOTHING}/, or add a source with `role: background`."
        )
    finder = _finder(params, data)
    objects = parents[parents["label"] != NOTHING]
    to_paste = [
        (row_id, number)
        for row_id in objects.index
        for number in range(how_many(params.cut_and_paste, config.seed, "paste", row_id))
    ]
    to_clear = [row_id for row_id in objects.index if how_many(params.negatives, config.seed, "negative", row_id)]
    if not to_paste and not to_clear:
        return
    background_ids = parents.index[parents["label"] == NOTHING]
    names = sorted({row_id for row_id, _ in to_paste} | {*to_clear} | {*background_ids})
    image_store = _Images(dict(payloads([collected], names)), config.max_megapixels)
    _find_objects(image_store, objects.loc[objects.index.isin(names)], finder, progress)
    backgrounds_of = _backgrounds(parents, image_store, any_class=finder is not None)
    for row_id, number in counted(to_paste, progress, "cut and paste", len(to_paste)):
        parent = parents.loc[row_id]
        candidates = [other for other in backgrounds_of(parent) if other != row_id] or ([] if finder else [row_id])
        yield _pasted_row(row_id, number, parent, candidates, image_store, params, config)
    for row_id in to_clear:
        reason = "no_object_found" if image_store.mask(row_id) is None else None
        recipe = recipe_json("background", cut_by=params.cut_by)
        yield _row([row_id], parents.loc[row_id], image_store.background(row_id), recipe, params, NOTHING), reason


class _Images:
    """Encoded images and packed masks, decoded on demand: the pixels of 1,000 photographs do not fit into memory."""

    def __init__(self, encoded: Mapping[str, bytes | str], max_megapixels: float) -> None:
        self._encoded, self._decode = encoded, DecodedImages(max_megapixels)
        self._masks: dict[str, tuple[NDArray[np.uint8], tuple[int, int]]] = {}

    def pixels(self, row_id: str) -> images.Pixels:
        """Return the decoded image, read-only."""
        return self._decode(cast("bytes", self._encoded[row_id]))

    def set_mask(self, row_id: str, mask: Mask | None) -> None:
        """Store the object's mask."""
        if mask is not None:
            self._masks[row_id] = np.packbits(mask), (mask.shape[0], mask.shape[1])

    def mask(self, row_id: str) -> Mask | None:
        """Return the object's mask, None if no object was found."""
        if row_id not in self._masks:
            return None
        packed, (height, width) = self._masks[row_id]
        return np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)

    def background(self, row_id: str) -> images.Pixels:
        """Return the image without its object."""
        mask = self.mask(row_id)
        return self.pixels(row_id) if mask is None else remove_object(self.pixels(row_id), mask)


def _pasted_row(
    row_id: str,
    number: int,
    parent: pd.Series,
    backgrounds: Sequence[str],
    image_store: _Images,
    params: SynthesizeParams,
    config: WorkspaceConfig,
) -> tuple[Row, str | None]:
    """Paste the row's object on a background drawn from `backgrounds`; return the row and the reason to reject it."""
    rng = generator(config.seed, "cut and paste", row_id, number)
    mask, placement = image_store.mask(row_id), draw_placement(rng)
    if mask is None or not backgrounds:
        recipe = recipe_json("cut_and_paste", number=number)
        reason = "no_object_found" if mask is None else "no_background"
        return _row([row_id], parent, image_store.pixels(row_id), recipe, params, parent["label"]), reason
    background_id = backgrounds[int(rng.integers(len(backgrounds)))]
    pixels = paste(image_store.pixels(row_id), mask, image_store.background(background_id), placement, params.blend)
    position = {name: round(getattr(placement, name), 6) for name in ("scale", "degrees", "x", "y")}
    recipe = recipe_json("cut_and_paste", cut_by=params.cut_by, blend=params.blend, **position)
    parent_ids = [row_id] if background_id == row_id else [row_id, background_id]
    return _row(parent_ids, parent, pixels, recipe, params, parent["label"]), None


def _finder(params: SynthesizeParams, data: Path | None) -> Finder | None:
    """Return the user's function that finds objects; None for GrabCut."""
    if params.cut_by == "grabcut":
        return None
    plugins = plugin_functions(data, params.plugin, AUGMENTING_GROUP, "synthesize.plugin")
    if params.cut_by not in plugins:
        if params.plugin is None:
            raise InputError(
                f"params.yaml: synthesize.cut_by: '{params.cut_by}' is not a built-in method, and no plugin is named: "
                f"write grabcut, or name the file in data/ that has the function, such as `plugin: {AUGMENTING_FILE}`, "
                "in the same section."
            )
        raise InputError(
            f"params.yaml: synthesize.cut_by: unknown function '{params.cut_by}': neither data/{params.plugin} nor an "
            f"installed package has it. The methods are {', '.join(['grabcut', *sorted(plugins)])}."
        )
    return plugins[params.cut_by]


def _file_of(finder: Finder | None) -> str:
    return "GrabCut" if finder is None else defined_in(finder)


def _find_objects(image_store: _Images, objects: pd.DataFrame, finder: Finder | None, progress: Progress) -> None:
    """Find the object of each row, in parallel threads, and store its mask."""
    origins, labels = objects["origin"], objects["label"]

    def find(row_id: str) -> Mask | None:
        details = {"id": row_id, "origin": origins[row_id], "label": labels[row_id]}
        pixels = image_store.pixels(row_id)
        try:
            location = None if finder is None else finder(pixels.copy(), details)
        except Exception as error:
            raise InputError(
                f"{_file_of(finder)}: the finder failed on {details['origin']}: {type(error).__name__}: {error}"
            ) from error
        if finder is not None and location is None:
            return None
        try:
            return object_mask(pixels, location)
        except NoObject:
            return None
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{_file_of(finder)}: the finder must return a mask (height, width), a box (left, top, right, "
                f"bottom) or None; for {details['origin']} it returned something else: {error}"
            ) from error

    row_ids = list(objects.index)
    with ThreadPoolExecutor() as threads:
        masks = counted(threads.map(find, row_ids), progress, "find objects", len(row_ids))
        for row_id, mask in zip(row_ids, masks, strict=True):
            image_store.set_mask(row_id, mask)


def _backgrounds(
    parents: pd.DataFrame, image_store: _Images, *, any_class: bool
) -> Callable[[pd.Series], Sequence[str]]:
    """Return a function: row → ids of the rows of its fold whose background it may be pasted on.

    These are the rows of the class `nothing`; if the fold has none, the rows whose object was found. GrabCut may leave
    part of an object behind, so it needs backgrounds of the same class to preserve the label. any_class: True for a
    user's finder, which is assumed to remove the object entirely.
    """
    empty, cleared = dict[Any, list[str]](), dict[Any, list[str]]()

    def key(row: pd.Series) -> Any:
        return _fold(row), None if any_class else row["label"]

    for row_id in parents.index:
        parent = parents.loc[row_id]
        if parent["label"] == NOTHING:
            empty.setdefault(_fold(parent), []).append(row_id)
        elif image_store.mask(row_id) is not None:
            cleared.setdefault(key(parent), []).append(row_id)
    return lambda row: empty.get(_fold(row)) or cleared.get(key(row), [])


def _fold(row: pd.Series) -> int:
    return -1 if pd.isna(row["fold"]) else int(row["fold"])


def _row(
    parent_ids: list[str],
    parent: pd.Series,
    pixels: images.Pixels,
    recipe: str,
    params: SynthesizeParams,
    label: str,
) -> Row:
    return Row(
        id=identify(images.content(pixels), parent_ids, recipe),
        split="train",
        fold=None if pd.isna(parent["fold"]) else int(parent["fold"]),
        label=label,
        label_source="background" if label == NOTHING else "cut_and_paste",
        weight=params.weight * float(parent["weight"]),
        parent_ids=parent_ids,
        recipe=recipe,
        group=parent["group"],
        payload=images.encode(np.ascontiguousarray(pixels)),
    )
