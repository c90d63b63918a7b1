"""Cross-validation in lineages: what is predicted for a row never comes from a model, or a model's pseudo-labels,
that saw the row's label.

Lineage k never sees fold k: neither its labels, nor children of its rows, nor pseudo-labels of models that saw them.
One more lineage sees all folds; its models are the ones that are kept. From round 1 on a lineage has two models, each
learning from one half of the pool and labeling the other, so that no model labels what it was trained on.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.dataset.training_rows import TrainingRows
from seedling.errors import Diverged
from seedling.features.classical import Inputs
from seedling.label_quality.label_weights import TRUSTED, trust_in_labels
from seedling.models.device import release_freed_memory
from seedling.models.losses import CONSISTENCY, Adjusted, balanced, class_shares
from seedling.models.saving import Learner, make_learner
from seedling.models.training import FitContext
from seedling.parallel.cluster import on_cluster, over_cluster
from seedling.parallel.executor import in_threads, spread, this_process
from seedling.parallel.pool import in_pieces
from seedling.stats.randomness import derived_seed
from seedling.stats.statistics import Floats
from seedling.train.tally import GRADIENT_LEARNERS, Candidate, Tally

WORTH_SPREADING = 20.0  # seconds: less is done before another process has been told
WORTH_KEEPING = 5.0  # seconds: what took longer is not computed again after a kill


@dataclass
class Predictions:
    """Logits of one candidate, or probabilities of the chosen model.

    labeled: (n_labeled, n_classes), out of fold; validation: (n_validation, n_classes), the folds' mean;
    pool: (n_lineages, n_pool, n_classes), the last lineage's being the final model's (zeros where it was not trained);
    labeled_std: (n_labeled,) and pool_std: (n_lineages, n_pool), how far Monte Carlo dropout moves the likeliest
    class's probability, zeros of learners that have none.
    """

    labeled: Floats
    validation: Floats
    pool: Floats
    labeled_std: Floats
    pool_std: Floats


@dataclass(frozen=True)
class TrainingData:
    """What all candidates of a round share. pseudo_labeled: whether the pool has labels from the round before; scratch:
    where unfinished work is kept, None for nowhere.
    """

    rows: TrainingRows
    inputs: Inputs
    validation: Inputs
    setting: FitContext
    pseudo_labeled: bool = False
    scratch: Path | None = None
    said: Tally = field(default_factory=lambda: Tally())
    trusts: dict[tuple[int, str], Floats] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.setting.classes

    def halves(self, candidate: Candidate) -> int:
        """How many models a lineage has: one a half of the pool where the pool is learnt from, so that the other labels it."""
        learns_from_pool = candidate.loss == CONSISTENCY or (self.pseudo_labeled and not candidate.carried)
        return 2 if learns_from_pool and len(self.rows.pool) else 1

    def said_by(self, learner: str, taught: NDArray[np.intp], asked: NDArray[np.intp]) -> Floats:
        """(n_asked, n_classes): logits of such a learner, taught some of the labeled rows and nothing else. taught, asked: numbers of labeled rows."""
        made, rows = make_learner(learner, self.setting), self.rows.labeled[taught]
        made.fit(self.inputs.take(rows), self.rows.targets[rows], self.rows.weights[rows])
        return made.logits(self.inputs.take(self.rows.labeled[asked]))

    def fit(self, candidate: Candidate, lineage: int | None, place: int, half: int) -> Learner:
        """One model of one lineage."""
        began = perf_counter()
        trust = self.trust(place, candidate.loss) if candidate.loss in TRUSTED else None
        chosen, targets, weights = self.rows.of_lineage(lineage, place, half, candidate.recipe, trust)
        if candidate.loss == "balanced":
            weights = balanced(targets, weights)
        where = "final" if lineage is None else f"fold {place + 1}"
        shown = f"{candidate.learner} {candidate.loss} {where} half {half}"
        setting = self.setting.of_model(
            seed=derived_seed(self.setting.seed, candidate.learner, lineage, half),
            loss=candidate.loss,
            device=place,
            checkpoint=None if self.scratch is None else self.scratch / f"{candidate.name}-{place}-{half}",
            watch=lambda step, loss: self.said.step(shown, step, loss),
            mixed_in=self.rows.ingredient[chosen] == "synthesize",
            unlabeled=self._unlabeled(half) if candidate.loss == CONSISTENCY else None,
        )
        learner = make_learner(candidate.learner, setting)
        learner.fit(self.inputs.take(chosen), targets, weights)
        if candidate.loss == "logit_adjusted":
            learner = Adjusted(learner, np.log(class_shares(targets, weights)))
        self.said.one_more(candidate, perf_counter() - began)
        return learner

    def _unlabeled(self, half: int) -> Inputs | None:
        """The half of the pool that this model may learn from without labels; it labels the other half."""
        pool = self.rows.pool
        mine = pool[self.rows.half[pool] == half]
        return self.inputs.take(mine) if len(mine) else None

    def trust(self, place: int, loss: str) -> Floats:
        """(n_labeled,), 0 to 1: how far each labeled row's own label is believed, by models of this lineage that did
        not learn from the row. Rows that the lineage never sees keep 1. loss: one of `TRUSTED`; the strict one squares the
        trust, and takes it again from models that learnt with it, in which the row has had a say in others' trust.
        """
        if (place, loss) not in self.trusts:
            strict = loss == "label_weighted_twice"
            before = self.trust(place, "label_weighted") ** 2 if strict else np.ones(len(self.rows.labeled))
            found = trust_in_labels(self.rows, self.inputs, self.setting, place, before)
            self.trusts[place, loss] = found**2 if strict else found
        return self.trusts[place, loss]


def cross_validate(
    bench: TrainingData, candidates: Sequence[Candidate], seconds: float = 0.0
) -> tuple[dict[Candidate, Predictions], dict[Candidate, str]]:
    """Each candidate's out-of-fold predictions, and those whose training failed, with the reason.

    The folds are spread over threads, or, where they will take long (`seconds`, predicted), over what the caller of the stage
    has set: Prefect's task runner in a flow.
    """
    rows = bench.rows
    folds, labeled = rows.folds, rows.labeled
    result = {one: no_predictions(bench, len(rows.pool)) for one in candidates}
    failed: dict[Candidate, str] = {}

    def of_fold(place: int) -> list[dict[str, Any]]:
        return [_of_fold(bench, one, place) for one in candidates]

    process, how = this_process(), spread(seconds, WORTH_SPREADING)
    places = range(len(folds))
    if on_cluster() or how is in_threads:  # in pieces of a candidate each, so that the last fold leaves no core idle
        tasks = [*product(candidates, places)]
        pieces = _by_cluster(bench, tasks) if on_cluster() else in_threads(lambda one: _of_fold(bench, *one), tasks)
        by_fold = [pieces[place :: len(folds)] for place in places]
    else:
        by_fold = how(of_fold, places, "fold")
    for place, found in enumerate(by_fold):
        held_out = rows.fold[labeled] == folds[place]
        for one, parts in zip(candidates, found, strict=True):
            if place not in process.mine(places) and "failed" not in parts:
                bench.said.take_over(one, parts, bench.halves(one), float(parts["seconds"]))
            if "failed" in parts:
                failed[one] = str(parts["failed"])
                result.pop(one, None)
            elif one in result:
                result[one].labeled[held_out] = parts["labeled"]
                result[one].validation += parts["validation"] / len(folds)
                result[one].pool[place] = parts["pool"]
                result[one].labeled_std[held_out] = parts["labeled_std"]
                result[one].pool_std[place] = parts["pool_std"]
    if not folds and len(bench.validation):  # every labeled row is needed in training, but other rows can judge
        for one in result:

            def of_all(one: Candidate = one) -> Floats:
                return mean_logits(fit_final(bench, one), bench.validation)

            result[one].validation[:] = process.by_leader(of_all)
    return result, failed


def out_of_fold_anew(bench: TrainingData, candidate: Candidate, numbers: Sequence[int]) -> list[Predictions]:
    """The candidate's out-of-fold predictions under other seeds, with the pool cut into other halves; none of the pool.

    numbers: of the seeds, from 1 on. Raises Diverged where a training fails.
    """
    seeds = [derived_seed(bench.setting.seed, "decision", number) for number in numbers]
    folds, labeled = bench.rows.folds, bench.rows.labeled
    work = AnewWork(replace(bench, scratch=None), candidate)
    pieces = iter(list(in_pieces(work, [*product(seeds, range(len(folds)))], here=in_threads)))
    found = []
    for seed in seeds:
        other = work.under(seed)
        made = no_predictions(other, pool=0)
        for lineage, (mine, validation) in zip(folds, pieces, strict=False):
            made.labeled[other.rows.fold[labeled] == lineage] = mine
            made.validation += validation / len(folds)
        found.append(made)
    return found


@dataclass(frozen=True)
class AnewWork:
    """Trains a candidate without one fold under another seed; a piece of work that any process may do."""

    bench: TrainingData
    candidate: Candidate

    def under(self, seed: int) -> TrainingData:
        """The bench with this seed, and the pool cut into other halves."""
        setting = self.bench.setting.of_model(seed=seed)
        return replace(self.bench, rows=self.bench.rows.halved_anew(seed), setting=setting)

    def __call__(self, task: tuple[int, int]) -> tuple[Floats, Floats]:
        """The logits of the fold's rows and of the validation rows. task: the seed, and the fold's place."""
        seed, place = task
        bench = self.under(seed)
        lineage, labeled = bench.rows.folds[place], bench.rows.labeled
        models = [bench.fit(self.candidate, lineage, place, half) for half in range(bench.halves(self.candidate))]
        held_out = labeled[bench.rows.fold[labeled] == lineage]
        return mean_logits(models, bench.inputs.take(held_out)), mean_logits(models, bench.validation)


def no_predictions(bench: TrainingData, pool: int) -> Predictions:
    """Zeros, to be filled. pool: how many of its rows."""
    rows = bench.rows
    folds, labeled = len(rows.folds), len(rows.labeled)
    return Predictions(
        labeled=np.zeros((labeled, bench.classes)),
        validation=np.zeros((len(bench.validation), bench.classes)),
        pool=np.zeros((folds + 1, pool, bench.classes), dtype=np.float32),
        labeled_std=np.zeros(labeled),
        pool_std=np.zeros((folds + 1, pool), dtype=np.float32),
    )


def _of_fold(bench: TrainingData, candidate: Candidate, place: int) -> dict[str, Any]:
    found = _unfinished(bench, candidate, place)
    if found is not None:
        return found
    made = _computed(bench, candidate, place)
    _keep(bench, candidate, place, made)
    return made


def _computed(bench: TrainingData, candidate: Candidate, place: int) -> dict[str, Any]:
    """What a fold's models say of the rows that they did not learn from, or {"failed": why}."""
    began = perf_counter()
    rows, lineage = bench.rows, bench.rows.folds[place]
    try:
        models = [bench.fit(candidate, lineage, place, half) for half in range(bench.halves(candidate))]
    except Diverged as error:
        return {"failed": str(error)}
    held_out = bench.inputs.take(rows.labeled[rows.fold[rows.labeled] == lineage])
    made: dict[str, Any] = {
        "labeled": mean_logits(models, held_out),
        "labeled_std": np.mean([spread_of(one, held_out, place) for one in models], axis=0),
        "pool_std": pool_std(bench, models).astype(np.float32),
        "validation": mean_logits(models, bench.validation),
        "pool": pool_logits(bench, models).astype(np.float32),
    }
    release_freed_memory()  # each thread's heap would keep the largest copy of the rows that it ever held
    if not all(np.isfinite(one).all() for one in made.values()):
        return {"failed": "its predictions are no numbers"}
    return made | {"seconds": np.array(perf_counter() - began)} | bench.said.of_fold(candidate, place)


