"""One review of a workspace: the queue, the background ranking, the images, and the panel, shared by all reviewers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import Params, load
from seedling.dataset.generation import PayloadReader, SinglePayloads
from seedling.errors import SeedlingError
from seedling.review.background import BackgroundRanker, quick_ranking
from seedling.review.images import ReviewImages
from seedling.review.items import ItemMaker
from seedling.review.panel import ReviewProgress, panel
from seedling.review.queue import ReviewQueue
from seedling.review.quota import write_stop_rule
from seedling.review.refit import Refit
from seedling.review.rows import ReviewRows
from seedling.review.word_weights import MAX_TEXTS, WordWeights, predicted_labels
from seedling.workspace import MANIFEST, Workspace


@dataclass
class ReviewSession:
    """What a server or a terminal reviews. order: the order of new rows, which reviewers may change."""

    workspace: Path
    params: Params
    queue: ReviewQueue
    ranker: BackgroundRanker
    images: ReviewImages
    words: WordWeights

    @classmethod
    def of(
        cls, workspace: Path, *, split: str = "train", on_answers: Callable[[], None] = lambda: None
    ) -> ReviewSession:
        """Read the workspace. on_answers: called after answers were stored, for a run that waits for them.

        Raises MissingGeneration if no rows were collected, InputError for invalid params.
        """
        params = load(workspace)
        session: ReviewSession

        def rank(rows: ReviewRows, order: str, positions: NDArray[np.intp]) -> NDArray[np.intp]:
            session.request_ranking(order)
            return quick_ranking(rows, order, positions, params.seed)

        def publish(order: str, positions: NDArray[np.intp], rows: ReviewRows, refitted: Refit | None) -> None:
            session.queue.set_ranking(order, positions, rows)
            session.fit_words()

        def answered(count: int) -> None:
            session.count_answers(count)
            on_answers()

        queue = ReviewQueue(workspace, params, rank, split=split, answered=answered)
        images = ReviewImages(workspace, params.max_megapixels)
        session = cls(
            workspace=workspace,
            params=params,
            queue=queue,
            ranker=BackgroundRanker(workspace, params, publish, images.wait_until_idle),
            images=images,
            words=WordWeights(),
        )
        session.order = params.review.order
        return session

    def __post_init__(self) -> None:
        self.order = "expected_value"
        self._answers_since_refit = 0
        self._lock = threading.Lock()
        self._generation = self._version_of_generation()
        self._stop_rule: tuple[bool, str] | None = None
        self._read = SinglePayloads(Workspace(self.workspace).generation("scrape"))

    def start(self) -> None:
        """Start the background ranking."""
        self.ranker.start()
        self.request_ranking(self.order)

    def close(self) -> None:
        """Stop the background ranking. All answers are on the disk already."""
        self.ranker.close()

    def request_ranking(self, order: str) -> None:
        """Rank the open rows in the background. The test split keeps its random order, which no model influences."""
        if self.queue.split == "test":
            return
        self.order = order
        queue = self.queue
        answers = len(queue.decisions.answers)
        self.ranker.request(queue.rows, order, queue.open_positions(), queue.present_decisions(), answers)

    def count_answers(self, count: int) -> None:
        """Start a refit after every `refit_after` answers."""
        with self._lock:
            self._answers_since_refit += count
            is_due = self._answers_since_refit >= self.params.review.refit_after
            if is_due:
                self._answers_since_refit = 0
        if is_due:
            self.request_ranking(self.order)

    def fit_words(self) -> None:
        """Fit the weights of words to the present predictions of texts."""
        rows = self.queue.rows
        if rows.modality != "text":
            return
        predicted = np.flatnonzero(~np.isnan(np.asarray(rows.probabilities[:, 0], dtype=np.float32)))[:MAX_TEXTS]
        read = PayloadReader.of(Workspace(self.workspace).generation("scrape"))
        row_ids = [rows.ids[int(position)] for position in predicted]
        try:
            texts = {row_id: str(text) for row_id, text in read(row_ids)}
        except SeedlingError:
            return
        labels = predicted_labels(rows.probabilities[predicted], rows.classes)
        self.words.fit([texts[row_id] for row_id in row_ids], labels)

    def refresh_if_changed(self) -> bool:
        """Read the rows again if a run has written new ones. Returns whether it has."""
        version = self._version_of_generation()
        if version == self._generation:
            return False
        self._generation = version
        self.queue.load()
        self.request_ranking(self.order)
        return True

    def _version_of_generation(self) -> tuple[int, ...]:
        paths = Workspace(self.workspace)
        manifests = [paths.generation(stage) / MANIFEST for stage in ("scrape", "validate")]
        return tuple(manifest.stat().st_mtime_ns for manifest in manifests if manifest.is_file())

    def items(self) -> ItemMaker:
        """What the page shows about rows."""
        return ItemMaker(self.queue, self.ranker, self.words, self._read)

    def panel(self, reviewer: str) -> dict[str, Any]:
        """The counts and estimates of the page's panel. What it says about the end is recorded for a waiting run."""
        queue, ranker = self.queue, self.ranker
        progress = ReviewProgress(
            classes=len(queue.rows.classes),
            remaining=queue.remaining,
            labeled=queue.n_labeled,
            pool=queue.n_pool,
            accuracies=ranker.history.points if queue.split == "train" else (),  # test rows train no model
            min_gain=self.params.review.enough_gain,
            queue_version=queue.version,
            is_refitting=ranker.refitting,
        )
        with queue.lock:
            result = panel(queue.tally, reviewer, progress)
        if queue.split == "test" and not result.enough:
            reason = "Answers about test rows train no model: they make the measured accuracy right."
            result = result.model_copy(update={"reason": reason})
        if (result.enough, result.reason) != self._stop_rule:
            self._stop_rule = result.enough, result.reason
            write_stop_rule(self.workspace, enough=result.enough, reason=result.reason)
        return result.model_dump(mode="json") | {
            "problem": ranker.error,
            "class_change_count": queue.class_change_count,
        }
