"""augment: label-preserving children of the labeled training rows, each with its parent and its recipe.

python -m seedling.runner augment
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from seedling.augment.families import Families, Parent, pieces_of
from seedling.augment.makers import Resources, steps_of
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, payloads, read, read_manifest
from seedling.errors import InputError
from seedling.media import texts
from seedling.parallel.pool import in_processes
from seedling.progress import Progress, silent
from seedling.stats.randomness import generator

if TYPE_CHECKING:
    from seedling.augment.judges import Judges
    from seedling.features.classical import FeatureMaker

BY_EFFORT = {"quick": 1, "normal": 2, "thorough": 5}
ENOUGH = 20_000  # children in all where params leave their number open: more labeled rows need fewer of them
MOST_BALANCED = 10  # times as many children of a rare class's row as of the commonest one's


def augment(
    params: AugmentParams,
    facts: WorkspaceConfig,
    *,
    collected: Path,
    validated: Path,
    output: Path,
    data: Path | None = None,
    features: FeatureMaker | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `generations/augment`; children take split, fold, group, label and weight from their parent.

    data: where a thesaurus and the user's own functions lie; features: not fitted yet, for `policy: auto` and the label guard; None: as without an encoder.
    """
    if facts.modality == "image" and (params.thesaurus or params.protect or params.masked_lm):
        raise InputError(
            "params.yaml: augment.thesaurus, augment.masked_lm and augment.protect are of texts, but this is an image workspace: remove them."
        )
    # Here, so that processes that make children need no torch, which takes a second and two hundred megabytes each.
    from seedling.augment.judges import Judges
    from seedling.augment.resources import resources_of
    from seedling.models.saving import make_features

    classes = read_manifest(validated)["classes"]
    rows = read(validated)
    parents = rows[(rows["split"] == "train") & rows["label"].notna()].set_index("id")
    own_features = features or make_features(None, None, facts)
    resources = resources_of(params, facts, parents, data, own_features)
    judges = Judges(parents, classes, collected, own_features, params, facts, progress)
    policy, children, notes = _chosen(judges, resources)
    steps = steps_of(policy, facts, resources.own)
    of_class = balanced(Counter(parents["label"]), children if steps else 0, params.balance if steps else 0.0)
    hard = judges.hardness() if any(of_class.values()) else {}
    many = favoring_hard(parents["label"].map(of_class), hard, params.hard, facts.seed)
    total = sum(many.values())
    families = Families(steps, params, facts, resources)
    guard = judges.guard() if total else None
    known = Known(rows, facts)
    with GenerationWriter(output, stage="augment", modality=facts.modality) as writer:
        source = (
            (name, payload, parents.loc[name].to_dict(), range(many[name]))
            for name, payload in (payloads([collected], parents.index) if total else ())
        )
        done = 0
        for row, same, reason in _made(families, source, guard):
            done += 1
            _write(writer, row, reason or known.reason(row, same))
            progress("make children", done, total)
        for row, same in judges.misleading():
            total += 1
            _write(writer, row, known.reason(row, same))
        if params.hard and not hard:
            notes["hard"] = "nobody could say which rows are hard"
        if params.balance:
            notes["class_shares"] = _shares(parents["label"], writer)
        if done:
            notes["policy"] = [{one.name: dict(one.arguments)} for one in steps]
        writer.close(rows_in=total, classes=classes, augmentations_per_row=children, **notes)


