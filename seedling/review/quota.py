"""Whether reviewers have answered enough for a run that waits for them (`review.wait_after` in params.yaml).

new answers = #{a : a is decisive, was written after `since`, and is not undone}. The quota is met if this number is at
least `review.answers`; with `review.until_enough`, if the reviewer's panel says "enough" after `since`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from seedling.config.review_params import ReviewParams
from seedling.errors import DamagedFile
from seedling.records.record import Record
from seedling.review.log import CHECKSUM, Line
from seedling.review.records import LOG_LINE, Answer, ClassChange
from seedling.workspace import REVIEW_FILES, Workspace

BEGINNING = datetime.min.replace(tzinfo=UTC)


class StopRule(Record):
    """What the reviewer's panel says of further answers. written_at: ISO 8601; reason: one sentence."""

    enough: bool
    reason: str
    written_at: str


@dataclass(frozen=True)
class Quota:
    """The state of a wait for reviewers. needed: None if the run waits until the panel says "enough"."""

    answers: int
    needed: int | None
    is_enough: bool

    @property
    def is_met(self) -> bool:
        """Whether the run goes on."""
        return self.is_enough if self.needed is None else self.answers >= self.needed

    def __str__(self) -> str:
        if self.needed is None:
            return f"{self.answers:,} new answers; the panel says {'enough' if self.is_enough else 'not yet enough'}"
        return f"{self.answers:,} of {self.needed:,} answers"


@dataclass
class NewAnswers:
    """Counts new answers line by line. since: the time from which on answers are new."""

    since: datetime = BEGINNING
    _new: set[str] = field(default_factory=set)
    _undone: set[str] = field(default_factory=set)

    def add(self, lines: Iterable[Line]) -> None:
        """Count further lines, in the order of their file."""
        for line in lines:
            if isinstance(line, Answer):
                if line.is_decisive and _time(line.written_at) > self.since:
                    self._new.add(line.id)
            elif not isinstance(line, ClassChange):
                changed = set(line.answer_ids)
                self._undone = self._undone | changed if line.kind == "undo" else self._undone - changed

    @property
    def count(self) -> int:
        """The number of new answers that are not undone."""
        return len(self._new - self._undone)


def new_answers(lines: Iterable[Line], since: datetime = BEGINNING) -> int:
    """The number of new answers in the lines of one reviewer's file."""
    counter = NewAnswers(since)
    counter.add(lines)
    return counter.count


class AnswerCount:
    """Counts the new answers of a growing log; each call reads only what was written since the last one.

    Lines that are not valid are not counted, as `seedling.review.log` does not use them.
    """

    def __init__(self, folder: Path, since: datetime = BEGINNING) -> None:
        self._folder, self._since = folder, since
        self._counters: dict[Path, NewAnswers] = {}
        self._offsets: dict[Path, int] = {}

    def __call__(self) -> int:
        """The number of new answers at present."""
        paths = sorted(self._folder.glob(REVIEW_FILES))
        for path in paths:
            self._read(path)
        return sum(self._counters[path].count for path in paths if path in self._counters)

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._offsets.get(path, 0):  # git, or a full disk, has replaced or cut the file
                    self._offsets.pop(path)
                    self._counters.pop(path)
                offset = self._offsets.setdefault(path, 0)
                counter = self._counters.setdefault(path, NewAnswers(self._since))
                file.seek(offset)
                complete, _, _ = file.read(size - offset).rpartition(b"\n")
        except FileNotFoundError:
            return
        if complete:
            self._offsets[path] = offset + len(complete) + 1
            counter.add(_lines(complete))


def _lines(content: bytes) -> Iterable[Line]:
    for raw in content.split(b"\n"):
        try:
            values = json.loads(raw)
            values.pop(CHECKSUM, None)
            yield LOG_LINE.validate_python(values)
        except (ValueError, AttributeError, ValidationError):
            continue


def quota_of(params: ReviewParams, answers: int, stop_rule: StopRule | None, since: datetime = BEGINNING) -> Quota:
    """The state of the quota. stop_rule: what the panel says, None if it has said nothing."""
    is_enough = stop_rule is not None and stop_rule.enough and _time(stop_rule.written_at) > since
    return Quota(answers, None if params.until_enough else params.answers, is_enough)


def read_stop_rule(workspace: Path) -> StopRule | None:
    """What the panel said last; None if it has said nothing, or if the file is damaged."""
    try:
        return StopRule.read(Workspace(workspace).review_stop_rule)
    except (FileNotFoundError, DamagedFile):
        return None


def write_stop_rule(workspace: Path, *, enough: bool, reason: str) -> None:
    """Record what the panel says, for runs that wait until it says "enough"."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    StopRule(enough=enough, reason=reason, written_at=now).write(Workspace(workspace).review_stop_rule)


def _time(written_at: str) -> datetime:
    """The time of a line; lines without a valid one count as the earliest."""
    try:
        moment = datetime.fromisoformat(written_at)
    except ValueError:
        return BEGINNING
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
