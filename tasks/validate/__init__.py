"""validate: rejects what cannot be used, finds duplicates and leaks, and assigns split and fold.

python -m tasks.validate
"""

from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from tasks.errors import InputError
from tasks.generation import GenerationWriter, read_manifest, stream
from tasks.params import Facts, ValidateParams
from tasks.progress import Progress, silent
from tasks.validate.checks import THUMBNAIL_SIDE, Looked, look
from tasks.validate.duplicates import clusters, near_duplicate_images, near_duplicate_texts
from tasks.validate.splits import assign_folds, carve_test

ORDER = {"test": 0, "validation": 1, "train": 2, "pool": 3, "out_of_scope": 4}  # which copy of a row stays


def validate(
    params: ValidateParams,
    facts: Facts,
    *,
    collected: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Writes `generations/validate`: the collected rows with label, split, fold and group, without their pictures.

    Raises InputError where fewer than two classes are left.
    """
    rows_in = read_manifest(collected)["rows"]["kept"]
    looked = _look_at_all(collected, params, facts, progress)
    spellings = merge_spellings(looked) if params.merge_case else {}
    reject_copies(looked)
    group_near_duplicates(looked, params, facts)
    reject_leaks(looked)
    classes = reject_small_classes(looked, params.min_class_rows)
    carved = carve_test_rows(looked, params, facts.seed)
    deal_folds(looked, params.folds, facts.seed)
    with GenerationWriter(output, stage="validate", modality=facts.modality, pictures=False) as writer:
        for one in looked:
            if one.reason:
                writer.reject(one.row, one.reason)
            else:
                writer.keep(one.row)
        writer.close(rows_in=rows_in, classes=classes, merged_spellings=spellings, carved_test_rows=carved)


def _look_at_all(collected: Path, params: ValidateParams, facts: Facts, progress: Progress) -> list[Looked]:
    rows = stream(collected)
    check = partial(look, params=params, facts=facts)
    total = read_manifest(collected)["rows"]["kept"]
    looked: list[Looked] = []
    with ThreadPoolExecutor() as threads:
        while block := list(islice(rows, 256)):
            looked += threads.map(check, block)
            progress("look at rows", len(looked), total)
    return looked


def usable(looked: list[Looked]) -> list[Looked]:
    """The rows that nothing speaks against so far."""
    return [one for one in looked if one.reason is None]


def merge_spellings(looked: list[Looked]) -> dict[str, str]:
    """Labels that differ in case alone become their commonest spelling; gives the spellings that were changed."""
    counts = Counter(one.row.label for one in looked if one.row.label)
    commonest: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        commonest.setdefault(label.casefold(), label)
    for one in looked:
        if one.row.label:
            one.row = replace(one.row, label=commonest[one.row.label.casefold()])
    return {label: commonest[label.casefold()] for label in sorted(counts) if commonest[label.casefold()] != label}


def reject_copies(looked: list[Looked]) -> None:
    """Of exact copies one stays (test before training before pool); copies whose labels conflict all go."""
    copies: dict[str, list[Looked]] = defaultdict(list)
    for one in usable(looked):
        copies[one.row.id].append(one)
    for same in copies.values():
        by_hand = [one for one in same if one.row.label_source == "human"]
        voters = by_hand or [one for one in same if one.row.label]
        if len({one.row.label for one in voters}) > 1:
            for one in same:
                one.reason = "conflicting_labels" if one.row.label else None
        left = sorted(usable(same), key=lambda one: (ORDER[one.row.split], one.row.label_source != "human"))
        for one in left[1:]:
            one.reason = "exact_duplicate"


def group_near_duplicates(looked: list[Looked], params: ValidateParams, facts: Facts) -> None:
    """Gives each usable row its group: the smallest id among its near-duplicates, its own where it has none."""
    rows = usable(looked)
    if facts.modality == "text":
        pairs = near_duplicate_texts([str(one.near_key) for one in rows])
    else:
        hashes = np.array([one.near_key for one in rows], dtype=np.uint64)
        thumbnails = np.array([one.thumbnail for one in rows], dtype=np.uint8).reshape(len(rows), THUMBNAIL_SIDE**2 * 3)
        pairs = near_duplicate_images(
            hashes, thumbnails, bits=params.near_duplicate_bits, difference=params.near_duplicate_difference
        )
    for members in clusters(len(rows), pairs):
        group = min(rows[number].row.id for number in members)
        for number in members:
            rows[number].row = replace(rows[number].row, group=group)


def reject_leaks(looked: list[Looked]) -> None:
    """Near-duplicates of a test row go from everywhere else, those of a validation row from what is left."""
    for split in ("test", "validation"):
        held_out = {one.row.group for one in usable(looked) if one.row.split == split}
        for one in usable(looked):
            if one.row.group in held_out and ORDER[one.row.split] > ORDER[split]:
                one.reason = f"near_duplicate_of_{split}"


def reject_small_classes(looked: list[Looked], min_class_rows: int) -> list[str]:
    """The classes, sorted; the rows of a class with too few training groups go, and held-out rows of no class.

    Raises InputError where fewer than two classes are left.
    """
    groups: dict[str, set[str | None]] = defaultdict(set)
    for one in usable(looked):
        if one.row.split == "train" and one.row.label:
            groups[one.row.label].add(one.row.group)
    classes = sorted(label for label, members in groups.items() if len(members) >= min_class_rows)
    if len(classes) < 2:
        found = ", ".join(f"'{label}' ({len(members)})" for label, members in sorted(groups.items())) or "none"
        raise InputError(
            f"At least two classes with {min_class_rows} different labelled rows each are needed; found: {found}. "
            f"Of {len(looked)} rows {_why_rejected(looked)}. "
            "Add labelled rows in data/ (labelled/<class>/, or the label column), or mend those."
        )
    known = set(classes)
    for one in usable(looked):
        if one.row.label and one.row.label not in known:
            one.reason = "class_too_small" if one.row.label in groups else "class_not_in_training"
    return classes


def _why_rejected(looked: list[Looked]) -> str:
    reasons = Counter(one.reason for one in looked if one.reason)
    return ", ".join(f"{rows} are rejected as {reason}" for reason, rows in reasons.most_common()) or "none is rejected"


def carve_test_rows(looked: list[Looked], params: ValidateParams, seed: int) -> int:
    """Where no test split is given, takes one from the labelled rows; gives how many. None where it would be too small."""
    if params.test_share == 0 or any(one.row.split == "test" for one in usable(looked)):
        return 0
    labelled = [one for one in usable(looked) if one.row.split == "train" and one.row.label_source == "human"]
    labels, groups = [str(one.row.label) for one in labelled], [str(one.row.group) for one in labelled]
    chosen = carve_test(labels, groups, params.test_share, seed, max(2, params.min_class_rows))
    carved = [one for one in labelled if one.row.group in chosen]
    if len(carved) < params.min_test_rows:
        return 0
    for one in carved:
        one.row = replace(one.row, split="test")
    reject_leaks(looked)
    return len(carved)


def deal_folds(looked: list[Looked], folds: int, seed: int) -> None:
    """Gives every labelled training row its fold; none to the only one of its class, which every model must see."""
    labelled = [one for one in usable(looked) if one.row.split == "train"]
    labels, groups = [str(one.row.label) for one in labelled], [str(one.row.group) for one in labelled]
    fold_of = assign_folds(labels, groups, folds, seed)
    for one in labelled:
        one.row = replace(one.row, fold=fold_of.get(str(one.row.group)))