@dataclass(frozen=True)
class FoldWork:
    """Trains a candidate without one fold; a piece of work that any process may do."""

    bench: TrainingData

    def __call__(self, task: tuple[Candidate, int]) -> dict[str, Any]:
        """See `_computed`. task: the candidate, and the fold's place."""
        return _computed(replace(self.bench, said=Tally()), *task)


def _by_cluster(bench: TrainingData, tasks: Sequence[tuple[Candidate, int]]) -> list[dict[str, Any]]:
    """`_of_fold` of each task, in their order; what takes longest is begun first, so that no worker is left with it at the end."""
    results = {task: found for task in tasks if (found := _unfinished(bench, *task)) is not None}
    left = sorted((one for one in tasks if one not in results), key=lambda one: one[0].learner not in GRADIENT_LEARNERS)
    for (candidate, place), made in zip(left, over_cluster(FoldWork(replace(bench, scratch=None)), left), strict=True):
        _keep(bench, candidate, place, made)
        if "failed" not in made:
            bench.said.take_over(candidate, made, bench.halves(candidate), float(made["seconds"]))
        results[candidate, place] = made
    return [results[task] for task in tasks]


def _file_of(bench: TrainingData, candidate: Candidate, place: int) -> Path | None:
    return None if bench.scratch is None else bench.scratch / f"{candidate.name}-{place}.npz"


