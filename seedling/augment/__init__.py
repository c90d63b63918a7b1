"""augment: label-preserving augmented rows of the labeled training rows, each with its parent and its recipe.

python -m seedling.runner augment
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from seedling.augment.batches import AugmentBatch, Batching, InheritedColumns, Parent, batches_of
from seedling.augment.makers import Resources, steps_of
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, payloads, read, read_manifest
from seedling.errors import InputError
from seedling.media import texts
from seedling.parallel.pool import in_processes
from seedling.progress import Progress, counted, silent
from seedling.records.stage_notes import AugmentNotes, ClassShares, NotScreened, ScreeningRecord
from seedling.stats.randomness import generator

if TYPE_CHECKING:
    from seedling.augment.cross_fitting import LabelGuard
    from seedling.augment.fold_models import FoldModels
    from seedling.features.classical import FeatureMaker

AUGMENTATIONS_PER_ROW = {"quick": 1, "normal": 2, "thorough": 5}  # by effort
MAX_AUGMENTED_ROWS = 20_000  # in total where augmentations_per_row is not set: more labeled rows need fewer each
MAX_BALANCE_FACTOR = 10  # augmented rows per row of a rare class, in multiples of those per row of the largest class


def augment(  # noqa: PLR0913  (the inputs of a stage, each by its name)
    params: AugmentParams,
    config: WorkspaceConfig,
    *,
    collected: Path,
    validated: Path,
    output: Path,
    data: Path | None = None,
    features: FeatureMaker | None = None,
    progress: Progress = silent,
    batching: Batching | None = None,
) -> None:
    """Write `generations/augment`. Augmented rows inherit split, fold, group, label and weight from their parent.

    data: the folder that holds the thesaurus and the user's plugins.
    features: an unfitted feature maker for `policy: auto` and the label guard; None means no encoder.
    batching: how the work is divided among processes; None for the default.
    """
    _check_modality(params, config)
    # Imported here: worker processes that augment rows need no torch, which takes a second and 200 MB in each of them.
    from seedling.augment.fold_models import FoldModels
    from seedling.augment.resources import resources_of
    from seedling.models.saving import make_features

    classes = list(read_manifest(validated).classes)
    rows = read(validated)
    parents = rows[(rows["split"] == "train") & rows["label"].notna()].set_index("id")
    feature_maker = features or make_features(None, None, config)
    duplicates = DuplicateFilter(rows, config)
    resources = resources_of(params, config, parents, data, feature_maker)
    models = FoldModels(parents, classes, collected, feature_maker, params, config, progress)
    policy, per_row, screening = _choose_policy(models, resources)
    steps = steps_of(policy, config, resources.plugins)
    per_class = balance_counts(Counter(parents["label"]), per_row if steps else 0, params.balance if steps else 0.0)
    count_by_id, obstacle = _count_by_id(models, per_class)
    batch = AugmentBatch(steps, params, config, resources)
    with GenerationWriter(output, stage="augment", modality=config.modality) as writer:
        adversarial_rows = ((row, content_id, None) for row, content_id in models.adversarial_rows())
        policy_rows = _policy_rows(batch, models, count_by_id, batching or Batching())
        rows_in = _write(writer, chain(policy_rows, adversarial_rows), duplicates)
        notes = AugmentNotes(
            augmentations_per_row=per_row,
            policy=tuple({step.name: dict(step.arguments)} for step in steps if any(count_by_id.values())),
            screening=screening,
            class_shares=_class_shares(parents["label"], writer) if params.balance else None,
            hard=obstacle,
        )
        writer.close(rows_in=rows_in, classes=classes, notes=notes)


def _count_by_id(models: FoldModels, per_class: Mapping[str, int]) -> tuple[dict[str, int], str | None]:
    """Return the augmented rows per row, by id, and why hard rows are not favored. per_class: before hardness."""
    strength = models.params.hard
    hardness = models.hardness() if any(per_class.values()) else {}
    counts = favor_hard_rows(models.parents["label"].map(per_class), hardness, strength, models.config.seed)
    return counts, "the hardness of rows could not be estimated" if strength and not hardness else None


def _write(writer: GenerationWriter, rows: Iterable[tuple[Row, str, str | None]], duplicates: DuplicateFilter) -> int:
    """Keep or reject each row (row, content id, reason to reject it), and return the number of rows."""
    rows_in = 0
    for row, content_id, reason in rows:
        rows_in += 1
        if reason := reason or duplicates.reason(row, content_id):
            writer.reject(row, reason)
        else:
            writer.keep(row)
    return rows_in


def _policy_rows(
    batch: AugmentBatch, models: FoldModels, count_by_id: Mapping[str, int], batching: Batching
) -> Iterator[tuple[Row, str, str | None]]:
    """Yield each row that the policy makes, its content id, and the label guard's reason to reject it."""
    total = sum(count_by_id.values())
    if not total:
        return
    guard = models.guard()
    source = (
        Parent(row_id, payload, InheritedColumns.of(models.parents.loc[row_id].to_dict()), range(count_by_id[row_id]))
        for row_id, payload in payloads([models.collected], models.parents.index)
    )
    yield from counted(_augmented_rows(batch, source, guard, batching), models.progress, "augment rows", total)


def _check_modality(params: AugmentParams, config: WorkspaceConfig) -> None:
    if config.modality == "image" and (params.thesaurus or params.protect or params.masked_lm):
        raise InputError(
            "params.yaml: augment.thesaurus, augment.masked_lm and augment.protect apply to texts, but this is an "
            "image workspace: remove them."
        )


