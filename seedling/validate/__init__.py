"""validate: reject unusable rows, find duplicates and leaks, and assign splits and folds.

python -m seedling.runner validate
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, read_manifest, stream
from seedling.dataset.schema import is_human_label
from seedling.errors import InputError
from seedling.features.classical import FeatureMaker
from seedling.features.image_cache import ImageCache
from seedling.media.image_signals import THUMBNAIL_SIDE
from seedling.models.saving import make_features
from seedling.progress import Progress, silent
from seedling.records.stage_notes import ValidateNotes
from seedling.validate.checks import CheckedRow, check_row
from seedling.validate.duplicates import Clusters, equal_texts, near_duplicate_images, near_duplicate_texts
from seedling.validate.fixed_camera import scenes, without_scenes
from seedling.validate.label_checks import check_labels
from seedling.validate.quality_flags import quality
from seedling.validate.reviews import apply_decisions, copied_decisions, with_test_rows
from seedling.validate.splits import assign_folds, carve_test

METRIC_FIELDS: dict[str, list[pa.Field[Any]]] = {
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
CHECK_FIELDS: list[pa.Field[Any]] = [
    pa.field("nearest_labeled", pa.float32()),
    pa.field("quality", pa.list_(pa.string())),
    pa.field("p_label_error", pa.float32()),
    pa.field("suggested_label", pa.string()),
    pa.field("is_label_issue", pa.bool_()),
    pa.field("original_label", pa.string()),
]
GROUP_FIELDS: list[pa.Field[Any]] = [pa.field("near_group", pa.string())]  # only if sources define groups
SPLIT_PRIORITY = {"test": 0, "validation": 1, "train": 2, "pool": 3, "out_of_scope": 4, "mixin": 5}
"""Of copies in several splits, the one in the split with the smallest number is kept."""
CHECK_BATCH_ROWS = 256


def validate(  # noqa: PLR0913  (the inputs of the stage, each by its name)
    params: ValidateParams,
    config: WorkspaceConfig,
    *,
    collected: Path,
    output: Path,
    reviews: Path | None = None,
    features: FeatureMaker | None = None,
    image_cache: ImageCache | None = None,
    progress: Progress = silent,
) -> None:
    """Write `generations/validate`: the collected rows without images, and a copy of the review log.

    Each row has its label, split, fold and group, its quality metrics, and the probability of a label error.

    reviews: the folder of the review log, None without one.
    features: computes the features for the label checks, not fitted yet; None: the features without an encoder.
    image_cache: what scrape measured on each image; None: all images are decoded again.

    Raises InputError if fewer than two classes are left.
    """
    rows_in = read_manifest(collected).rows.kept
    checked_rows = _check_rows(collected, params, config, image_cache, progress)
    review_notes = None if reviews is None else apply_decisions(checked_rows, copied_decisions(reviews, output))
    spellings = merge_spellings(checked_rows) if params.merge_case else {}
    has_groups = any(checked.row.group is not None for checked in checked_rows)
    reject_copies(checked_rows)
    scene_rows = group_near_duplicates(checked_rows, params, config)
    reject_leaks(checked_rows)
    classes = reject_small_classes(checked_rows, params.min_class_rows)
    carved = carve_test_rows(checked_rows, params, config.seed)
    deal_folds(checked_rows, params.folds, config.seed)
    usual = flag_quality(checked_rows)
    maker = features or make_features(None, None, config)
    label_issues = check_labels(checked_rows, classes, maker, collected, params, config, progress)
    extra = METRIC_FIELDS[config.modality] + CHECK_FIELDS + (GROUP_FIELDS if has_groups else [])
    with GenerationWriter(output, stage="validate", modality=config.modality, images=False, extra=extra) as writer:
        _write_rows(writer, checked_rows, extra)
        codes = Counter(code for checked in usable(checked_rows) for code in checked.quality_codes)
        notes = ValidateNotes(
            merged_spellings=spellings,
            carved_test_rows=len(carved),
            quality=dict(sorted(codes.items())),
            usual_quality_codes=usual,
            label_issues=label_issues,
            fixed_camera=scene_rows,
            reviews=with_test_rows(review_notes, carved),
        )
        writer.close(rows_in=rows_in, classes=classes, notes=notes)


def _write_rows(writer: GenerationWriter, checked_rows: Sequence[CheckedRow], extra: Sequence[pa.Field[Any]]) -> None:
    for checked in checked_rows:
        row = replace(checked.row, extra=_extra_columns(checked, extra))
        if checked.reason:
            writer.reject(row, checked.reason)
        else:
            writer.keep(row)


def flag_quality(checked_rows: list[CheckedRow]) -> dict[str, int]:
    """Set the quality codes of each usable row.

    Returns the codes that are too common to be defects, with their numbers of rows. Mixed-in rows are left out, because
    what is unusual here may be usual in another dataset.
    """
    rows = [checked for checked in usable(checked_rows) if checked.row.split != "mixin"]
    codes, usual = quality(pd.DataFrame([checked.signals for checked in rows]))
    for checked, row_codes in zip(rows, codes, strict=True):
        checked.quality_codes = row_codes
    return usual


def _extra_columns(checked: CheckedRow, extra: Sequence[pa.Field[Any]]) -> dict[str, Any]:
    """The stage's own columns of a row; null if nothing was measured."""
    values = {
        **checked.signals,
        **({} if checked.label_issue is None else asdict(checked.label_issue)),
        "quality": checked.quality_codes,
        "original_label": checked.original_label,
        "near_group": checked.near_group,
    }
    return {field.name: values.get(field.name) for field in extra}


