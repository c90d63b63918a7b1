"""Measure choices of the method on many small tasks: chosen on some sources of data, proven on others.

    python benchmarks/proving_ground.py --data FOLDER --backbone FOLDER [--draws 5] [--cache FOLDER]
        [--sources SOURCE ...] [--methods METHOD ...] [--name NAME]

FOLDER holds one folder per set with data.parquet (id, split, label, and text or image), and `bccd` with annotated
images of blood cells. Each task draws classes, labels per class, the pool and the test rows from one source; some
tasks have unequal classes or wrong labels. Whole sources are either in "choose" or in "prove": a change of the method
is made if it helps on the first, and kept if it helps on the second, too.

The tasks run the code of the stages `train` and `pseudo_label` on features that are computed once: no files, gates or
fine-tuning, so that hundreds of tasks take minutes. Peers get the features of the same encoder. All systems are
evaluated on the same test rows, which no choice uses. A model harms a task if it is less accurate than round 0 by more
than one standard error of the paired difference.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
from few_labels import SUPERVISED_PEERS
from numpy.typing import NDArray
from record import Measurement, mean_with_interval, write
from scipy.stats import spearmanr
from task_sources import SOURCES, Features, Source, combined, features_of

from seedling.config.params import EncoderParams, Filter, PseudoLabelParams, TrainParams
from seedling.dataset.training_rows import TrainingRows, pool_halves
from seedling.features.classical import Inputs
from seedling.features.encoded_features import SURFACE_WEIGHTS, EncodedFeatures
from seedling.features.encoder import COLOR_COLUMNS
from seedling.features.encoder_handle import EncoderHandle
from seedling.models.model import soft_vote
from seedling.models.training import FitContext
from seedling.pseudo_label import choose_filter, difficulty_weights
from seedling.pseudo_label.filters import FilterResult
from seedling.pseudo_label.teacher import TeacherPredictions, refine
from seedling.stats.statistics import SMALLEST, Floats
from seedling.train.choice import Choice, EvaluationRows, blend, choose, make_choice
from seedling.train.cross_validation import Predictions, cross_validate, mean_logits, pool_logits
from seedling.train.final_models import fit_final_models
from seedling.train.round_decision import (
    RoundDecision,
    class_share_weights,
    compare_rounds,
    decide_without_evaluation_rows,
)
from seedling.train.tally import PREVIOUS_MODEL, Candidate
from seedling.train.training_data import TrainingData
from seedling.validate.splits import assign_folds

LABELS_PER_CLASS = (1, 5, 10, 40)
MAX_LABELS, MAX_POOL, MAX_TEST = 400, 1_000, 700
FOLDS, ROUNDS = 5, 2
VARIANTS = (  # of the tasks of a source, by draw: largest over smallest class, and share of wrong labels
    (1, 0.0),
    (1, 0.0),
    (5, 0.0),
    (1, 0.1),
    (20, 0.2),
)
FIRST_LEARNERS = ("logistic_regression", "encoder_regression", "svm")
LATER_LEARNERS = ("logistic_regression", "nearest_neighbors")
MOST_PRECISE: Literal["most precise"] = "most precise"
MIN_KEPT_SHARE = 0.2  # of the held-out rows: the precision of a filter that keeps fewer says little


@dataclass(frozen=True)
class Task:
    """Rows of a source: numbers of labeled, pool and test rows; labels, some of them wrong; truth of the test rows."""

    source: Source
    labels_per_class: int
    seed: int
    classes: int
    labeled: NDArray[np.intp]
    pool: NDArray[np.intp]
    test: NDArray[np.intp]
    labels: NDArray[np.int64]
    truth: NDArray[np.int64]

    @property
    def training(self) -> NDArray[np.intp]:
        """Row numbers of labeled rows and pool."""
        return np.concatenate([self.labeled, self.pool])


def draw_task(source: Source, features: Features, labels_per_class: int, seed: int) -> Task | None:
    """Draw a task; None if the source has too few rows per class, or there would be too many labels."""
    rng = np.random.default_rng([seed, labels_per_class])
    imbalance, wrong_share = VARIANTS[seed % len(VARIANTS)]
    train = rng.permutation(np.flatnonzero(~features.is_test))
    names, counts = np.unique(features.labels[train], return_counts=True)
    names = names[counts >= labels_per_class + 2]
    if source.max_classes is not None and len(names) > source.max_classes:
        names = np.sort(rng.choice(names, source.max_classes, replace=False))
    if len(names) < 2 or len(names) * labels_per_class > MAX_LABELS:
        return None
    train = train[np.isin(features.labels[train], names)]
    test = np.flatnonzero(features.is_test & np.isin(features.labels, names))
    exponents = rng.permutation(len(names)) / (len(names) - 1)
    sizes = np.maximum(1, np.round(labels_per_class * imbalance**-exponents)).astype(int)
    labeled = np.concatenate(
        [train[features.labels[train] == name][:size] for name, size in zip(names, sizes, strict=True)]
    )
    classes = np.searchsorted(names, features.labels)
    labels = classes[labeled].copy()
    is_wrong = rng.random(len(labels)) < wrong_share
    labels[is_wrong] = (labels[is_wrong] + rng.integers(1, len(names), is_wrong.sum())) % len(names)
    pool, test = rng.permutation(np.setdiff1d(train, labeled))[:MAX_POOL], rng.permutation(test)[:MAX_TEST]
    return Task(source, labels_per_class, seed, len(names), labeled, pool, test, labels, classes[test])


def rows_of(task: Task) -> TrainingRows:
    """The table that `train` reads from the generations."""
    n_labeled, n_rows = len(task.labeled), len(task.training)
    ids = np.array([f"row {row}" for row in task.training])
    fold_of_group = assign_folds(task.labels.astype(str).tolist(), ids[:n_labeled].tolist(), FOLDS, task.seed)
    fold = np.array([fold_of_group.get(row_id, -1) for row_id in ids])
    n_fold_models = len(set(fold.tolist()) - {-1}) + 1
    targets = np.zeros((n_rows, task.classes))
    targets[np.arange(n_labeled), task.labels] = 1.0
    parents = np.full((n_rows, 2), -1, dtype=np.intp)
    parents[:n_labeled, 0] = np.arange(n_labeled)
    return TrainingRows(
        ids=ids,
        ingredient=np.array(["collected"] * n_labeled + ["pool"] * len(task.pool)),
        fold=fold,
        targets=targets,
        weights=np.ones(n_rows),
        parents=parents,
        group=ids,
        half=pool_halves(ids.tolist(), task.seed),
        pseudo_label_by_fold=np.full((n_rows, n_fold_models), -1),
        pseudo_weight_by_fold=np.zeros((n_rows, n_fold_models)),
    )


@dataclass(frozen=True)
class Method:
    """Settings that the benchmark compares; the defaults are Seedling's.

    one_view: whether the encoder sees the whole image alone; selects: whether evidence chooses among the learners of
    round 0, which have equal votes otherwise; keeps_previous: whether the model of the round before stays a member;
    filter: of the pseudo-labels, None for the one with the highest expected gain, `MOST_PRECISE` for the one whose
    labels are right most often on the held-out rows.
    """

    one_view: bool = False
    selects: bool = True
    keeps_previous: bool = True
    filter: Filter | Literal["most precise"] | None = None


METHODS = {
    "Seedling": Method(),
    "the whole image alone": Method(one_view=True),
    "without the previous model": Method(keeps_previous=False),
    "equal votes in round 0": Method(selects=False),
    "the most precise filter": Method(filter=MOST_PRECISE),
}
DEFAULT_METHODS = ("the whole image alone", "without the previous model")


@dataclass(frozen=True)
class Round:
    """A round's model: probabilities of the test rows, and the decision, None for round 0."""

    test: Floats
    decision: RoundDecision | None


