"""The review queue: which rows a reviewer gets next, and what happens with the answers.

The rows are ranked in the background (background.py). A new ranking affects only rows that are sent later: a row on the
screen never changes. All methods may be called by several threads.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seedling.config.params import Params
from seedling.review.decisions import ClassMap, Decisions, active_answers, decide
from seedling.review.leases import Lease, LeaseBook
from seedling.review.log import ReviewLog
from seedling.review.page_answers import AnswerFromPage, check_change
from seedling.review.questions import RandomSample, Shares, purpose_of, shows_random_suggestion
from seedling.review.records import Answer, ClassChange, Purpose, Question, Undo
from seedling.review.reviewer_state import ReviewerState, answered_rows, closes_row
from seedling.review.rows import ReviewRows, read_review_rows
from seedling.review.screens import near_duplicates, predicted_alike
from seedling.review.tally import ReviewTally
from seedling.serving.memory_return import return_freed_memory
from seedling.workspace import Workspace

MAX_ITEMS_PER_REQUEST = 100
MIN_RANDOM_ROWS_BETWEEN = 3  # random rows between an answer and its repetition: about 30 questions


@dataclass(frozen=True)
class Ranking:
    """The rows in the order in which they are asked. positions: into the rows; version: rises with each ranking."""

    order: str
    positions: NDArray[np.intp]
    version: int = 0


class ReviewQueue:
    """Gives rows to reviewers and stores their answers.

    rank: called with the rows, the order and the positions that can be asked; returns these positions in the order in
    which they are asked. split: `train` for labeled training rows and the pool, `test` for the test split.
    """

    def __init__(
        self,
        workspace: Path,
        params: Params,
        rank: Callable[[ReviewRows, str, NDArray[np.intp]], NDArray[np.intp]],
        *,
        split: str = "train",
        answered: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.workspace, self.params, self.split = workspace, params, split
        self.log = ReviewLog(workspace)
        self.shares = Shares.of(params.review) if split == "train" else Shares(0, 0, 0, 0)
        self._rank, self._on_answers = rank, answered
        self.lock = threading.RLock()
        self.leases = LeaseBook(Workspace(workspace).review_leases)
        self.version = 0
        self.load()

    def load(self) -> None:
        """Read the log and the rows again, for example after a run has written new ones.

        An answer that arrives meanwhile waits, so that it is neither lost nor counted twice.
        """
        with self.lock:
            self._load()
        return_freed_memory()  # the tables that the rows were read from

    def _load(self) -> None:
        files = self.log.all_files()
        decisions, tally = decide(files), ReviewTally(files)
        rows = read_review_rows(self.workspace, decisions.classes, self.params.review.classes)
        states: dict[str, ReviewerState] = defaultdict(ReviewerState)
        answered_by: dict[str, set[str]] = defaultdict(set)
        answered = {
            reviewer: answered_rows([a for a in decisions.answers if a.reviewer == reviewer], decisions.classes)
            for reviewer in {answer.reviewer for answer in decisions.answers}
        }
        for answer in decisions.answers:
            reviewer = answer.reviewer
            states[reviewer].questions += 1
            if answer.row_id in answered[reviewer] or not closes_row(answer):
                states[reviewer].count(answer)
            if answer.row_id in answered[reviewer]:
                answered_by[answer.row_id].add(reviewer)
        randomly_asked = {answer.row_id for answer in decisions.answers if answer.purpose == "random"}
        splits = ("test",) if self.split == "test" else ("train", "pool")
        is_asked = rows.is_in(*splits)
        self.n_labeled = int((rows.labels.is_known & rows.is_in("train")).sum())
        self.n_pool = int(rows.is_in("pool").sum())
        self.rows, self.decisions, self.tally, self._is_asked = rows, decisions, tally, is_asked
        self._states, self._answered_by, self._randomly_asked = states, answered_by, randomly_asked
        self._n_asked = int(is_asked.sum())
        self._n_answered = self._n_asked - len(self.open_positions())
        self._rankings: dict[str, Ranking] = {}
        self._sample: Iterator[int] = iter(RandomSample(rows, self.params.seed))
        self.version += 1

    def next_leases(
        self, reviewer: str, mode: Question, order: str, count: int, skip: Iterable[str] = ()
    ) -> list[Lease]:
        """Lease rows to the reviewer: first those that were sent before and not answered, then new ones.

        skip: ids of rows that the page already has. The test split is always asked in random order, in the mode label
        and without a suggestion: no model may influence its own evaluation.
        """
        if self.split == "test":
            mode, order = "label", "random"
        on_page = set(skip)
        with self.lock:
            count = min(count, MAX_ITEMS_PER_REQUEST)
            answered = self._states[reviewer].answered
            leases = [
                lease
                for lease in self.leases.held_by(reviewer)
                if lease.mode == mode and lease.row_id not in on_page and lease.row_id not in answered
            ]
            if mode in {"grid", "duplicates"}:  # the rows of one screen
                leases = [lease for lease in leases if lease.lease_id == leases[0].lease_id]
            else:
                leases = leases[:count]
            taken = on_page | {lease.row_id for lease in leases}
            if mode in {"verify", "label"}:
                while len(leases) < count and (lease := self._next_row(reviewer, mode, order, taken)) is not None:
                    leases.append(lease)
                    taken.add(lease.row_id)
            elif not leases:
                leases = self._grid(reviewer, taken) if mode == "grid" else self._duplicates(reviewer, taken)
            until = self.leases.until()
            leases = [lease.model_copy(update={"until": until}) for lease in leases]
            self.leases.give(leases)
            return leases

    def lease_row(self, reviewer: str, row_id: str, mode: Question = "label") -> Lease | None:
        """Lease this row, for a link from the report; None if there is no such row."""
        with self.lock:
            position = self.rows.ids.position(row_id)
            if position is None:
                return None
            lease = self.leases.of(reviewer, row_id) or self._lease(reviewer, position, mode, "queue", "link", 0)
            self.leases.give([lease])
            return lease

    def _next_row(self, reviewer: str, mode: Question, order: str, taken: set[str]) -> Lease | None:
        state = self._states[reviewer]
        if self.remaining == 0 and not state.skipped and not self.shares.overlap:
            return None
        purpose = purpose_of(self.shares, reviewer, state.questions, self.params.seed)
        state.questions += 1
        position = self._position_for(purpose, reviewer, taken)
        if position is None:
            purpose, position = "queue", self._ranked_position(reviewer, order, taken)
        if position is None and state.skipped:
            position = self._skipped_position(state, taken)
        if position is None:
            return None
        return self._lease(reviewer, position, mode, purpose, order, state.questions - 1)

    def _position_for(self, purpose: Purpose, reviewer: str, taken: set[str]) -> int | None:
        """The position of a row for a purpose other than the queue; None if there is none."""
        if purpose == "random":
            for position in self._sample:
                row_id = self.rows.ids[position]
                if row_id not in self._randomly_asked and row_id not in taken:
                    self._randomly_asked.add(row_id)
                    return position
        if purpose == "repeat":
            return self._first_position(self._repeatable(reviewer, taken))
        if purpose in {"gold", "overlap"}:
            return self._first_position(self._answered_by_others(reviewer, taken, 2 if purpose == "gold" else 1))
        return None

    def _repeatable(self, reviewer: str, taken: set[str]) -> Iterator[str]:
        """The random rows that the reviewer answered, before the last MIN_RANDOM_ROWS_BETWEEN, and only once.

        Only answers without a suggestion tell how often the reviewer errs, so that other rows are not repeated.
        """
        state = self._states[reviewer]
        old_answers = state.random_rows[: max(0, len(state.random_rows) - MIN_RANDOM_ROWS_BETWEEN)]
        return (row_id for row_id in old_answers if row_id not in state.repeated and row_id not in taken)

    def _answered_by_others(self, reviewer: str, taken: set[str], n_others: int) -> Iterator[str]:
        """Rows that so many other reviewers have answered and this one has not; random rows first."""
        answered = self._states[reviewer].answered
        rows = [*(row_id for row_id in self._randomly_asked if row_id in self._answered_by), *self._answered_by]
        return (
            row_id
            for row_id in dict.fromkeys(rows)
            if row_id not in answered and row_id not in taken and len(self._answered_by[row_id]) >= n_others
        )

    def _first_position(self, row_ids: Iterable[str]) -> int | None:
        for row_id in row_ids:
            position = self.rows.ids.position(row_id)
            if position is not None:
                return position
        return None

    def _ranked_position(self, reviewer: str, order: str, taken: set[str]) -> int | None:
        """The first ranked row that nobody has answered and that is on no page."""
        for position in self.ranking(order).positions:
            row_id = self.rows.ids[int(position)]
            if row_id in taken or row_id in self._answered_by or self.leases.is_held_by_another(reviewer, row_id):
                continue
            if row_id not in self._states[reviewer].skipped:
                return int(position)
        return None

    def _skipped_position(self, state: ReviewerState, taken: set[str]) -> int | None:
        """The row that was skipped first, after all others were answered."""
        for row_id in state.skipped:
            position = self.rows.ids.position(row_id)
            if position is not None and row_id not in taken:
                state.skipped.remove(row_id)
                return position
        return None

    def ranking(self, order: str) -> Ranking:
        """The ranking by this order, without the rows at its beginning that were answered in the meantime."""
        ranking = self._rankings.get(order)
        if ranking is None:
            ranking = Ranking(order, self._rank(self.rows, order, self.open_positions()), self.version)
        answered = 0
        for position in ranking.positions:
            if self.rows.ids[int(position)] not in self._answered_by:
                break
            answered += 1
        ranking = Ranking(order, ranking.positions[answered:], ranking.version)
        self._rankings[order] = ranking
        return ranking

    def set_ranking(self, order: str, positions: NDArray[np.intp], rows: ReviewRows) -> None:
        """Use a new ranking, unless the rows were read again since it was started. rows: those that were ranked."""
        with self.lock:
            if rows is self.rows:
                self.version += 1
                self._rankings = {order: Ranking(order, positions, self.version)}

    def open_positions(self) -> NDArray[np.intp]:
        """The positions of the rows of this queue's split that nobody has answered and that are not decided."""
        with self.lock:
            is_open = self._is_asked.copy()
            positions = self.rows.ids.positions(list(self._answered_by))
            is_open[positions[positions >= 0]] = False
            return np.flatnonzero(is_open)

    @property
    def remaining(self) -> int:
        """The number of rows that nobody has answered."""
        return max(0, self._n_asked - self._n_answered)

    def _lease(self, reviewer: str, position: int, mode: Question, purpose: Purpose, order: str, number: int) -> Lease:
        row_id, label = self.rows.ids[position], self.rows.labels[position]
        probabilities = self.rows.probabilities[position]
        best = None if np.isnan(probabilities[0]) else self.rows.classes[int(probabilities.argmax())]
        shows_suggestion = self.split != "test" and (
            purpose == "queue" or (purpose == "random" and shows_random_suggestion(self.params.seed, row_id))
        )
        # "Is this a cat?" is a suggestion, so that rows without a suggestion are always asked by their class.
        asks_suggestion = mode == "verify" and purpose == "queue" and self.split != "test"
        asked_label = (label or best) if asks_suggestion else None
        question: Question = "label" if mode == "verify" and asked_label is None else mode
        return Lease(
            row_id=row_id,
            lease_id=uuid.uuid4().hex,
            reviewer=reviewer,
            mode=mode,
            question=question,
            purpose=purpose,
            order=order,
            position=number,
            asked_label=asked_label,
            suggestion=best,
            suggestion_shown=best is not None and shows_suggestion,
            previous_label=label,
            previous_source=self.rows.label_sources[position],
            round=self.rows.round,
            until=self.leases.until(),
        )

    def _grid(self, reviewer: str, taken: set[str]) -> list[Lease]:
        """Rows that the model predicts alike."""
        selected = predicted_alike(self.rows, self._free(self.open_positions(), reviewer, taken))
        return [] if selected is None else self._together(reviewer, selected[0], "grid", selected[1])

    def _duplicates(self, reviewer: str, taken: set[str]) -> list[Lease]:
        """The rows of the first group of near-duplicates that was not compared."""
        members = near_duplicates(self.rows, np.flatnonzero(self._is_asked), taken | self._compared)
        return self._together(reviewer, members, "duplicates", None)

    @property
    def _compared(self) -> set[str]:
        """Ids of the rows that were compared with their near-duplicates."""
        return {
            line.row_id
            for file in self.log.all_files().values()
            for line in active_answers(file.lines)
            if line.answer in {"keep", "duplicate"}
        }

    def _free(self, positions: NDArray[np.intp], reviewer: str, taken: set[str]) -> NDArray[np.intp]:
        """Leave out the rows on this page and on the pages of others."""
        held = taken | {row_id for row_id in self.leases.row_ids if self.leases.is_held_by_another(reviewer, row_id)}
        held_positions = self.rows.ids.positions(sorted(held))
        is_free = np.ones(len(self.rows), dtype=bool)
        is_free[held_positions[held_positions >= 0]] = False
        return positions[is_free[positions]]

    def _together(
        self, reviewer: str, positions: NDArray[np.intp], mode: Question, asked_label: str | None
    ) -> list[Lease]:
        """Leases of rows that are on the screen together."""
        lease_id, state = uuid.uuid4().hex, self._states[reviewer]
        leases = []
        for position in positions:
            lease = self._lease(reviewer, int(position), mode, "queue", mode, state.questions)
            state.questions += 1
            update = {"lease_id": lease_id, "asked_label": asked_label, "suggestion_shown": mode == "grid"}
            leases.append(lease.model_copy(update=update))
        return leases

    def answer(self, reviewer: str, answers: Sequence[AnswerFromPage]) -> list[str]:
        """Store answers; they are on the disk when this returns. Returns the ids of those that were new."""
        with self.lock:  # a change of the classes comes before or after the answers
            lines = [self._as_line(reviewer, answer) for answer in answers]
            new_lines = [line for line in self.log.append(reviewer, lines) if isinstance(line, Answer)]
            state = self._states[reviewer]
            for line in new_lines:
                state.count(line)
                if closes_row(line):
                    self._count_answer(line.row_id, +1)
                    self._answered_by[line.row_id].add(reviewer)
                self.decisions.answers.append(line)
            self.tally.add(new_lines)
            self.leases.end(reviewer, [line.row_id for line in lines if line.answer != "flag"])
            if new_lines:
                self.leases.save()
        if new_lines:
            self._on_answers(len(new_lines))
        return [line.id for line in new_lines]

    def _as_line(self, reviewer: str, answer: AnswerFromPage) -> Answer:
        values = answer.present_values(self.rows.classes, self.decisions.classes)
        lease = self.leases.of(reviewer, answer.row_id)
        if lease is not None:
            values |= {
                "purpose": lease.purpose,
                "order": lease.order,
                "position": lease.position,
                "suggestion": lease.suggestion,
                "suggestion_shown": lease.suggestion_shown,
                "previous_label": lease.previous_label,
                "previous_source": lease.previous_source,
                "round": lease.round,
            }
        return Answer(reviewer=reviewer, **values)

    def _count_answer(self, row_id: str, change: int) -> None:
        """Count a row that is answered for the first time, or that is no longer answered, if it was to be asked."""
        position = self.rows.ids.position(row_id)
        if row_id not in self._answered_by and position is not None and self._is_asked[position]:
            self._n_answered += change

    def take_back(self, reviewer: str, line: Undo) -> bool:
        """Store an undo or a redo. Returns whether it was new."""
        with self.lock:
            if not self.log.append(reviewer, [line]):
                return False
            state = self._states[reviewer]
            still_answered = answered_rows(active_answers(self.log.read(reviewer).lines), self.decisions.classes)
            for row_id in state.answered ^ still_answered:
                if row_id in still_answered:
                    self._count_answer(row_id, +1)
                    self._answered_by[row_id].add(reviewer)
                else:
                    self._answered_by[row_id].discard(reviewer)
                    if not self._answered_by[row_id]:
                        del self._answered_by[row_id]
                        self._count_answer(row_id, -1)
            state.answered = still_answered
            self.tally.add([line])
            self.decisions = decide(self.log.all_files())
        return True

    def change_classes(self, reviewer: str, line: ClassChange) -> tuple[str, ...]:
        """Store a change of the classes and apply it. Returns the present classes.

        Raises InputError if it does not fit the present classes.
        """
        with self.lock:
            if all(line.id != stored.id for stored in self.log.read(reviewer).lines):
                check_change(line, self.rows.classes)
            changes = [stored for stored in self.log.append(reviewer, [line]) if isinstance(stored, ClassChange)]
            if changes:
                self.load()
                self.leases.change_classes(ClassMap(changes).present_label)
        return self.rows.classes

    @property
    def class_change_count(self) -> int:
        """The number of changes of the classes, by which an open page knows that it has earlier ones."""
        return len(self.decisions.classes.changes)

    def history(self, reviewer: str, before: str | None, count: int) -> list[tuple[Answer, bool]]:
        """The reviewer's latest answers, the newest first, each with whether it was undone. before: an answer's id."""
        lines = self.log.read(reviewer).lines
        active = {answer.id for answer in active_answers(lines)}
        answers = [line for line in reversed(lines) if isinstance(line, Answer)]
        ids = [answer.id for answer in answers]
        start = ids.index(before) + 1 if before in ids else 0
        return [(answer, answer.id not in active) for answer in answers[start : start + count]]

    def present_decisions(self) -> Decisions:
        """The decisions of all answers so far."""
        return decide(self.log.all_files())

    def counts(self) -> Counter[str]:
        """The number of answers by reviewer."""
        with self.lock:
            return Counter({name: len(state.answered) for name, state in self._states.items()})
