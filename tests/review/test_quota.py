"""The quota of a run that waits for reviewers: which answers count, from when on, and how a growing log is read."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from seedling.config.review_params import ReviewParams
from seedling.review.address import remove_server_address, running_reviewer_url, write_server_address
from seedling.review.log import Line, ReviewLog
from seedling.review.quota import AnswerCount, StopRule, new_answers, quota_of, read_stop_rule, write_stop_rule
from seedling.review.records import Answer, Undo

HOUR = timedelta(hours=1)


def new_id() -> str:
    """The id of a line or a row."""
    return uuid.uuid4().hex


def answer(kind: str = "bad", **values: Any) -> Answer:
    """An answer about a row of its own."""
    label = {"label": "cat"} if kind == "label" else {"asked_label": "cat"} if kind == "reject" else {}
    fields = {"id": new_id(), "reviewer": "anna", "row_id": new_id(), "question": "label", "answer": kind}
    return Answer.model_validate({**fields, **label, "written_at": "2026-11-30T12:00:00.000+00:00", **values})


def undo(kind: str, *answers: Answer) -> Undo:
    """A line that takes answers back, or restores them."""
    ids = tuple(line.id for line in answers)
    return Undo.model_validate({"kind": kind, "id": new_id(), "reviewer": "anna", "answer_ids": ids})


def test_answers_that_decide_nothing_do_not_count() -> None:
    """Of nine kinds of answers, skip, unsure and flag decide nothing."""
    kinds = ("label", "reject", "none_of_these", "bad", "duplicate", "keep", "unsure", "skip", "flag")
    assert new_answers([answer(kind) for kind in kinds]) == 6


def test_undone_answers_count_again_once_they_are_restored() -> None:
    """Three answers, two undone, one restored, and one undone twice."""
    first, second, third = answer(), answer(), answer()
    lines: list[Line] = [first, second, third, undo("undo", first, second), undo("redo", second), undo("undo", first)]
    assert [new_answers(lines[:count]) for count in (3, 4, 5, 6)] == [3, 1, 2, 2]


def test_only_answers_after_the_last_run_count_in_any_time_zone() -> None:
    """Noon in UTC is 13:00 in Paris; a line without a time counts as the earliest, and undoing it changes nothing."""
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    old, new = answer(written_at=""), answer(written_at="2026-11-30T13:00:01.000+01:00")
    at_noon = answer(written_at="2026-11-30T13:00:00.000+01:00")
    assert new_answers([old, at_noon, new, undo("undo", old)], noon) == 1


def test_an_answer_that_is_sent_twice_counts_once(tmp_path: Path) -> None:
    """Also if git's union merge has put its line into the file twice."""
    log, count, sent = ReviewLog(tmp_path), AnswerCount(tmp_path / "reviews"), answer()
    log.append("anna", [sent])
    log.append("anna", [sent])
    path = tmp_path / "reviews" / "anna.jsonl"
    path.write_bytes(path.read_bytes() * 2)
    assert count() == 1