def _choose_policy(models: FoldModels, resources: Resources) -> tuple[Any, int, ScreeningRecord | NotScreened | None]:
    """Return the policy, the augmented rows per row and the screening: from params, or screened if `auto`."""
    params, n_parents = models.params, len(models.parents)
    per_row = augmentations_per_row(n_parents, params, models.config)
    if params.policy != "auto":
        return params.policy, per_row, None
    screening, obstacle = models.screen(resources)
    if screening is None:
        return None, per_row, NotScreened(not_screened=obstacle)
    if params.augmentations_per_row is None:
        per_row = min(screening.per_row, MAX_AUGMENTED_ROWS // max(1, n_parents))
    return screening.policy, per_row, screening.record()


class DuplicateFilter:
    """Reject augmented rows that copy a collected row or another augmented row.

    A copy of a row of another fold or of the test split would leak, and a copy of an augmented row would count twice.
    Images are equal if their pixels are equal; texts if they differ in case, punctuation and whitespace only.
    """

    def __init__(self, rows: pd.DataFrame, config: WorkspaceConfig) -> None:
        self._is_text = config.modality == "text"
        held_out = rows["split"].isin(["test", "validation"])
        keys = [texts.normalized(text) for text in rows["text"]] if self._is_text else rows["id"].tolist()
        self._row_ids: dict[str, str] = dict(zip(keys, rows["id"], strict=True))
        self._held_out = {key for key, is_held_out in zip(keys, held_out, strict=True) if is_held_out}
        self._augmented: set[tuple[str, str | None]] = set()

    def reason(self, row: Row, content_id: str) -> str | None:
        """Return the reason to reject the row, or None; a row that passes is remembered.

        content_id: the hash of the row's content alone.
        """
        if content_id == row.parent_ids[0]:
            return "unchanged"
        if self._is_text and not row.payload:
            return "empty"
        key = texts.normalized(str(row.payload)) if self._is_text else content_id
        if key in self._held_out:
            return "near_duplicate_of_test"
        if key in self._row_ids and self._row_ids[key] != row.parent_ids[0]:
            return "copy_of_another_row"
        if (key, row.label) in self._augmented:
            return "exact_duplicate"
        self._augmented.add((key, row.label))
        return None


def augmentations_per_row(n_parents: int, params: AugmentParams, config: WorkspaceConfig) -> int:
    """Return the number of augmented rows per labeled row, before balancing and hardness."""
    if params.augmentations_per_row is not None:
        return params.augmentations_per_row
    return min(AUGMENTATIONS_PER_ROW[config.effort], MAX_AUGMENTED_ROWS // max(1, n_parents))


def balance_counts(rows_per_class: Mapping[str, int], per_row: int, balance: float) -> dict[str, int]:
    """Return the augmented rows per row, by class.

    A class of n rows gets (1 + per_row) * (n_max / n) ** balance - 1, rounded, where n_max is the size of the largest
    class. With balance 1 all classes end up at about the same size, with 0 every row has the same number. The limit is
    MAX_BALANCE_FACTOR times `per_row`.
    """
    n_max = max(rows_per_class.values(), default=0)
    targets = {label: (1 + per_row) * (n_max / n_rows) ** balance - 1 for label, n_rows in rows_per_class.items()}
    limit = MAX_BALANCE_FACTOR * max(1, per_row)
    return {label: min(round(target), limit) for label, target in targets.items()}


def favor_hard_rows(
    count_by_id: pd.Series, hardness: Mapping[str, float], strength: float, seed: int
) -> dict[str, int]:
    """Return the augmented rows per row, by id: count * (1 + strength * (2 * hardness - 1)).

    count_by_id: the number per row before, indexed by id.
    strength: 0 keeps the counts; 1 gives none to the easiest row of a class and twice as many to the hardest.
    A fractional part is a probability, drawn per row id.
    """
    counts = zip(count_by_id.index, count_by_id, strict=True)
    if not hardness or not strength:
        return {row_id: int(count) for row_id, count in counts}
    targets = {row_id: count * (1 + strength * (2 * hardness[row_id] - 1)) for row_id, count in counts}
    return {
        row_id: int(target) + int(generator(seed, "hard", row_id).random() < target % 1)
        for row_id, target in targets.items()
    }


def _class_shares(labels: pd.Series, writer: GenerationWriter) -> ClassShares:
    """Return the share of the training rows per class, before and after augmentation."""
    before = Counter(labels)
    after = before + Counter(dict.fromkeys(before, 0))
    for (_, label, _), n_rows in writer.kept.items():
        after[label] += n_rows
    shares_before, shares_after = (
        {label: round(n_rows / counts.total(), 6) for label, n_rows in sorted(counts.items())}
        for counts in (before, after)
    )
    return ClassShares(before=shares_before, after=shares_after)


def _augmented_rows(
    batch: AugmentBatch, parents: Iterator[Parent], guard: LabelGuard | None, batching: Batching
) -> Iterator[tuple[Row, str, str | None]]:
    """Yield each augmented row in the order of the parents, its content id, and the reason to reject it.

    Images are augmented by several processes. Texts are not: they are fast, or they wait for a language model.
    """
    batches = batches_of(parents, batching)
    parts: Iterable[list[tuple[Row, str, str | None]]] = (
        in_processes(batch, batches, local_seconds=batching.local_seconds, processes=batching.processes)
        if batch.config.modality == "image"
        else map(batch, batches)
    )
    for rows in parts:
        candidates = (
            [(row.parent_ids[0], row.payload or "") for row, _, reason in rows if reason is None] if guard else []
        )
        label_changes = iter(guard.label_changes(candidates) if guard and candidates else ())
        for row, content_id, reason in rows:
            yield row, content_id, reason or ("label_changed" if guard and next(label_changes) else None)
