"""augment: label-preserving children of the labelled training rows, each with its parent and its recipe.

python -m tasks.augment
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from tasks import images, texts
from tasks.generation import GenerationWriter, Row, identify, payloads, read, read_manifest, recipe_json
from tasks.params import AugmentParams, Facts
from tasks.progress import Progress, silent
from tasks.randomness import derived_seed, generator

BY_EFFORT = {"quick": 1, "normal": 2, "thorough": 5}
ENOUGH = 20_000  # children in all where params leave their number open: more labelled rows need fewer of them

Maker = Callable[[Any, int], tuple[Any, str, bytes]]  # (parent's payload, seed) → (child's payload, recipe, content)


def augment(
    params: AugmentParams,
    facts: Facts,
    *,
    collected: Path,
    validated: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Writes `generations/augment`; children take split, fold, group, label and weight from their parent."""
    rows = read(validated)
    parents = rows[(rows["split"] == "train") & rows["label"].notna()].set_index("id")
    held_out = rows[rows["split"].isin(["test", "validation"])]
    children = children_of_each(len(parents), params, facts)
    held_out_texts = {texts.normalised(text) for text in held_out["text"]} if facts.modality == "text" else set()
    make = _pictures(params, facts) if facts.modality == "image" else _texts(params)
    seen: set[str] = set()
    with GenerationWriter(output, stage="augment", modality=facts.modality) as writer:
        source = payloads([collected], parents.index) if children else iter(())
        for row, unchanged in _families(source, parents, children, make, params, facts):
            if reason := _reason(row, unchanged, seen, held_out_texts):
                writer.reject(row, reason)
            else:
                writer.keep(row)
            seen.add(row.id)
            done = sum(writer.kept.values()) + sum(writer.reasons.values())
            progress("make children", done, len(parents) * children)
        writer.close(
            rows_in=len(parents) * children,
            classes=read_manifest(validated)["classes"],
            children_a_row=children,
        )


def children_of_each(parents: int, params: AugmentParams, facts: Facts) -> int:
    """How many children each row gets."""
    if params.children is not None:
        return params.children
    return min(BY_EFFORT[facts.effort], ENOUGH // max(1, parents))


def _families(
    source: Iterator[tuple[str, Any]],
    parents: pd.DataFrame,
    children: int,
    make: Maker,
    params: AugmentParams,
    facts: Facts,
) -> Iterator[tuple[Row, bool]]:
    """Every parent's children (and whether one is its parent unchanged), made by as many threads as the machine has cores, in the parents' order."""

    def family(parent: tuple[str, Any]) -> list[tuple[Row, bool]]:
        name, payload = parent
        known = parents.loc[name]
        return [_child(name, payload, known, number, make, params, facts) for number in range(children)]

    with ThreadPoolExecutor() as threads:
        while block := list(islice(source, 64)):
            for one in threads.map(family, block):
                yield from one


def _child(
    parent: str, payload: Any, known: pd.Series, number: int, make: Maker, params: AugmentParams, facts: Facts
) -> tuple[Row, bool]:
    made, recipe, content = make(payload, derived_seed(facts.seed, "augment", parent, number))
    row = Row(
        id=identify(content, [parent], recipe),
        split="train",
        fold=None if pd.isna(known["fold"]) else int(known["fold"]),
        label=known["label"],
        label_source=known["label_source"],
        weight=float(known["weight"]) * params.weight,
        parents=[parent],
        recipe=recipe,
        origin=known["origin"],
        licence=known["licence"],
        attribution=known["attribution"],
        group=known["group"],
        payload=made,
    )
    return row, identify(content) == parent


def _reason(row: Row, unchanged: bool, seen: set[str], held_out_texts: set[str]) -> str | None:
    if unchanged:
        return "unchanged"
    if row.id in seen:
        return "exact_duplicate"
    if isinstance(row.payload, str) and texts.normalised(row.payload) in held_out_texts:
        return "near_duplicate_of_test"
    return None


def _pictures(params: AugmentParams, facts: Facts) -> Maker:
    from tasks.augment.pictures import DEFAULT_POLICY, PolicyTransform

    policy = DEFAULT_POLICY if params.policy is None else params.policy
    transform = PolicyTransform(policy)

    def make(payload: bytes, seed: int) -> tuple[bytes, str, bytes]:
        pixels = transform(images.decode(payload, facts.max_megapixels), seed)
        recipe = recipe_json("albumentations", policy=[dict(one) for one in policy], seed=seed)
        return images.encode(pixels), recipe, images.content(pixels)

    return make


def _texts(params: AugmentParams) -> Maker:
    from tasks.words import change_words

    def make(payload: str, seed: int) -> tuple[str, str, bytes]:
        rng = generator(seed)
        operation = params.word_operations[int(rng.integers(len(params.word_operations)))]
        text = change_words(payload, operation, params.words_changed, rng)
        return text, recipe_json(operation, share=params.words_changed, seed=seed), texts.content(text)

    return make