@dataclass(frozen=True)
class State:
    """The model of a round as a member of the next one: logits of the training rows and of the test rows."""

    logits: Predictions
    test_logits: Floats
    predictions: Predictions


def run_rounds(task: Task, features: Features, method: Method) -> list[Round]:
    """Run round 0 and the pseudo-label rounds as the stages do; all rounds, whether they are accepted or not."""
    weight = SURFACE_WEIGHTS["image" if features.surface.shape[1] == COLOR_COLUMNS else "text"]
    encoder = features.whole if method.one_view else features.encoder
    matrix = combined(encoder, features.surface, task.training, weight)
    n_encoder, rows, params = features.encoder.shape[1], rows_of(task), TrainParams()
    evaluated = np.flatnonzero(rows.fold[rows.labeled] >= 0)
    evaluation_rows = EvaluationRows(
        task.labels[evaluated], evaluated, rows.ids[rows.labeled][evaluated], np.ones(len(evaluated))
    )
    rounds: list[Round] = []
    state, votes = None, 1.0
    for number in range(ROUNDS + 1):
        names = FIRST_LEARNERS if state is None else LATER_LEARNERS
        candidates = [Candidate(name, ("collected",)) for name in names]
        maker = encoder_block(n_encoder, weight)
        data = TrainingData(
            rows=rows,
            inputs=Inputs(matrix[task.training]),
            validation=Inputs(matrix[:0]),
            context=FitContext(task.classes, task.seed, maker=maker),
            pseudo_labeled=number > 0,
        )
        trained, _ = cross_validate(data, candidates)
        models = fit_final_models(data, candidates)
        test_logits = {}
        for candidate, fitted in models.items():
            if isinstance(fitted, list):
                trained[candidate].pool[-1] = pool_logits(data, fitted)
                test_logits[candidate] = mean_logits(fitted, Inputs(matrix[task.test]))
        if state is None and not method.selects:
            choice = make_choice(tuple(trained), trained, evaluation_rows)
        elif state is None or not method.keeps_previous:
            choice = choose(trained, evaluation_rows, task.seed)
        else:
            choice = blend(state.logits, votes, trained, evaluation_rows)
            trained = {PREVIOUS_MODEL: state.logits, **trained}
            test_logits[PREVIOUS_MODEL] = state.test_logits
            votes += len(candidates)
        predictions = choice.combine(trained)
        decision = None if state is None else decide(state, predictions, evaluation_rows, number, params, task.seed)
        rounds.append(Round(voted(choice, test_logits, choice.temperature), decision))
        state = State(
            logits_of(predictions, choice.temperature),
            np.log(np.maximum(voted(choice, test_logits, 1.0), SMALLEST)),
            predictions,
        )
        if number < ROUNDS:
            rows = pseudo_labeled(rows, predictions, matrix[task.training], task, number + 1, method.filter)
    return rounds


