"""validate: rejects what cannot be used, finds duplicates and leaks, and assigns split and fold.

python -m seedling.runner validate
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, read_manifest, stream
from seedling.errors import InputError
from seedling.features.classical import FeatureMaker
from seedling.models.saving import make_features
from seedling.progress import Progress, silent
from seedling.validate.checks import THUMBNAIL_SIDE, CheckedRow, look
from seedling.validate.duplicates import Clusters, equal_texts, near_duplicate_images, near_duplicate_texts
from seedling.validate.fixed_camera import scenes, without_scenes
from seedling.validate.label_checks import judge
from seedling.validate.quality_flags import quality
from seedling.validate.splits import assign_folds, carve_test

MEASURED = {
    "image": [
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        *(pa.field(name, pa.float32()) for name in ("aspect", "brightness", "contrast", "blur", "entropy")),
        pa.field("rotated_by_exif", pa.bool_()),
    ],
    "text": [
        pa.field("characters", pa.int32()),
        pa.field("words", pa.int32()),
        pa.field("non_letters", pa.float32()),
        pa.field("mojibake", pa.float32()),
        pa.field("language", pa.string()),
        pa.field("markup", pa.bool_()),
        pa.field("personal_data", pa.bool_()),
    ],
}
FOUND = [
    pa.field("nearest_labeled", pa.float32()),
    pa.field("quality", pa.list_(pa.string())),
    pa.field("p_label_error", pa.float32()),
    pa.field("suggested_label", pa.string()),
    pa.field("is_label_issue", pa.bool_()),
    pa.field("original_label", pa.string()),
]
GROUPED = [pa.field("near_group", pa.string())]  # where sources say what belongs together
ORDER = {"test": 0, "validation": 1, "train": 2, "pool": 3, "out_of_scope": 4, "mixin": 5}  # which copy of a row stays


def validate(
    params: ValidateParams,
    facts: WorkspaceConfig,
    *,
    collected: Path,
    output: Path,
    features: FeatureMaker | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `generations/validate`: the collected rows with label, split, fold and group, what was measured in them, and how
    doubtful their labels are, without their images. features: not fitted yet, by which labels are judged; None: as without an encoder.

    Raises InputError where fewer than two classes are left.
    """
    rows_in = read_manifest(collected)["rows"]["kept"]
    looked = _look_at_all(collected, params, facts, progress)
    spellings = merge_spellings(looked) if params.merge_case else {}
    grouped = any(one.row.group is not None for one in looked)
    reject_copies(looked)
    scene_rows = group_near_duplicates(looked, params, facts)
    reject_leaks(looked)
    classes = reject_small_classes(looked, params.min_class_rows)
    carved = carve_test_rows(looked, params, facts.seed)
    deal_folds(looked, params.folds, facts.seed)
    usual = flag_quality(looked)
    maker = features or make_features(None, None, facts)
    doubt = judge(looked, classes, maker, collected, params, facts, progress)
    extra = MEASURED[facts.modality] + FOUND + (GROUPED if grouped else [])
    with GenerationWriter(output, stage="validate", modality=facts.modality, images=False, extra=extra) as writer:
        for one in looked:
            row = replace(one.row, extra=_found(one, extra))
            if one.reason:
                writer.reject(row, one.reason)
            else:
                writer.keep(row)
        writer.close(
            rows_in=rows_in,
            classes=classes,
            merged_spellings=spellings,
            carved_test_rows=carved,
            quality=dict(sorted(Counter(code for one in usable(looked) for code in one.codes).items())),
            usual_here=usual,
            doubt=doubt,
            **({"fixed_camera": scene_rows} if scene_rows else {}),
        )


def flag_quality(looked: list[CheckedRow]) -> dict[str, int]:
    """Gives each usable row its quality codes; what is too common to be a defect, with the number of such rows."""
    rows = [one for one in usable(looked) if one.row.split != "mixin"]  # what is odd among ours may be usual there
    codes, usual = quality(pd.DataFrame([one.signals for one in rows]))
    for one, found in zip(rows, codes, strict=True):
        one.codes = found
    return usual


def _found(one: CheckedRow, extra: Sequence[pa.Field]) -> dict[str, Any]:
    """The stage's own columns of a row; null where nothing was measured."""
    known = {**one.signals, **one.doubt, "quality": one.codes, "original_label": one.given, "near_group": one.near}
    return {field.name: known.get(field.name) for field in extra}