def _keep(bench: TrainingData, candidate: Candidate, place: int, made: dict[str, Any]) -> None:
    """Writes down what took long, for the run after one that was killed."""
    kept = _file_of(bench, candidate, place)
    if kept is None or "failed" in made or float(made["seconds"]) <= WORTH_KEEPING:
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    beside = kept.with_suffix(".part.npz")
    np.savez(beside, **made)
    beside.replace(kept)


def _unfinished(bench: TrainingData, candidate: Candidate, place: int) -> dict[str, Any] | None:
    """What a run that was killed later than here had computed."""
    kept = _file_of(bench, candidate, place)
    if kept is None or not kept.is_file():
        return None
    try:
        with np.load(kept, allow_pickle=False) as parts:
            found = dict(parts)
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    bench.said.take_over(candidate, found, bench.halves(candidate))
    return found | {"seconds": np.array(0.0)}


def mean_logits(models: Sequence[Learner], inputs: Inputs) -> Floats:
    """(n_rows, n_classes): the models' mean; nothing is asked of them where there are no rows."""
    if len(inputs) == 0:
        return np.zeros((0, models[0].classes))
    return np.asarray(np.mean([model.logits(inputs) for model in models], axis=0))


def pool_logits(bench: TrainingData, models: Sequence[Learner]) -> Floats:
    """(n_pool, n_classes): each row by the model that did not learn from its half."""
    pool = bench.rows.pool
    result = np.zeros((len(pool), bench.classes))
    for model, asked in _halves(bench, models):
        result[asked] = model.logits(bench.inputs.take(pool[asked]))
    return result