def _check_rows(
    collected: Path, params: ValidateParams, config: WorkspaceConfig, cache: ImageCache | None, progress: Progress
) -> list[CheckedRow]:
    rows, check = stream(collected), partial(check_row, params=params, config=config)
    total = read_manifest(collected).rows.kept
    checked_rows: list[CheckedRow] = []
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(rows, CHECK_BATCH_ROWS)):
            signals = {} if cache is None else cache.signals([row.id for row in batch])
            checked_rows += threads.map(check, batch, [signals.get(row.id) for row in batch])
            progress("check rows", len(checked_rows), total)
    return checked_rows


def usable(checked_rows: list[CheckedRow]) -> list[CheckedRow]:
    """The rows that are not rejected so far."""
    return [checked for checked in checked_rows if checked.reason is None]


def merge_spellings(checked_rows: list[CheckedRow]) -> dict[str, str]:
    """Give labels that differ only in case their most common spelling. Returns changed spelling → new spelling.

    The labels of mixed-in datasets are left as they are.
    """
    rows = [checked for checked in checked_rows if checked.row.split != "mixin"]
    counts = Counter(checked.row.label for checked in rows if checked.row.label)
    most_common: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        most_common.setdefault(label.casefold(), label)
    for checked in rows:
        if checked.row.label:
            checked.row = replace(checked.row, label=most_common[checked.row.label.casefold()])
    return {label: most_common[label.casefold()] for label in sorted(counts) if most_common[label.casefold()] != label}


def reject_copies(checked_rows: list[CheckedRow]) -> None:
    """Keep one of several exact copies, by `SPLIT_PRIORITY`; reject all copies if their labels conflict."""
    copies_by_id: dict[str, list[CheckedRow]] = defaultdict(list)
    for checked in usable(checked_rows):
        copies_by_id[checked.row.id].append(checked)
    for copies in copies_by_id.values():
        candidates = [checked for checked in copies if checked.row.split != "mixin"] or copies
        by_hand = [checked for checked in candidates if is_human_label(checked.row.label_source)]
        voters = by_hand or [checked for checked in candidates if checked.row.label]
        if len({checked.row.label for checked in voters}) > 1:
            for checked in candidates:
                checked.reason = "conflicting_labels" if checked.row.label else None
        remaining = sorted(usable(copies), key=_copy_priority)
        for checked in remaining[1:]:
            checked.reason = "exact_duplicate"


def _copy_priority(checked: CheckedRow) -> tuple[int, bool]:
    return SPLIT_PRIORITY[checked.row.split], not is_human_label(checked.row.label_source)