def _chosen(judges: Judges, resources: Resources) -> tuple[Any, int, dict[str, Any]]:
    """The policy, how many children a row gets, and what the manifest says of the choice: as params have them, or as they help where those say `auto`."""
    params, parents = judges.params, len(judges.parents)
    children = children_of_each(parents, params, judges.facts)
    if params.policy != "auto":
        return params.policy, children, {}
    found, why = judges.screened(resources)
    if found is None:
        return None, children, {"screening": {"cannot_screen": why}}
    if params.augmentations_per_row is None:
        children = min(found.children, ENOUGH // max(1, parents))
    return found.policy, children, {"screening": found.as_json()}


def _write(writer: GenerationWriter, row: Row, reason: str | None) -> None:
    if reason:
        writer.reject(row, reason)
    else:
        writer.keep(row)


class Known:
    """What a child may not be: a copy of a row that is there, or of another child. It would be learnt from where its twin judges, or count twice.

    Images are the same where their pixels are, texts where only case, punctuation and blanks differ.
    """

    def __init__(self, rows: pd.DataFrame, facts: WorkspaceConfig) -> None:
        self._of_text = facts.modality == "text"
        held_out = rows["split"].isin(["test", "validation"])
        keys = [texts.normalized(one) for one in rows["text"]] if self._of_text else rows["id"].tolist()
        self._rows: dict[str, str] = dict(zip(keys, rows["id"], strict=True))
        self._held_out = {key for key, out in zip(keys, held_out, strict=True) if out}
        self._children: set[tuple[str, str | None]] = set()

    def reason(self, row: Row, same: str) -> str | None:
        """Why the child cannot stay; None where it can, and is known from now on. same: the hash of its content alone."""
        if same == row.parent_ids[0]:
            return "unchanged"
        if self._of_text and not row.payload:
            return "empty"
        key = texts.normalized(str(row.payload)) if self._of_text else same
        if key in self._held_out:
            return "near_duplicate_of_test"
        if key in self._rows and self._rows[key] != row.parent_ids[0]:
            return "copy_of_another_row"
        if (key, row.label) in self._children:
            return "exact_duplicate"
        self._children.add((key, row.label))
        return None


def children_of_each(parents: int, params: AugmentParams, facts: WorkspaceConfig) -> int:
    """How many children each row gets."""
    if params.augmentations_per_row is not None:
        return params.augmentations_per_row
    return min(BY_EFFORT[facts.effort], ENOUGH // max(1, parents))


def balanced(rows: Mapping[str, int], children: int, balance: float) -> dict[str, int]:
    """Children a row by class: of the commonest class `children`; of a rarer one more, so that with balance 1 all classes hold about as many rows as
    the commonest with its children does, and with 0 every row has the same number. At most MOST_BALANCED times as many.
    """
    most = max(rows.values(), default=0)
    wanted = {label: (1 + children) * (most / many) ** balance - 1 for label, many in rows.items()}
    limit = MOST_BALANCED * max(1, children)
    return {label: min(round(one), limit) for label, one in wanted.items()}


def favoring_hard(many: pd.Series, hardness: Mapping[str, float], hard: float, seed: int) -> dict[str, int]:
    """Children by row: with `hard` 0 as many as given; with 1 none of its class's easiest row, and twice as many of its hardest. many: by id.

    What is left of a whole number is a chance, drawn by the row's name.
    """
    if not hardness or not hard:
        return {name: int(children) for name, children in many.items()}
    wanted = {name: children * (1 + hard * (2 * hardness[name] - 1)) for name, children in many.items()}
    return {name: int(one) + int(generator(seed, "hard", name).random() < one % 1) for name, one in wanted.items()}


def _shares(parents: pd.Series, writer: GenerationWriter) -> dict[str, dict[str, float]]:
    """Each class's share of the training rows, before and after."""
    before = Counter(parents)
    after = before + Counter(dict.fromkeys(before, 0))
    for (_, label, _), rows in writer.kept.items():
        after[label] += rows
    return {
        when: {label: round(rows / counts.total(), 6) for label, rows in sorted(counts.items())}
        for when, counts in (("before", before), ("after", after))
    }


def _made(families: Families, parents: Iterator[Parent], guard: Any) -> Iterator[tuple[Row, str, str | None]]:
    """Every child, in its parents' order, on as many cores as it is worth, and whether the guard wants it. Texts are quick, or wait for a model."""
    pieces = pieces_of(parents)
    of_images = families.facts.modality == "image"
    for children in in_processes(families, pieces) if of_images else map(families, pieces):
        asked = [(row.parent_ids[0], row.payload) for row, _, reason in children if reason is None] if guard else []
        changed = iter(guard.changed(asked) if asked else ())
        for row, same, reason in children:
            yield row, same, reason or ("label_changed" if guard and next(changed) else None)