def _look_at_all(
    collected: Path, params: ValidateParams, facts: WorkspaceConfig, progress: Progress
) -> list[CheckedRow]:
    rows = stream(collected)
    check = partial(look, params=params, facts=facts)
    total = read_manifest(collected)["rows"]["kept"]
    looked: list[CheckedRow] = []
    with ThreadPoolExecutor() as threads:
        while block := list(islice(rows, 256)):
            looked += threads.map(check, block)
            progress("look at rows", len(looked), total)
    return looked


def usable(looked: list[CheckedRow]) -> list[CheckedRow]:
    """The rows that nothing speaks against so far."""
    return [one for one in looked if one.reason is None]


def merge_spellings(looked: list[CheckedRow]) -> dict[str, str]:
    """Labels that differ in case alone become their commonest spelling; gives the spellings that were changed. Another dataset's labels are its own."""
    looked = [one for one in looked if one.row.split != "mixin"]
    counts = Counter(one.row.label for one in looked if one.row.label)
    commonest: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        commonest.setdefault(label.casefold(), label)
    for one in looked:
        if one.row.label:
            one.row = replace(one.row, label=commonest[one.row.label.casefold()])
    return {label: commonest[label.casefold()] for label in sorted(counts) if commonest[label.casefold()] != label}


def reject_copies(looked: list[CheckedRow]) -> None:
    """Of exact copies one stays (test before training before pool); copies whose labels conflict all go."""
    copies: dict[str, list[CheckedRow]] = defaultdict(list)
    for one in usable(looked):
        copies[one.row.id].append(one)
    for same in copies.values():
        ours = [one for one in same if one.row.split != "mixin"] or same
        by_hand = [one for one in ours if one.row.label_source == "human"]
        voters = by_hand or [one for one in ours if one.row.label]
        if len({one.row.label for one in voters}) > 1:
            for one in ours:
                one.reason = "conflicting_labels" if one.row.label else None
        left = sorted(usable(same), key=lambda one: (ORDER[one.row.split], one.row.label_source != "human"))
        for one in left[1:]:
            one.reason = "exact_duplicate"


def group_near_duplicates(looked: list[CheckedRow], params: ValidateParams, facts: WorkspaceConfig) -> int:
    """Gives each usable row its group: the smallest id among what its source says belongs together, or among its near-duplicates. Images of a
    fixed camera are no near-duplicates of one another, unless params say so; gives how many there are.

    Near-duplicates of one source group join it. Those that stand in several (a banner on every page) are a group of their own:
    were they to join them, a few would chain a whole site into one group, which no split can cut.
    """
    _reject_mixed_in_copies(usable(looked), params, facts)
    rows, named = [one for one in usable(looked) if one.row.split != "mixin"], defaultdict(set)
    for one in looked:  # of a copy that goes the group stays with the row that is kept
        if one.row.group is not None:
            named[one.row.id].add(one.row.group)
    sets = near_clusters(rows, params, facts)
    of_scenes = (
        scenes(rows, sets, params.near_duplicate_difference)
        if facts.modality == "image" and params.fixed_camera == "auto"
        else []
    )
    if of_scenes:
        sets = without_scenes(len(rows), sets, of_scenes)
    joined = Clusters(len(rows))
    first_of: dict[str, int] = {}
    for members in sets.members():
        near = min(rows[number].row.id for number in members)
        sources = {name for number in members for name in named[rows[number].row.id]}
        for number in members:
            one = rows[number]
            one.near, one.sources, one.shared = near, frozenset(named[one.row.id]), len(sources) > 1
            joined.join(members[0], number)
        for source in sources if len(sources) == 1 else ():
            joined.join(first_of.setdefault(source, members[0]), members[0])
    for members in joined.members():
        group = min(rows[number].row.id for number in members)
        for number in members:
            rows[number].row = replace(rows[number].row, group=group)
    return sum(len(members) for members in of_scenes)


def near_clusters(rows: list[CheckedRow], params: ValidateParams, facts: WorkspaceConfig) -> Clusters:
    """Which rows are near-duplicates of one another."""
    if facts.modality == "text":
        texts = [str(one.near_key) for one in rows]
        sets = Clusters(len(rows), [one.row.label for one in rows])  # a word may be what tells classes apart
        for pair in equal_texts(texts):
            sets.join(*pair)
        for pair in near_duplicate_texts(texts, params.near_duplicate_similarity, sets.settled):
            sets.join(*pair)
    elif params.fixed_camera is True:
        sets = Clusters(len(rows))
    else:
        sets = Clusters(len(rows))
        hashes = np.array([one.near_key for one in rows], dtype=np.uint64)
        thumbnails = np.array([one.thumbnail for one in rows], dtype=np.uint8).reshape(len(rows), THUMBNAIL_SIDE**2 * 3)
        for pair in near_duplicate_images(
            hashes, thumbnails, bits=params.near_duplicate_bits, difference=params.near_duplicate_difference
        ):
            sets.join(*pair)
    return sets


