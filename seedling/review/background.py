"""Ranks the rows in the background: features, heads refitted on the answers so far, and the order of the queue.

Until the features of the rows are computed, and for the rows that are not among the drawn candidates, the order follows
from the probabilities of the last run alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from seedling.config.params import Params
from seedling.dataset.class_indices import index_by_class
from seedling.dataset.generation import PayloadReader
from seedling.errors import DamagedFile
from seedling.features.classical import FeatureMaker, ImageFeatures, TextFeatures, dense
from seedling.features.encoder_handle import encoder_of
from seedling.files.reading import read_json
from seedling.files.writing import write_json
from seedling.progress import Progress, silent
from seedling.review.answer_times import seconds_per_row
from seedling.review.decisions import Decisions
from seedling.review.orders import RankingInput, rank
from seedling.review.refit import Refit, refit
from seedling.review.rows import ReviewRows
from seedling.serving.memory_return import return_freed_memory
from seedling.stats.randomness import derived_seed
from seedling.workspace import Workspace

MAX_CANDIDATES = 5_000  # rows whose features are computed; the others keep the order of their probabilities
MAX_LABELED = 3_000  # labeled rows that the heads are fitted on
ROWS_PER_BLOCK = 256  # whose features are computed at once
MAX_PASSES = 40  # over the generation
PUBLISH_SECONDS = 10.0  # between rankings while features are computed


def uncertainty(rows: ReviewRows, order: str, seed: int) -> NDArray[np.float32]:
    """(n,): how early a row is asked by what is known without features, larger is earlier.

    label_issues: p_label_error, below 0 for rows without a label. entropy: −Σ p log p. newest: the number of the row.
    random, coreset, clusters: random numbers. Otherwise p_label_error for labeled rows and 1 − (p₁ − p₂) for others.
    """
    n_rows = len(rows)
    draws = np.random.default_rng(derived_seed(seed, "review order", order) % 2**63).random(n_rows, dtype=np.float32)
    if order == "newest":
        return np.arange(n_rows, dtype=np.float32)
    if order in {"random", "coreset", "clusters"}:
        return draws
    errors = np.nan_to_num(rows.p_label_error, nan=-1.0)
    if order == "label_issues":
        return errors
    scores = np.empty(n_rows, dtype=np.float32)
    for start in range(0, n_rows, MAX_CANDIDATES):
        block = np.asarray(rows.probabilities[start : start + MAX_CANDIDATES], dtype=np.float32)
        if order == "entropy":
            scores[start : start + len(block)] = -(block * np.log(np.maximum(block, 1e-12))).sum(axis=1)
        else:
            ordered = np.partition(block, -2, axis=1)
            scores[start : start + len(block)] = 1 - (ordered[:, -1] - ordered[:, -2])
    is_unknown = np.isnan(scores)
    scores[is_unknown] = draws[is_unknown]
    return scores if order == "entropy" else np.where(errors >= 0, errors, scores)


def quick_ranking(rows: ReviewRows, order: str, positions: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """Order the positions without features; of near-duplicates, all but the first come last."""
    ordered = positions[np.argsort(-uncertainty(rows, order, seed)[positions], kind="stable")]
    first_of_group = np.zeros(len(ordered), dtype=bool)
    first_of_group[np.unique(rows.groups[ordered], return_index=True)[1]] = True
    return np.concatenate([ordered[first_of_group], ordered[~first_of_group]])


@dataclass
class AccuracyHistory:
    """The cross-validated accuracy of each refit, which the page draws. points: (answers, accuracy, low, high)."""

    path: Path
    points: list[tuple[int, float, float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, workspace: Path) -> AccuracyHistory:
        """Read the points of earlier sessions."""
        path = Workspace(workspace).review_accuracies
        try:
            return cls(path, [(int(point[0]), *map(float, point[1:4])) for point in read_json(path)])  # type: ignore[misc]
        except (OSError, DamagedFile, ValueError, TypeError, IndexError):
            return cls(path)

    def add(self, answers: int, accuracy: tuple[float, float, float]) -> None:
        """Add a point and write the file."""
        self.points.append((answers, *accuracy))
        write_json(self.path, self.points)


@dataclass(frozen=True)
class YieldingReader(PayloadReader):
    """Reads images or texts by id, and gives way to more urgent work before each."""

    give_way: Callable[[], None]

    def __call__(self, ids: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
        """Yield the id and the image or text of these rows, each once."""
        for row in super().__call__(ids):
            self.give_way()
            yield row


@dataclass(frozen=True)
class RankingTask:
    """What to rank. positions: of the rows that can be asked; answers: so far, for the learning curve."""

    rows: ReviewRows
    order: str
    positions: NDArray[np.intp]
    decisions: Decisions
    answers: int


class BackgroundRanker:
    """Computes features once, refits the heads after each `refit_after` answers, and ranks again, on its own thread.

    publish: called with the rows, the positions in their new order, and the refit; None without enough labels.
    give_way: called before each row whose features are computed; waits while a page waits for an image.
    """

    def __init__(
        self,
        workspace: Path,
        params: Params,
        publish: Callable[[str, NDArray[np.intp], ReviewRows, Refit | None], None],
        give_way: Callable[[], None] = lambda: None,
    ) -> None:
        self.workspace, self.params, self._publish, self._give_way = workspace, params, publish, give_way
        self.history = AccuracyHistory.of(workspace)
        self.refitting = False
        self.error: str | None = None
        self.latest: Refit | None = None
        self.features: dict[str, NDArray[np.float32]] = {}
        self.reviewed_ids: list[str] = []
        self.reviewed_labels: list[str] = []
        self._maker: Any = None
        self._unpredicted: tuple[ReviewRows, NDArray[np.bool_]] | None = None
        self._wake, self._closed = threading.Event(), threading.Event()
        self._task: RankingTask | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="review ranking", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request(
        self, rows: ReviewRows, order: str, positions: NDArray[np.intp], decisions: Decisions, answers: int
    ) -> None:
        """Rank these positions next; a request that has not started yet is replaced."""
        with self._lock:
            self._task = RankingTask(rows, order, positions, decisions, answers)
        self._wake.set()

    def close(self) -> None:
        """Stop after the present ranking."""
        self._closed.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _work(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            task = self._next_task()
            if task is None or self._closed.is_set():
                continue
            self.refitting, started = True, time.monotonic()
            try:
                self.rank_now(task)
                self.error = None
            except Exception as error:  # noqa: BLE001  (the queue goes on with the order that it has; the page says why)
                self.error = f"{type(error).__name__}: {error}"
            finally:
                self.refitting = False
                return_freed_memory()
            self._closed.wait(time.monotonic() - started)  # at least half of the time is left to the answers

    def _next_task(self) -> RankingTask | None:
        with self._lock:
            task, self._task = self._task, None
            return task

    def rank_now(self, task: RankingTask) -> None:
        """Compute missing features, and rank after each PUBLISH_SECONDS and at the end, with the answers until then."""
        candidates = self._candidates(task.rows, task.order, task.positions)
        reviewed, _ = self._reviewed(task.rows, task.decisions)
        ordered = np.concatenate([reviewed, quick_ranking(task.rows, task.order, candidates, self.params.seed)])
        missing = [position for position in ordered if task.rows.ids[int(position)] not in self.features]
        # Each block may read all row groups of a large generation, so that its blocks are larger.
        published, block = time.monotonic(), max(ROWS_PER_BLOCK, len(task.rows) // MAX_PASSES)
        if missing and self._fits_all_at_once:
            missing, block = list(ordered), len(ordered)
        for start in range(0, len(missing), block):
            self.compute_features(task.rows, sorted(missing[start : start + block]))
            if self._closed.is_set():
                return
            if time.monotonic() - published > PUBLISH_SECONDS:
                with self._lock:
                    if self._task is not None and self._task.rows is task.rows and self._task.order == task.order:
                        task, self._task = self._task, None
                self._rank_computed(task)
                published = time.monotonic()
        self._rank_computed(task)

    def _lacks_prediction(self, rows: ReviewRows) -> NDArray[np.bool_]:
        """(n,): the rows that the last run did not predict; the page shows the guesses of the refit for them."""
        if self._unpredicted is None or self._unpredicted[0] is not rows:
            self._unpredicted = rows, np.isnan(np.asarray(rows.probabilities[:, 0], dtype=np.float32))
        return self._unpredicted[1]

    @property
    def _fits_all_at_once(self) -> bool:
        """Whether features of different blocks cannot be compared: the topics of words are fitted to all texts."""
        return self.params.modality == "text" and self.params.encoder is None

    def _rank_computed(self, task: RankingTask) -> None:
        """Refit, rank the rows whose features are computed, and publish the ranking; the other rows come last."""
        rows, order, seed = task.rows, task.order, self.params.seed
        candidates = self._candidates(rows, order, task.positions)
        candidates = np.array([p for p in candidates if rows.ids[int(p)] in self.features], dtype=np.intp)
        reviewed, labels = self._reviewed(rows, task.decisions)
        has_features = np.array([rows.ids[int(position)] in self.features for position in reviewed], dtype=bool)
        reviewed, labels = reviewed[has_features], labels[has_features]
        features, reviewed_features = self.features_of(rows, candidates), self.features_of(rows, reviewed)
        with threadpool_limits(1):  # so that an answer does not wait for all cores
            groups = rows.groups[reviewed].astype(np.int64)
            refitted = self._refit(features, reviewed_features, labels, len(rows.classes), groups)
        probabilities = np.asarray(rows.probabilities[candidates], dtype=np.float32)
        if refitted is not None and len(candidates):
            predicted = _honest_probabilities(refitted, candidates, reviewed)
            is_new = np.isnan(probabilities[:, 0]) | (~np.isnan(predicted[:, 0]) & (task.answers > 0))
            probabilities = np.where(is_new[:, None], predicted, probabilities)
            lacks_prediction = self._lacks_prediction(rows)[candidates]
            rows.probabilities[candidates[lacks_prediction]] = predicted[lacks_prediction]
        if refitted is not None and task.answers and refitted.accuracy is not None:
            self.history.add(task.answers, refitted.accuracy)
        ranking_input = RankingInput(
            features=features,
            probabilities=probabilities,
            labels=_label_numbers(rows, candidates),
            p_label_error=rows.p_label_error[candidates],
            groups=rows.groups[candidates].astype(np.int64),
            newest_first=(candidates.max(initial=0) - candidates).astype(np.int64),
            reviewed_features=reviewed_features,
            reviewed_labels=labels,
            committee=None if refitted is None else refitted.committee,
            seconds_per_row=seconds_per_row(task.decisions.answers, rows.labels.is_known[candidates]),
        )
        ordered = candidates[rank(order, ranking_input, len(candidates), seed)]
        is_ordered = np.zeros(len(rows), dtype=bool)
        is_ordered[ordered] = True
        others = task.positions[~is_ordered[task.positions]]
        self.latest = refitted
        positions = np.concatenate([ordered, quick_ranking(rows, order, others, seed)])
        self._publish(order, positions, rows, refitted)

    def _candidates(self, rows: ReviewRows, order: str, positions: NDArray[np.intp]) -> NDArray[np.intp]:
        """At most MAX_CANDIDATES positions: half of them the first without features, half of them at random."""
        if len(positions) <= MAX_CANDIDATES:
            return positions
        half = MAX_CANDIDATES // 2
        by_scores = quick_ranking(rows, order, positions, self.params.seed)
        rng = np.random.default_rng(derived_seed(self.params.seed, "review candidates") % 2**63)
        return np.sort(np.concatenate([by_scores[:half], rng.choice(by_scores[half:], half, replace=False)]))

    def _reviewed(self, rows: ReviewRows, decisions: Decisions) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Positions and class numbers of rows with a label from a person, of which reviewed ones come first."""
        class_to_index = index_by_class(rows.classes)
        label_of: dict[int, int] = {}
        for row_id, decision in decisions.by_row.items():
            position = rows.ids.position(row_id)
            if position is not None and rows.splits[position] != "test" and decision.label in class_to_index:
                label_of[position] = class_to_index[decision.label]
        labeled = np.flatnonzero(rows.is_in("train"))
        if len(labeled) > MAX_LABELED:
            rng = np.random.default_rng(derived_seed(self.params.seed, "review labels") % 2**63)
            labeled = np.sort(rng.choice(labeled, MAX_LABELED, replace=False))
        decided = {rows.ids.position(row_id) for row_id in decisions.by_row}
        for position in labeled.tolist():
            label = rows.labels[position]
            if label in class_to_index and position not in decided:
                label_of[position] = class_to_index[label]
        positions = np.array(list(label_of), dtype=np.intp)
        self.reviewed_ids = [rows.ids[position] for position in label_of]
        self.reviewed_labels = [rows.classes[label] for label in label_of.values()]
        return positions, np.array(list(label_of.values()), dtype=np.int64)

    def compute_features(
        self, rows: ReviewRows, positions: Sequence[int] | NDArray[np.intp], progress: Progress = silent
    ) -> None:
        """Compute the features of the rows, with the workspace's encoder or without one."""
        missing = list(dict.fromkeys(rows.ids[int(position)] for position in positions))
        fits = self._maker is None or self._fits_all_at_once
        if fits:
            self._maker = _feature_maker(self.params, self.workspace)
        read = YieldingReader((Workspace(self.workspace).generation("scrape"),), self._give_way)
        inputs = self._maker.of_rows(missing, read, fit=fits, progress=progress)
        values = dense(inputs.features)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        for row_id, vector in zip(missing, values / np.maximum(norms, 1e-9), strict=True):
            self.features[row_id] = vector.astype(np.float32)

    def features_of(self, rows: ReviewRows, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, d): the features of rows whose features are computed, of length 1."""
        vectors = [self.features[rows.ids[int(position)]] for position in positions]
        width = len(next(iter(self.features.values()))) if self.features else 0
        return np.stack(vectors) if vectors else np.zeros((0, width), dtype=np.float32)

    def _refit(
        self,
        features: NDArray[np.float32],
        reviewed_features: NDArray[np.float32],
        labels: NDArray[np.int64],
        n_classes: int,
        groups: NDArray[np.int64],
    ) -> Refit | None:
        if len(np.unique(labels)) < 2:
            return None
        weights = np.ones(len(labels))
        return refit(
            reviewed_features,
            labels,
            weights,
            n_classes,
            features,
            self.params.seed,
            groups=groups,  # near-duplicates of a row do not predict it
            estimate_label_errors=False,  # those of validate are used
        )


def _honest_probabilities(
    refitted: Refit, candidates: NDArray[np.intp], labeled: NDArray[np.intp]
) -> NDArray[np.float32]:
    """(n_candidates, k): the probabilities of the candidates by heads that have not seen their labels.

    NaN for the only label of a class, since the other rows cannot predict it. A head that was fitted on a wrong label
    would suggest this label. labeled: the positions of the labeled rows.
    """
    probabilities = np.array(refitted.probabilities, dtype=np.float32)
    index_of_position = {position: index for index, position in enumerate(labeled.tolist())}
    for row, position in enumerate(candidates.tolist()):
        if (index := index_of_position.get(position)) is not None:
            probabilities[row] = refitted.out_of_fold[index] if refitted.is_evaluable[index] else np.nan
    return probabilities


def _feature_maker(params: Params, workspace: Path) -> FeatureMaker:
    """The features that train uses. Without an encoder, torch is not imported, which has 200 MB."""
    encoder = encoder_of(params, workspace)
    if encoder is not None:
        from seedling.models.saving import make_features

        return make_features(encoder, None, params.config)
    if params.modality == "text":
        return TextFeatures()
    return ImageFeatures(None, params.max_megapixels, cache=Workspace(workspace).feature_cache)


def _label_numbers(rows: ReviewRows, positions: Sequence[int] | NDArray[np.intp]) -> NDArray[np.int64]:
    """(n,): class numbers of the rows' labels, -1 for rows without one."""
    class_to_index = index_by_class(rows.classes)
    labels = (rows.labels[int(position)] for position in positions)
    return np.array([class_to_index.get(label, -1) if label else -1 for label in labels], dtype=np.int64)
