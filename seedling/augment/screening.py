"""`augment.policy: auto`: which operations help this data, how strong, and how many augmented rows per row.

Learners of round 0 are cross-fitted on the training folds with and without the augmented rows of a policy: a paired
comparison on the same evaluation rows. Policies go through successive halving (Jamieson and Talwalkar 2016):

1. each operation, with one augmented row per row and logistic regression;
2. the best third of the operations at other strengths;
3. combinations of the operations that helped, and the presets, with all learners of the train stage;
4. the best combination and the best preset with more augmented rows per row;
5. both once more, on other folds and with other augmented rows.

A policy that does not help in step 5 is dropped, so the answer may be no augmentation. No rule forbids an operation,
such as flipping a digit: the comparison rejects it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.augment import catalog, sentences
from seedling.augment.catalog import CannotChange
from seedling.augment.cross_fitting import QUICK_LEARNER, AugmentedRows, LabeledRows, cross_fit, probabilities_of
from seedling.augment.makers import Maker, Resources, maker_of, steps_of
from seedling.config.params import WorkspaceConfig
from seedling.errors import InputError
from seedling.media.decoded_images import DecodedImages
from seedling.models.training import FitContext
from seedling.parallel.executor import in_threads
from seedling.progress import Progress
from seedling.records.intervals import DifferenceRecord
from seedling.records.stage_notes import PolicyTrial, ScreeningRecord
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Difference, Floats, Ints, log_loss_of_rows, paired_difference

MAX_SCREENED_ROWS = {"quick": 150, "normal": 400, "thorough": 2_000}  # by effort
MIN_SCREENED_ROWS = 20
KEPT_OPERATIONS_DIVISOR, MIN_KEPT_OPERATIONS = 3, 6  # a third of the operations passes step 1, but at least six
COMBINED_PROBABILITY = 0.5  # of each operation in a combination
COMBINATION_SIZES = (3, 8)  # operations
ROWS_PER_PARENT = (1, 2, 5)
NETWORK_STEPS = {"quick": 0, "normal": 120, "thorough": 600}  # the network is a learner for images without an encoder
MAX_P_WORSE = 0.2  # a policy helps if its probability of being worse is below
MAX_P_WORSE_PRESET = 0.4  # the same for presets, which are known to help on similar data
N_BOOTSTRAP_DRAWS = 2_000

Candidate = tuple[str, list[Any], int]  # name, policy, augmented rows per row


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy and its effect.

    policy: in the form of params.yaml; accuracy, log_loss: with augmented rows minus without, on the same rows;
    label_changes: of the augmented rows whose parent the out-of-fold model classifies correctly, the share that it
    assigns to another class.
    """

    name: str
    policy: list[Any]
    per_row: int
    accuracy: Difference
    log_loss: Difference
    label_changes: float

    def record(self, kept: bool) -> PolicyTrial:
        """Return the entry for the manifest."""
        return PolicyTrial(
            name=self.name,
            augmentations_per_row=self.per_row,
            accuracy=DifferenceRecord.of(self.accuracy),
            log_loss=DifferenceRecord.of(self.log_loss),
            label_changes=round(self.label_changes, 6),
            kept=kept,
        )


@dataclass(frozen=True, slots=True)
class Screening:
    """The outcome. policy: in the form of params.yaml, empty if nothing helps.

    per_row: augmented rows per row, 0 if nothing helps; rows: how many evaluation rows; confirmed: the best policy on
    other folds and with other augmented rows; results: entries for the manifest.
    """

    policy: list[Any]
    per_row: int
    rows: int
    confirmed: PolicyResult
    results: list[PolicyTrial]

    def record(self) -> ScreeningRecord:
        """Return the note for the manifest."""
        confirmed = self.confirmed.record(kept=bool(self.policy))
        return ScreeningRecord(rows=self.rows, policy=self.policy, confirmed=confirmed, trials=tuple(self.results))


class CannotScreen(ValueError):
    """Too few rows or folds for a screening."""