def encoder_block(n_encoder: int, surface_weight: float) -> EncodedFeatures:
    """A feature maker that tells `encoder_regression` which columns are the encoder's."""
    handle = EncoderHandle(EncoderParams(model="none"), "image", Path())
    center = np.zeros(n_encoder + COLOR_COLUMNS, np.float32)
    return EncodedFeatures(handle, center=center, surface_weight=surface_weight)


def voted(choice: Choice, test_logits: dict[Candidate, Floats], temperature: float) -> Floats:
    """(n_test, n_classes): the vote of the members."""
    logits = [test_logits[member] for member in choice.members]
    return soft_vote(logits, choice.temperatures, temperature, choice.votes)


def logits_of(predictions: Predictions, temperature: float) -> Predictions:
    """The logarithm of the mean of the members' probabilities; see `seedling.train.files.read_model_predictions`."""

    def logits(probabilities: Floats) -> Floats:
        result: Floats = temperature * np.log(np.maximum(probabilities, SMALLEST))
        return result

    return replace(
        predictions,
        labeled=logits(predictions.labeled),
        validation=logits(predictions.validation),
        pool=logits(predictions.pool),
    )


def decide(
    state: State, predictions: Predictions, rows: EvaluationRows, number: int, params: TrainParams, seed: int
) -> RoundDecision:
    """The round decision; see `seedling.train.comparison.decide`."""
    old, new = state.predictions.pool[-1], predictions.pool[-1]
    if len(rows.truth) == 0:
        vanished = len(set(old.argmax(axis=1).tolist()) - set(new.argmax(axis=1).tolist()))
        return decide_without_evaluation_rows(number, 0, vanished, last=False)
    return compare_rounds(
        number,
        0,
        rows.select(state.predictions),
        rows.select(predictions),
        rows.truth,
        rows.groups,
        weights=class_share_weights(rows.truth, old),
        changed_share=1.0,
        last=False,
        params=params,
        seed=seed,
    )


