"""The review log: no answer is lost or stored twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from seedling.errors import InputError
from seedling.review.log import ReviewLog, read_file, read_log, reviewer_name
from seedling.review.records import Answer, ClassChange, Undo

ROW = "0123456789abcdef0123456789abcdef"


def answer(label: str = "cat", row_id: str = ROW, **values: object) -> Answer:
    """An answer with a new id."""
    values = {"id": uuid.uuid4().hex, "reviewer": "anna", "question": "label", "answer": "label", **values}
    return Answer.model_validate({"row_id": row_id, "label": label} | values)


def test_an_answer_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    """With its fields, and a time of the server."""
    line = answer("cat", note="blurred", milliseconds=640)
    ReviewLog(tmp_path).append("anna", [line])
    (stored,) = read_file(tmp_path / "reviews/anna.jsonl").lines
    assert isinstance(stored, Answer)
    assert (stored.label, stored.note, stored.milliseconds) == ("cat", "blurred", 640)
    assert abs(datetime.fromisoformat(stored.written_at) - datetime.now(UTC)).total_seconds() < 60


def test_an_answer_that_is_sent_again_is_stored_once(tmp_path: Path) -> None:
    """Also by another process, after the first was killed before it acknowledged the answer."""
    line = answer()
    assert [stored.id for stored in ReviewLog(tmp_path).append("anna", [line, line])] == [line.id]
    assert ReviewLog(tmp_path).append("anna", [line]) == []
    assert len(read_file(tmp_path / "reviews/anna.jsonl").lines) == 1


def test_a_line_that_was_cut_is_counted_and_does_not_damage_the_next_one(tmp_path: Path) -> None:
    """The line before it and the line after it remain."""
    log = ReviewLog(tmp_path)
    log.append("anna", [answer("cat")])
    path = tmp_path / "reviews/anna.jsonl"
    with path.open("ab") as file:
        file.write(path.read_bytes()[:40])
    ReviewLog(tmp_path).append("anna", [answer("dog")])
    content = read_file(path)
    assert [line.label for line in content.lines if isinstance(line, Answer)] == ["cat", "dog"]
    assert content.damaged == [2]


def test_a_line_that_was_edited_by_hand_is_used_and_counted(tmp_path: Path) -> None:
    """Its checksum no longer matches."""
    ReviewLog(tmp_path).append("anna", [answer("cat"), answer("dog")])
    path = tmp_path / "reviews/anna.jsonl"
    path.write_text(path.read_text().replace('"label":"dog"', '"label":"horse"'))
    content = read_file(path)
    assert [line.label for line in content.lines if isinstance(line, Answer)] == ["cat", "horse"]
    assert content.edited == [2]


def test_conflict_markers_of_git_are_an_error_that_names_the_line(tmp_path: Path) -> None:
    """Without it, lines of both sides would be used and the markers silently dropped."""
    path = tmp_path / "anna.jsonl"
    path.write_text("<<<<<<< HEAD\n")
    with pytest.raises(InputError, match="conflict markers in line 1"):
        read_file(path)


def test_a_line_of_a_later_version_is_an_error(tmp_path: Path) -> None:
    """It may mean something else than this version reads."""
    path = tmp_path / "anna.jsonl"
    path.write_text(json.dumps({"kind": "answer", "version": 99}) + "\n")
    with pytest.raises(InputError, match="version 99 is of a later Seedling"):
        read_file(path)


def test_times_do_not_decrease_if_the_clock_goes_back(tmp_path: Path) -> None:
    """The second line is written by a process whose last line is in the future."""
    log = ReviewLog(tmp_path)
    log.append("anna", [answer()])
    path = tmp_path / "reviews/anna.jsonl"
    path.write_text(path.read_text().replace('"written_at":"20', '"written_at":"21'))
    ReviewLog(tmp_path).append("anna", [answer()])
    first, second = read_file(path).lines
    assert second.written_at >= first.written_at


def test_answers_after_a_change_of_the_classes_are_later_than_it(tmp_path: Path) -> None:
    """Anna's clock is a day ahead; ben's change is later than her answer, and cleo's answer is not before the change."""
    log = ReviewLog(tmp_path)
    ahead = answer("cat", written_at=(datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="milliseconds"))
    path = tmp_path / "reviews/anna.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(ahead.model_dump(mode="json")) + "\n", encoding="utf-8")
    log.all_files()
    rename = ClassChange(id="c" * 32, reviewer="ben", operation="rename", old=("cat",), new=("feline",))
    (change,) = log.append("ben", [rename])
    (last,) = log.append("cleo", [answer("cat", reviewer="cleo")])
    assert ahead.written_at < change.written_at <= last.written_at