def _reject_mixed_in_copies(rows: list[CheckedRow], params: ValidateParams, facts: WorkspaceConfig) -> None:
    """Another dataset's rows that come near a labeled row of ours go: every fold's model would learn from them. The others are groups of their own,
    so that they chain none of ours together.
    """
    mixed = [one for one in rows if one.row.split == "mixin"]
    for members in near_clusters(rows, params, facts).members() if mixed else ():
        ours = {rows[number].row.split for number in members} - {"mixin", "pool", "out_of_scope"}
        for number in members if ours else ():
            if rows[number].row.split == "mixin":
                rows[number].reason = f"near_duplicate_of_{min(ours, key=ORDER.__getitem__)}"
    for one in mixed:
        one.near, one.sources, one.shared = one.row.id, frozenset(), False
        one.row = replace(one.row, group=one.row.id)


def reject_leaks(looked: list[CheckedRow]) -> None:
    """Near-duplicates of a test row, and what its source says belongs to it, go from everywhere else, those of a validation row from what is left."""
    for split in ("test", "validation"):
        held_out = [one for one in usable(looked) if one.row.split == split]
        near = {one.near for one in held_out}
        sources = {name for one in held_out if not one.shared for name in one.sources}
        for one in usable(looked):
            if ORDER[one.row.split] <= ORDER[split]:
                continue
            if one.near in near:
                one.reason = f"near_duplicate_of_{split}"
            elif one.sources & sources:
                one.reason = f"same_group_as_{split}"


def reject_small_classes(looked: list[CheckedRow], min_class_rows: int) -> list[str]:
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
            f"At least two classes with {min_class_rows} different labeled rows each are needed; found: {found}. "
            f"Of {len(looked)} rows {_why_rejected(looked)}. "
            "Add labeled rows in data/ (labeled/<class>/, or the label column), or mend those."
        )
    known = set(classes)
    for one in usable(looked):
        if one.row.label and one.row.label not in known and one.row.split != "mixin":
            one.reason = "class_too_small" if one.row.label in groups else "class_not_in_training"
    return classes


def _why_rejected(looked: list[CheckedRow]) -> str:
    reasons = Counter(one.reason for one in looked if one.reason)
    return ", ".join(f"{rows} are rejected as {reason}" for reason, rows in reasons.most_common()) or "none is rejected"


def carve_test_rows(looked: list[CheckedRow], params: ValidateParams, seed: int) -> int:
    """Where no test split is given, takes one from the labeled rows; gives how many. None where it would be too small."""
    if params.test_share == 0 or any(one.row.split == "test" for one in usable(looked)):
        return 0
    labeled = [one for one in usable(looked) if one.row.split == "train" and one.row.label_source == "human"]
    labels, groups = [str(one.row.label) for one in labeled], [str(one.row.group) for one in labeled]
    by_source = {str(one.row.group) for one in labeled if one.near != one.row.group}
    chosen = carve_test(labels, groups, params.test_share, seed, max(2, params.min_class_rows), by_source)
    carved = [one for one in labeled if one.row.group in chosen]
    if len(carved) < params.min_test_rows:
        return 0
    for one in carved:
        one.row = replace(one.row, split="test")
    reject_leaks(looked)
    return len(carved)


def deal_folds(looked: list[CheckedRow], folds: int, seed: int) -> None:
    """Gives every labeled training row its fold; none to the only one of its class, which every model must see."""
    labeled = [one for one in usable(looked) if one.row.split == "train"]
    labels, groups = [str(one.row.label) for one in labeled], [str(one.row.group) for one in labeled]
    fold_of = assign_folds(labels, groups, folds, seed)
    of_class: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        of_class[label].add(group)
    for one in labeled:  # a group may hold several classes, and be all that there is of one of them
        alone = len(of_class[str(one.row.label)]) == 1
        one.row = replace(one.row, fold=None if alone else fold_of.get(str(one.row.group)))