def pseudo_labeled(
    rows: TrainingRows,
    predictions: Predictions,
    matrix: NDArray[np.float32],
    task: Task,
    number: int,
    filter_name: Filter | Literal["most precise"] | None,
) -> TrainingRows:
    """The rows with the pool's labels, as the stage `pseudo_label` computes them."""
    fold = rows.fold[rows.labeled]
    labeled = predictions.labeled.copy()
    labeled[fold < 0] = rows.targets[rows.labeled][fold < 0]
    n_labeled, params = len(fold), PseudoLabelParams(filter=None if filter_name == MOST_PRECISE else filter_name)
    teacher = TeacherPredictions(
        labeled_ids=rows.ids[rows.labeled].tolist(),
        pool_ids=rows.ids[rows.pool].tolist(),
        half=rows.half[rows.pool],
        labeled=labeled,
        pool=predictions.pool,
        fold=fold,
        folds=rows.folds,
        truth=task.labels,
        weights=np.ones(n_labeled),
        human=np.ones(n_labeled, dtype=bool),
        repaired=np.zeros(n_labeled, dtype=bool),
        label_weights=np.ones((len(rows.folds) + 1, n_labeled)),
        labeled_std=predictions.labeled_std,
        pool_std=predictions.pool_std,
    )
    labels = refine(teacher, matrix, params, task.seed)
    curriculum_share = 0.5 + 0.5 * number / ROUNDS
    kept, _, table = choose_filter(labels, params, curriculum_share, task.seed)
    if filter_name == MOST_PRECISE:
        params = PseudoLabelParams(filter=most_precise(table, len(labels.truth)))
        kept, _, _ = choose_filter(labels, params, curriculum_share, task.seed)
    weights = np.stack([of.max(axis=1) * difficulty_weights(of, params.hard_classes) for of in labels.probabilities])
    label_by_fold, weight_by_fold = rows.pseudo_label_by_fold.copy(), rows.pseudo_weight_by_fold.copy()
    label_by_fold[rows.pool] = np.where(kept, labels.probabilities.argmax(axis=2), -1).T
    weight_by_fold[rows.pool] = np.where(kept, weights, 0.0).T
    return replace(
        rows,
        pseudo_label_by_fold=label_by_fold,
        pseudo_weight_by_fold=weight_by_fold,
        pseudo_probabilities=labels.probabilities.transpose(1, 0, 2).astype(np.float32),
    )


def most_precise(table: Sequence[FilterResult], n_held_out: int) -> Filter | None:
    """The name of the filter whose labels are right most often on the held-out rows; None if there are none."""
    precision = {
        result.filter: result.precision.value
        for result in table
        if result.precision and result.kept >= MIN_KEPT_SHARE * n_held_out
    }
    return cast("Filter", max(precision, key=lambda name: precision[name])) if precision else None


@lru_cache(maxsize=2)
def cached_features(source: Source, data: Path, backbone: str, cache: Path) -> Features:
    """`features_of`, once per process and source."""
    return features_of(source, data, backbone, cache)