def test_a_time_that_was_edited_by_hand_does_not_count_as_a_time(tmp_path: Path) -> None:
    """The next answer and the next change of the classes have the time of the server."""
    path = tmp_path / "reviews/anna.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(answer(written_at="unknown").model_dump(mode="json")) + "\n", encoding="utf-8")
    log = ReviewLog(tmp_path)
    add = ClassChange(id="c" * 32, reviewer="anna", operation="add", new=("dog",))
    for line in log.append("anna", [answer(), add]):
        assert abs(datetime.fromisoformat(line.written_at) - datetime.now(UTC)).total_seconds() < 60


@pytest.mark.parametrize("name", ["", "../anna", "a/b", ".hidden", "anna\n", "x" * 65])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    """A reviewer's name is the name of a file."""
    with pytest.raises(InputError, match="cannot be the name of a reviewer"):
        reviewer_name(name)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A workspace from a stranger could make the log append to any file."""
    (tmp_path / "reviews").mkdir()
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "reviews/anna.jsonl").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        ReviewLog(tmp_path).append("anna", [answer()])
    assert target.read_text() == ""


def test_a_full_disk_stores_nothing_and_the_next_attempt_succeeds(tmp_path: Path) -> None:
    """A limit on the size of files fails the write in its middle, as a full disk does."""
    script = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_log import ReviewLog, answer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = ReviewLog(Path({str(tmp_path)!r}))
log.append("anna", [answer("cat")])
size = Path({str(tmp_path / "reviews/anna.jsonl")!r}).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
line = answer("dog")
try:
    log.append("anna", [line])
except OSError:
    print("failed", Path({str(tmp_path / "reviews/anna.jsonl")!r}).stat().st_size == size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(len(log.append("anna", [line])))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["failed", "True", "1"]
    assert len(read_file(tmp_path / "reviews/anna.jsonl").lines) == 2


@pytest.mark.soak
def test_kills_at_random_moments_lose_no_acknowledged_answer_and_store_none_twice(tmp_path: Path) -> None:
    """200 processes are killed while they store answers; each sends the unacknowledged one again."""
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_log import ReviewLog, answer
log = ReviewLog(Path(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    log.append("anna", [answer("cat", id=line.strip())])
    print(line.strip(), flush=True)
"""
    acknowledged: list[str] = []
    pending: list[str] = []
    for number in range(200):
        command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        sent = [*pending, *(uuid.uuid4().hex for _ in range(20))]
        process.stdin.write("\n".join(sent) + "\n")
        process.stdin.flush()
        answered = [process.stdout.readline().strip() for _ in range(number % 15)]
        os.kill(process.pid, signal.SIGKILL)
        answered += process.stdout.read().split()
        process.wait()
        acknowledged += answered
        pending = [line_id for line_id in sent if line_id not in set(answered)]
    content = read_file(tmp_path / "reviews/anna.jsonl")
    ids = [line.id for line in content.lines]
    assert len(ids) == len(set(ids))
    assert set(acknowledged) <= set(ids)
    assert len(acknowledged) > 500


def test_each_reviewer_has_a_file(tmp_path: Path) -> None:
    """So that git merges the answers of different reviewers without conflict."""
    log = ReviewLog(tmp_path)
    log.append("anna", [answer()])
    log.append("ben", [answer()])
    log.append("ben", [Undo(kind="undo", id=uuid.uuid4().hex, reviewer="ben", answer_ids=(uuid.uuid4().hex,))])
    assert {name: len(file.lines) for name, file in read_log(tmp_path / "reviews").items()} == {"anna": 1, "ben": 2}