def screen(
    parents: LabeledRows, weight: float, config: WorkspaceConfig, resources: Resources, progress: Progress
) -> Screening:
    """Screen the operations on these rows. weight: of an augmented row, a factor on its parent's weight.

    Raises CannotScreen for fewer than two folds, or fewer than MIN_SCREENED_ROWS rows in them.
    """
    rows = np.flatnonzero(parents.fold >= 0)
    if len(np.unique(parents.fold[rows])) < 2 or len(rows) < MIN_SCREENED_ROWS:
        raise CannotScreen("fewer than twenty labeled rows are in folds, or all of them are in one fold")
    parents.features.transform(parents.payloads[:1])  # loads an encoder once, before threads use it
    conditions = _Conditions(rows, weight, config, resources, progress)
    trial = _Trial(parents, conditions)
    first, second, best = _screen_operations(trial)

    learners = _learners(parents, config)
    finals = _Trial(parents, conditions, learners)
    third = finals.run(_combinations(best, config))
    finalists = _best_search_and_preset(third, config)
    # A candidate's name also seeds its bootstrap draws: a new wording would change the results.
    fourth = finals.run(
        [
            (f"{result.name}, {count} per row", result.policy, count)
            for result in finalists
            for count in ROWS_PER_PARENT
            if count > 1
        ]
    )
    finalists = [
        min([result, *(other for other in fourth if other.policy == result.policy)], key=_log_loss)
        for result in finalists
    ]
    # The best of many candidates is favored by these folds and augmented rows: both are drawn again.
    other_folds = parents.reassign_folds(config.seed)
    confirmation = _Trial(other_folds, conditions, learners, draw="again")
    fifth = confirmation.run([(result.name, result.policy, result.per_row) for result in finalists])
    return _outcome(len(rows), [*first, *second], best, [*third, *fourth], finalists, fifth)