def group_near_duplicates(checked_rows: list[CheckedRow], params: ValidateParams, config: WorkspaceConfig) -> int:
    """Set the group of each usable row to the smallest id in its source group or set of near-duplicates.

    Images of one fixed-camera scene do not count as near-duplicates of one another unless params say so. Returns the
    number of such images.

    Near-duplicates in one source group join it. Near-duplicates in several source groups (a banner on every page) form
    their own group: if they joined all of them, a few would chain a whole site into one group that cannot be split.
    """
    _reject_mixed_in_copies(usable(checked_rows), params, config)
    rows = [checked for checked in usable(checked_rows) if checked.row.split != "mixin"]
    source_groups: dict[str, set[str]] = defaultdict(set)
    for checked in checked_rows:  # the kept row also belongs to the groups of its rejected copies
        if checked.row.group is not None:
            source_groups[checked.row.id].add(checked.row.group)
    near = near_clusters(rows, params, config)
    scene_sets = (
        scenes(rows, near, params.near_duplicate_difference)
        if config.modality == "image" and params.fixed_camera == "auto"
        else []
    )
    if scene_sets:
        near = without_scenes(len(rows), near, scene_sets)
    for members in _join_source_groups(rows, near, source_groups).members():
        group = min(rows[number].row.id for number in members)
        for number in members:
            rows[number].row = replace(rows[number].row, group=group)
    return sum(len(members) for members in scene_sets)


def _join_source_groups(rows: list[CheckedRow], near: Clusters, source_groups: dict[str, set[str]]) -> Clusters:
    """Join near-duplicates with the source group they share, and note the groups in the rows.

    source_groups: row id → the groups that its sources define.
    """
    joined = Clusters(len(rows))
    first_of_source: dict[str, int] = {}
    for members in near.members():
        near_group = min(rows[number].row.id for number in members)
        sources = {source for number in members for source in source_groups[rows[number].row.id]}
        for number in members:
            checked = rows[number]
            checked.near_group, checked.spans_sources = near_group, len(sources) > 1
            checked.source_groups = frozenset(source_groups[checked.row.id])
            joined.join(members[0], number)
        for source in sources if len(sources) == 1 else ():
            joined.join(first_of_source.setdefault(source, members[0]), members[0])
    return joined


def near_clusters(rows: list[CheckedRow], params: ValidateParams, config: WorkspaceConfig) -> Clusters:
    """The sets of near-duplicate rows."""
    clusters = Clusters(len(rows))
    if config.modality == "text":
        texts = [str(checked.near_key) for checked in rows]
        # Near-duplicate texts with different labels stay apart: one word may tell the classes apart.
        clusters = Clusters(len(rows), [checked.row.label for checked in rows])
        for pair in equal_texts(texts):
            clusters.join(*pair)
        for pair in near_duplicate_texts(texts, params.near_duplicate_similarity, clusters.settled):
            clusters.join(*pair)
    elif params.fixed_camera is not True:
        hashes = np.array([checked.near_key for checked in rows], dtype=np.uint64)
        thumbnails = np.array([checked.thumbnail for checked in rows], dtype=np.uint8)
        for pair in near_duplicate_images(
            hashes,
            thumbnails.reshape(len(rows), THUMBNAIL_SIDE**2 * 3),
            bits=params.near_duplicate_bits,
            difference=params.near_duplicate_difference,
        ):
            clusters.join(*pair)
    return clusters


def _reject_mixed_in_copies(rows: list[CheckedRow], params: ValidateParams, config: WorkspaceConfig) -> None:
    """Reject mixed-in rows that are near-duplicates of a labeled row, because every fold's model would learn from them.

    The other mixed-in rows form groups of their own, so that they do not chain other rows together.
    """
    mixed_in = [checked for checked in rows if checked.row.split == "mixin"]
    for members in near_clusters(rows, params, config).members() if mixed_in else ():
        splits = {rows[number].row.split for number in members} - {"mixin", "pool", "out_of_scope"}
        for number in members if splits else ():
            if rows[number].row.split == "mixin":
                rows[number].reason = f"near_duplicate_of_{min(splits, key=SPLIT_PRIORITY.__getitem__)}"
    for checked in mixed_in:
        checked.near_group, checked.source_groups, checked.spans_sources = checked.row.id, frozenset(), False
        checked.row = replace(checked.row, group=checked.row.id)