def test_a_growing_log_is_counted_from_where_it_was_read(tmp_path: Path) -> None:
    """Two reviewers; a line that is half written counts once it is complete; a damaged line never."""
    log, count = ReviewLog(tmp_path), AnswerCount(tmp_path / "reviews")
    assert count() == 0
    log.append("anna", [answer(), answer("skip")])
    assert count() == 1
    log.append("ben", [answer(), answer("label")])
    assert count() == 3
    path = tmp_path / "reviews" / "anna.jsonl"
    complete = path.read_bytes()
    half = complete.splitlines()[0].replace(b'"id":"', b'"id":"0', 1)
    path.write_bytes(complete + half[: len(half) // 2])
    assert count() == 3
    path.write_bytes(complete + half[: len(half) // 2] + b"\n")
    assert count() == 3
    log_after_restart = ReviewLog(tmp_path)
    log_after_restart.append("anna", [answer()])
    assert count() == 4


def test_a_log_that_git_has_replaced_is_counted_again(tmp_path: Path) -> None:
    """A checkout of an older commit makes the file shorter."""
    log, count = ReviewLog(tmp_path), AnswerCount(tmp_path / "reviews")
    log.append("anna", [answer()])
    path = tmp_path / "reviews" / "anna.jsonl"
    older = path.read_bytes()
    log.append("anna", [answer(), answer()])
    assert count() == 3
    path.write_bytes(older)
    assert count() == 1
    path.unlink()
    assert count() == 0


def test_a_long_log_is_read_once(tmp_path: Path) -> None:
    """After 5,000 lines, the count after one more line takes less than a twentieth of the first one's time."""
    log, count = ReviewLog(tmp_path), AnswerCount(tmp_path / "reviews")
    for _ in range(50):
        log.append("anna", [answer() for _ in range(100)])
    began = datetime.now(UTC)
    assert count() == 5_000
    first = datetime.now(UTC) - began
    log.append("anna", [answer()])
    began = datetime.now(UTC)
    assert count() == 5_001
    assert datetime.now(UTC) - began < first / 20


def test_the_quota_is_a_number_of_answers_or_the_panels_word() -> None:
    """100 answers by default; with until_enough, what the panel said since the last run."""
    now = datetime.now(UTC)
    rule_of_panel = StopRule(enough=True, reason="The gain is small.", written_at=now.isoformat())
    assert [quota_of(ReviewParams(), count, rule_of_panel).is_met for count in (99, 100)] == [False, True]
    assert str(quota_of(ReviewParams(), 99, None)) == "99 of 100 answers"
    enough = ReviewParams(until_enough=True)
    assert not quota_of(enough, 10_000, None).is_met
    assert quota_of(enough, 0, rule_of_panel, now - HOUR).is_met
    assert not quota_of(enough, 0, rule_of_panel, now + HOUR).is_met
    assert not quota_of(enough, 0, rule_of_panel.model_copy(update={"enough": False}), now - HOUR).is_met


def test_what_the_panel_says_is_kept_for_a_waiting_run(tmp_path: Path) -> None:
    """The last word counts; a damaged file is as none."""
    assert read_stop_rule(tmp_path) is None
    write_stop_rule(tmp_path, enough=False, reason="The gain is 2 points.")
    write_stop_rule(tmp_path, enough=True, reason="The gain is 0.1 points.")
    rule = read_stop_rule(tmp_path)
    assert rule is not None and rule.enough and rule.reason == "The gain is 0.1 points."
    (tmp_path / ".seedling/review/enough.json").write_text("{")
    assert read_stop_rule(tmp_path) is None


def test_the_address_of_a_server_is_known_while_its_process_lives(tmp_path: Path) -> None:
    """Only its user can read the token; a record of a killed server, or of something else, gives no address."""
    path = tmp_path / ".seedling/review/server.json"
    assert running_reviewer_url(tmp_path) is None
    write_server_address(tmp_path, "http://127.0.0.1:8765/?token=t")
    assert running_reviewer_url(tmp_path) == "http://127.0.0.1:8765/?token=t"
    assert path.stat().st_mode & 0o777 == 0o600
    other_start = path.read_text().replace('"started": ', '"started": 1')
    path.write_text(other_start)  # another process has the id by now
    assert running_reviewer_url(tmp_path) is None
    path.write_text(json.dumps({"url": "javascript:alert(1)", "pid": os.getpid()}))
    assert running_reviewer_url(tmp_path) is None
    write_server_address(tmp_path, "http://127.0.0.1:8766/")
    remove_server_address(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": 5}'])
def test_a_damaged_address_is_none(tmp_path: Path, content: str) -> None:
    """Whatever the file has."""
    path = tmp_path / ".seedling/review/server.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert running_reviewer_url(tmp_path) is None