def _screen_operations(trial: _Trial) -> tuple[list[PolicyResult], list[PolicyResult], list[PolicyResult]]:
    """Return the results of steps 1 and 2, and the best result of each operation that passed step 1."""
    config = trial.config
    graded, names = _operation_names(config, trial.resources, trial.parents)
    first = trial.run([(name, [name], 1) for name in names])
    passed = sorted(first, key=_log_loss_high)[: max(MIN_KEPT_OPERATIONS, len(names) // KEPT_OPERATIONS_DIVISOR)]
    strengths = (catalog if config.modality == "image" else sentences).SCREENED_STRENGTHS
    second = trial.run(
        [
            (f"{result.name} {strength:g}", [{result.name: strength}], 1)
            for result in passed
            for strength in strengths
            if result.name in graded
        ]
    )
    best = [
        min([result, *(other for other in second if result.name in other.policy[0])], key=_log_loss_high)
        for result in passed
    ]
    return first, second, best


def _combinations(best: Sequence[PolicyResult], config: WorkspaceConfig) -> list[Candidate]:
    """Return combinations of the operations that help, or each alone if there are too few, and the presets."""
    helpful = sorted((result for result in best if result.log_loss.probability_worse < MAX_P_WORSE), key=_log_loss_high)
    sizes = sorted({min(size, len(helpful)) for size in COMBINATION_SIZES} - {0, 1})
    candidates: list[Candidate] = [
        (f"the best {size}", _combine([result.policy[0] for result in helpful[:size]], config), 1) for size in sizes
    ]
    if not candidates:
        candidates = [(result.name, result.policy, 1) for result in helpful]
    return candidates + [(name, policy, 1) for name, policy in _presets(config)]


def _best_search_and_preset(results: Sequence[PolicyResult], config: WorkspaceConfig) -> list[PolicyResult]:
    """Return the best screened combination, if any, and the best preset."""
    preset_names = {name for name, _ in _presets(config)}
    searched = [result for result in results if result.name not in preset_names]
    presets = [result for result in results if result.name in preset_names]
    return [min(group, key=_log_loss) for group in (searched, presets) if group]


def _outcome(
    n_rows: int,
    single: Sequence[PolicyResult],
    best: Sequence[PolicyResult],
    combined: Sequence[PolicyResult],
    finalists: Sequence[PolicyResult],
    confirmed: Sequence[PolicyResult],
) -> Screening:
    """Return the finalist with the lowest log-loss of those that help, or none. confirmed: of finalists, in order."""
    preset = finalists[-1]
    helpful = [
        result
        for result in confirmed
        if result.log_loss.probability_worse < (MAX_P_WORSE_PRESET if result.policy == preset.policy else MAX_P_WORSE)
    ]
    lowest = min(helpful or confirmed, key=_log_loss)
    winner = finalists[confirmed.index(lowest)]
    selected = lowest if helpful else None
    selected_names = {*_names_in(selected)} if selected else set()
    results = [
        result.record(kept=result.per_row == 1 and result in best and bool(selected_names & {*_names_in(result)}))
        for result in single
    ]
    results += [result.record(kept=selected is not None and result is winner) for result in combined]
    policy, per_row = (selected.policy, selected.per_row) if selected else ([], 0)
    return Screening(policy, per_row, n_rows, lowest, results)


def _log_loss_high(result: PolicyResult) -> float:
    """The upper end of the log-loss interval, which penalizes large changes on few rows."""
    return result.log_loss.high


def _log_loss(result: PolicyResult) -> float:
    return result.log_loss.value


def _names_in(result: PolicyResult) -> list[str]:
    return [name for entry in result.policy for name in ([entry] if isinstance(entry, str) else entry)]


def _operation_names(config: WorkspaceConfig, resources: Resources, parents: LabeledRows) -> tuple[set[str], list[str]]:
    """Return the operations with a strength, and all operations.

    Of the plugins only those that augment a row count: others may be object finders or helper functions.
    """
    payload = parents.payloads[0]
    plugins = [name for name in resources.plugins if _can_augment(name, config, resources, payload)]
    if config.modality == "image":
        graded = {name for name, operation in catalog.OPERATIONS.items() if operation.graded}
        return graded, [*catalog.OPERATIONS, *plugins]
    names = [name for name in sentences.OPERATIONS if name != "synonym" or resources.context.near]
    return {*names} - {"case"}, [*names, *plugins]


def _can_augment(name: str, config: WorkspaceConfig, resources: Resources, payload: Any) -> bool:
    try:
        maker_of(steps_of([name], config, resources.plugins), config, resources)(payload, 0)
    except (InputError, CannotChange):
        return False
    return True


def _presets(config: WorkspaceConfig) -> list[tuple[str, list[Any]]]:
    """Return policies that help on many datasets; each of their operations alone may have too small an effect."""
    default = [{step.name: dict(step.arguments)} for step in steps_of(None, config, {})]
    if config.modality == "text":
        return [("usual", default)]
    return [("usual", default), *((name, [*policy]) for name, policy in catalog.PRESETS.items())]


def _learners(parents: LabeledRows, config: WorkspaceConfig) -> tuple[str, ...]:
    has_network = parents.inputs.images is not None and config.modality == "image" and NETWORK_STEPS[config.effort] > 0
    return (QUICK_LEARNER, "network") if has_network else (QUICK_LEARNER,)


def _combine(entries: Sequence[Any], config: WorkspaceConfig) -> list[Any]:
    """Return one policy of several entries: images go through each with COMBINED_PROBABILITY, a text through one."""
    if config.modality == "text":
        return list(entries)
    order = list(catalog.OPERATIONS)
    policy: list[Any] = []
    has_residual = False
    for entry in entries:
        ((name, strength),) = entry.items() if isinstance(entry, dict) else [(entry, None)]
        if name in catalog.RESIDUAL_OPERATIONS and has_residual:  # two of them leave a blank image
            continue
        has_residual |= name in catalog.RESIDUAL_OPERATIONS
        if name in catalog.OPERATIONS:
            strength_argument = {} if strength is None else {"strength": strength}
            policy.append({name: {**strength_argument, "p": COMBINED_PROBABILITY}})
        else:
            policy.append(entry)
    return sorted(policy, key=lambda entry: order.index(next(iter(entry))) if isinstance(entry, dict) else len(order))


@dataclass(frozen=True, slots=True)
class _Conditions:
    """What all comparisons of one screening have in common. weight: of an augmented row."""

    evaluation_rows: NDArray[np.intp]
    weight: float
    config: WorkspaceConfig
    resources: Resources
    progress: Progress


class _Trial:
    """Comparisons of policies on the same evaluation rows with the same learners, against no augmentation."""

    def __init__(
        self,
        parents: LabeledRows,
        conditions: _Conditions,
        learners: tuple[str, ...] = (QUICK_LEARNER,),
        draw: str = "",
    ) -> None:
        """draw: seeds the augmented rows, beside the workspace's seed."""
        evaluation_rows, config = conditions.evaluation_rows, conditions.config
        self.parents, self.evaluation_rows, self.weight = parents, evaluation_rows, conditions.weight
        self.config, self.resources, self._progress, self._draw = (
            config,
            conditions.resources,
            conditions.progress,
            draw,
        )
        self._decode = DecodedImages(config.max_megapixels)
        self._labels: Ints = parents.labels[evaluation_rows]
        self._groups = parents.groups[evaluation_rows]
        self._context = FitContext(parents.classes, config.seed, NETWORK_STEPS[config.effort] or 1)
        fits = in_threads(
            lambda learner: cross_fit(parents, evaluation_rows, None, self._context, learner), list(learners)
        )
        self._baseline = {learner: probabilities for learner, (probabilities, _) in zip(learners, fits, strict=True)}
        self._models = fits[0][1]
        self._done = self._total = 0

    def run(self, candidates: Sequence[Candidate]) -> list[PolicyResult]:
        """Compare each candidate with no augmentation, in parallel threads."""
        self._total += len(candidates)
        return in_threads(self._compare, list(candidates))

    def _compare(self, candidate: Candidate) -> PolicyResult:
        """Average correctness and log-loss over the learners, and compare them row by row."""
        name, policy, per_row = candidate
        maker = maker_of(steps_of(policy, self.config, self.resources.plugins), self.config, self.resources)
        augmented = self._augment(maker, per_row)
        labels, n_learners = self._labels, len(self._baseline)
        correct, loss = np.zeros((2, len(labels))), np.zeros((2, len(labels)))
        for learner, before in self._baseline.items():
            after, _ = cross_fit(self.parents, self.evaluation_rows, augmented, self._context, learner)
            correct += np.stack([scores.argmax(axis=1) == labels for scores in (before, after)]) / n_learners
            loss += np.stack([log_loss_of_rows(scores, labels) for scores in (before, after)]) / n_learners
        rng = np.random.default_rng(derived_seed(self.config.seed, "screening", name))
        accuracy = paired_difference(
            correct[0],
            correct[1],
            self._groups,
            larger_is_better=True,
            draws=N_BOOTSTRAP_DRAWS,
            rng=rng,
            wrong=1 / n_learners,
        )
        log_loss = paired_difference(
            loss[0], loss[1], self._groups, larger_is_better=False, draws=N_BOOTSTRAP_DRAWS, rng=rng
        )
        self._done += 1
        self._progress("screen operations", self._done, self._total)
        return PolicyResult(name, policy, per_row, accuracy, log_loss, self._label_change_share(augmented))

    def _augment(self, maker: Maker, per_row: int) -> AugmentedRows:
        payloads, parent_index = [], []
        for row, (parent_id, payload) in enumerate(zip(self.parents.ids, self.parents.payloads, strict=True)):
            decoded = self._decode(payload) if isinstance(payload, bytes) else maker.read(payload)
            for number in range(per_row):
                seed = derived_seed(self.config.seed, "screening", self._draw, parent_id, number)
                try:
                    augmented = maker.make(decoded, seed)
                except CannotChange:
                    continue
                payloads.append(augmented.payload)
                parent_index.append(row)
        inputs = self.parents.features.transform(payloads)
        return AugmentedRows(inputs, np.array(parent_index, dtype=np.intp), self.weight)

    def _label_change_share(self, augmented: AugmentedRows) -> float:
        """Return PolicyResult.label_changes, by the quick learner's models without augmentation."""
        parent_index, baseline = augmented.parent_index, self._baseline[QUICK_LEARNER]
        evaluation_index = np.full(len(self.parents.ids), -1, dtype=np.intp)
        evaluation_index[self.evaluation_rows] = np.arange(len(self.evaluation_rows))
        parent_correct = np.zeros(len(parent_index), dtype=bool)
        augmented_correct = np.zeros(len(parent_index), dtype=bool)
        for fold, model in self._models.items():
            in_fold = np.flatnonzero(self.parents.fold[parent_index] == fold)
            if len(in_fold):
                probabilities: Floats = probabilities_of(model, augmented.inputs.take(in_fold))
                labels = self.parents.labels[parent_index[in_fold]]
                parent_probabilities = baseline[evaluation_index[parent_index[in_fold]]]
                parent_correct[in_fold] = parent_probabilities.argmax(axis=1) == labels
                augmented_correct[in_fold] = probabilities.argmax(axis=1) == labels
        return float(1 - augmented_correct[parent_correct].mean()) if parent_correct.any() else 0.0