def pool_std(bench: TrainingData, models: Sequence[Learner]) -> Floats:
    """(n_pool,): as pool_logits, of Monte Carlo dropout."""
    pool = bench.rows.pool
    result = np.zeros(len(pool))
    for number, (model, asked) in enumerate(_halves(bench, models)):
        result[asked] = spread_of(model, bench.inputs.take(pool[asked]), number)
    return result


def spread_of(model: Learner, inputs: Inputs, number: int) -> Floats:
    """(n_rows,): zeros of a learner that has no Monte Carlo dropout."""
    own = getattr(model, "dropout_std", None)
    seed = derived_seed(0, "dropout", number)
    return np.zeros(len(inputs)) if own is None else np.asarray(own(inputs, seed), dtype=np.float64)


def _halves(bench: TrainingData, models: Sequence[Learner]) -> Iterator[tuple[Learner, NDArray[np.intp]]]:
    """Each model and the places in the pool that it labels: all of them where it is alone."""
    pool = bench.rows.pool
    half = bench.rows.half[pool] if len(models) == 2 else np.ones(len(pool), dtype=np.int64)
    for number, model in enumerate(models):
        asked = np.flatnonzero(half != number)
        if len(asked):
            yield model, asked


def fit_final(bench: TrainingData, candidate: Candidate) -> list[Learner]:
    """The models that see all folds, one a half."""
    place = len(bench.rows.folds)
    return in_threads(lambda half: bench.fit(candidate, None, place, half), range(bench.halves(candidate)))