def run_task(
    job: tuple[Source, int, int], data: Path, backbone: str, cache: Path, methods: Sequence[str]
) -> list[dict[str, object]]:
    """One row per system: source, half, labels per class, draw, accuracy, harm, seconds of one core."""
    source, labels_per_class, seed = job
    features = cached_features(source, data, backbone, cache)
    task = draw_task(source, features, labels_per_class, seed)
    if task is None:
        return []
    facts = {"source": source.title, "half": source.half, "labels": labels_per_class, "draw": seed}
    results: list[dict[str, object]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make_peer in SUPERVISED_PEERS.items():
            peer = make_peer().fit(features.center[task.labeled], task.labels)
            accuracy = float((peer.predict(features.center[task.test]) == task.truth).mean())
            results.append({**facts, "system": f"peer {name}", "accuracy": accuracy})
    for name in methods:
        method = METHODS[name]
        started = time.process_time()
        rounds = run_rounds(task, features, method)
        seconds = time.process_time() - started
        right = [(each.test.argmax(axis=1) == task.truth).astype(float) for each in rounds]
        rejected = (
            number for number, each in enumerate(rounds) if each.decision and each.decision.decision == "rejected"
        )
        n_accepted = next(rejected, len(rounds))
        final = {name: right[n_accepted - 1]}
        if name == "Seedling":
            final |= {"round 0": right[0], "round 1, whatever the decision": right[1]}
        for system, correct in final.items():
            difference = correct - right[0]
            results.append(
                {
                    **facts,
                    "system": system,
                    "accuracy": float(correct.mean()),
                    "gain": float(difference.mean()),
                    "harmed": float(difference.mean() < -difference.std() / np.sqrt(len(difference))),
                    "seconds": seconds,
                    **held_out_gains(rounds[1].decision),
                }
            )
    return results


def held_out_gains(decision: RoundDecision | None) -> dict[str, float]:
    """What the evaluation rows say about round 1: its gain in accuracy and in log loss; empty without such rows."""
    if decision is None or decision.accuracy is None or decision.log_loss is None:
        return {}
    return {"held-out accuracy": decision.accuracy.value, "held-out log loss": -decision.log_loss.value}


def measurements_of(results: pd.DataFrame, command: str) -> Iterator[Measurement]:
    """The rows of the table: per half and per source."""
    peers = results[results["system"].str.startswith("peer ")]
    task = ["source", "labels", "draw"]
    means = peers.groupby(["source", "labels", "system"])["accuracy"].mean().reset_index()
    best_rows = means.loc[means.groupby(["source", "labels"])["accuracy"].idxmax()]
    best_systems = set(best_rows[["source", "labels", "system"]].itertuples(index=False, name=None))
    is_best = [key in best_systems for key in peers[["source", "labels", "system"]].itertuples(index=False, name=None)]
    best = peers[is_best].set_index(task)["accuracy"]

    measured = partial(measured_by, command)
    for half in results["half"].unique():
        of_half = results[results["half"] == half]
        tasks = best.loc[of_half.set_index(task).index.unique()]
        yield measured(half, "best peer of each setting", "test accuracy", tasks.tolist(), "share")
        of_seedling = of_half[of_half["system"] == "Seedling"].set_index(task)["accuracy"]
        for system in ["round 0", "round 1, whatever the decision", *METHODS]:
            chosen = of_half[of_half["system"] == system].set_index(task)
            if chosen.empty:
                continue
            yield measured(half, system, "test accuracy", chosen["accuracy"].tolist(), "share")
            lead = (chosen["accuracy"] - best.loc[chosen.index]).tolist()
            yield measured(half, system, "minus the best peer, paired", lead, "points of share")
            if system not in {"round 0", "Seedling"}:
                lead = (chosen["accuracy"] - of_seedling.loc[chosen.index]).tolist()
                yield measured(half, system, "minus Seedling, paired", lead, "points of share")
            if system == "round 0":
                continue
            yield measured(half, system, "minus round 0, paired", chosen["gain"].tolist(), "points of share")
            yield measured(half, system, "harmed tasks", chosen["harmed"].tolist(), "share")
            evaluated = chosen[chosen.index.get_level_values("labels") > 1]
            yield measured(
                half, system, "harmed tasks, 5 labels per class or more", evaluated["harmed"].tolist(), "share"
            )
            yield measured(half, system, "worst task: minus round 0", [float(chosen["gain"].min())], "points of share")
            yield measured(half, system, "seconds of one core", chosen["seconds"].tolist(), "s")
    for half in results["half"].unique():
        of_round_1 = results[(results["half"] == half) & (results["system"] == "round 1, whatever the decision")]
        evaluated = of_round_1[of_round_1["held-out accuracy"].notna()]
        for gain in ("held-out accuracy", "held-out log loss"):
            metric = f"rank correlation of the gain in {gain} with the gain in test accuracy"
            correlation = rank_correlation(evaluated[gain].to_numpy(), evaluated["gain"].to_numpy())
            yield Measurement(half, "round 1", metric, *correlation, "Spearman's rho", len(evaluated), command)
    yield from measurements_of_sources(results, best, command)


def measured_by(
    command: str, setting: str, system: str, metric: str, values: Sequence[float], unit: str
) -> Measurement:
    """The mean of the values over tasks, with its interval."""
    return Measurement(setting, system, metric, *mean_with_interval(values), unit, len(values), command)


def measurements_of_sources(results: pd.DataFrame, best: pd.Series, command: str) -> Iterator[Measurement]:
    """The rows per setting and per source. best: accuracy of the best peer, by source, labels per class and draw."""
    measured, task = partial(measured_by, command), list(best.index.names)
    ours = results[results["system"] == "Seedling"].set_index(task)
    leads = (ours["accuracy"] - best.loc[ours.index]).sort_index()
    for source, labels in dict.fromkeys((str(key[0]), int(key[1])) for key in ours.index.tolist()):
        of_setting = leads.loc[source, labels].tolist()
        setting = f"{source}, {labels} a class"
        yield measured(setting, "Seedling", "minus the best peer, paired", of_setting, "points of share")
    for system in [name for name in METHODS if name != "Seedling"]:
        others = results[results["system"] == system].set_index(task)["accuracy"]
        for source in dict.fromkeys(others.index.get_level_values("source").tolist()):
            lead = (others.loc[source] - ours["accuracy"].loc[source]).tolist()
            yield measured(source, system, "minus Seedling, paired", lead, "points of share")


def rank_correlation(
    first: NDArray[np.float64], second: NDArray[np.float64], draws: int = 2_000
) -> tuple[float, float, float]:
    """Spearman's rank correlation with its 95 % bootstrap interval over tasks."""
    rng = np.random.default_rng(0)
    samples = rng.integers(len(first), size=(draws, len(first)))
    drawn = [spearmanr(first[rows], second[rows]).statistic for rows in samples]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(spearmanr(first, second).statistic), float(low), float(high)


def main() -> None:
    """Run the tasks and write results/proving_ground.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sets")
    parser.add_argument("--backbone", required=True, help="encoder of images: a local folder or a hub id")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="folder that keeps the features for the next run")
    parser.add_argument("--sources", nargs="+", choices=[source.title for source in SOURCES], help="default: all")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=DEFAULT_METHODS, help="to compare Seedling with"
    )
    parser.add_argument("--name", default="proving_ground", help="name of the results file")
    arguments = parser.parse_args()
    sources = [source for source in SOURCES if arguments.sources is None or source.title in arguments.sources]
    methods = ["Seedling", *arguments.methods]
    cache = arguments.cache or Path(tempfile.mkdtemp())
    cache.mkdir(parents=True, exist_ok=True)
    for source in sources:
        print(f"features of {source.title}", flush=True)
        features_of(source, arguments.data, arguments.backbone, cache)
    jobs = [
        (source, labels, seed) for source in sources for labels in LABELS_PER_CLASS for seed in range(arguments.draws)
    ]
    run = partial(run_task, data=arguments.data, backbone=arguments.backbone, cache=cache, methods=methods)
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for number, of_task in enumerate(pool.map(run, jobs)):
            rows += of_task
            if number % 20 == 19:
                print(f"{number + 1} of {len(jobs)} tasks", flush=True)
    command = f"python benchmarks/proving_ground.py --data DATA --backbone BACKBONE --draws {arguments.draws}"
    for option in ("sources", "methods"):
        values = getattr(arguments, option)
        if values != parser.get_default(option):
            command += f" --{option} {shlex.join(values)}"
    command += "" if arguments.name == parser.get_default("name") else f" --name {arguments.name}"
    write(arguments.name, list(measurements_of(pd.DataFrame(rows), command)))


if __name__ == "__main__":
    main()