def reject_leaks(checked_rows: list[CheckedRow]) -> None:
    """Reject rows of other splits that are near-duplicates or in the source group of a held-out row.

    The test split comes first, then the validation split.
    """
    for split in ("test", "validation"):
        held_out = [checked for checked in usable(checked_rows) if checked.row.split == split]
        near_groups = {checked.near_group for checked in held_out}
        sources = {source for checked in held_out if not checked.spans_sources for source in checked.source_groups}
        for checked in usable(checked_rows):
            if SPLIT_PRIORITY[checked.row.split] <= SPLIT_PRIORITY[split]:
                continue
            if checked.near_group in near_groups:
                checked.reason = f"near_duplicate_of_{split}"
            elif checked.source_groups & sources:
                checked.reason = f"same_group_as_{split}"


def reject_small_classes(checked_rows: list[CheckedRow], min_class_rows: int) -> list[str]:
    """Reject the rows of classes with too few training groups, and held-out rows of other classes.

    Returns the remaining classes, sorted. Raises InputError if fewer than two are left.
    """
    groups_by_label: dict[str, set[str | None]] = defaultdict(set)
    for checked in usable(checked_rows):
        if checked.row.split == "train" and checked.row.label:
            groups_by_label[checked.row.label].add(checked.row.group)
    classes = sorted(label for label, groups in groups_by_label.items() if len(groups) >= min_class_rows)
    if len(classes) < 2:
        counts = ", ".join(f"'{label}' ({len(groups)})" for label, groups in sorted(groups_by_label.items())) or "none"
        raise InputError(
            f"At least two classes with {min_class_rows} different labeled rows each are required; found: {counts}. "
            f"Of {len(checked_rows)} rows, {_rejection_summary(checked_rows)}. "
            "Label rows with `seedling review`, add labeled rows in data/ (labeled/<class>/, or the label column), or "
            "fix the rejected ones."
        )
    known_classes = set(classes)
    for checked in usable(checked_rows):
        if checked.row.label and checked.row.label not in known_classes and checked.row.split != "mixin":
            checked.reason = "class_too_small" if checked.row.label in groups_by_label else "class_not_in_training"
    return classes


def _rejection_summary(checked_rows: list[CheckedRow]) -> str:
    reasons = Counter(checked.reason for checked in checked_rows if checked.reason)
    return ", ".join(f"{rows} were rejected as {reason}" for reason, rows in reasons.most_common()) or "0 were rejected"


def carve_test_rows(checked_rows: list[CheckedRow], params: ValidateParams, seed: int) -> list[CheckedRow]:
    """Move labeled rows to the test split if the data has no test split. Returns the moved rows.

    Moves no row if the test split would have fewer than `min_test_rows`.
    """
    if params.test_share == 0 or any(checked.row.split == "test" for checked in usable(checked_rows)):
        return []
    training = [checked for checked in usable(checked_rows) if checked.row.split == "train"]
    labeled = [checked for checked in training if is_human_label(checked.row.label_source)]
    # Reviewers are asked about doubtful rows, so a test split of rows that only they have labeled would be too hard.
    labeled = [checked for checked in labeled if not checked.is_labeled_by_review] or labeled
    labels, groups = [str(checked.row.label) for checked in labeled], [str(checked.row.group) for checked in labeled]
    by_source = {str(checked.row.group) for checked in labeled if checked.near_group != checked.row.group}
    chosen = carve_test(labels, groups, params.test_share, seed, max(2, params.min_class_rows), by_source)
    carved = [checked for checked in labeled if checked.row.group in chosen]
    if len(carved) < params.min_test_rows:
        return []
    for checked in carved:
        checked.row = replace(checked.row, split="test")
    reject_leaks(checked_rows)
    return carved


def deal_folds(checked_rows: list[CheckedRow], folds: int, seed: int) -> None:
    """Set the fold of every labeled training row.

    The only group of a class gets no fold, because every model must see it.
    """
    labeled = [checked for checked in usable(checked_rows) if checked.row.split == "train"]
    labels, groups = [str(checked.row.label) for checked in labeled], [str(checked.row.group) for checked in labeled]
    fold_by_group = assign_folds(labels, groups, folds, seed)
    groups_by_label: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        groups_by_label[label].add(group)
    for checked in labeled:  # a group with several classes may be the only group of one of them
        is_only_group = len(groups_by_label[str(checked.row.label)]) == 1
        fold = None if is_only_group else fold_by_group.get(str(checked.row.group))
        checked.row = replace(checked.row, fold=fold)
