"""From a folder without labels to a model: answers over HTTP, the next run, and DVC."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from seedling.dataset.generation import read, read_manifest, read_rejected
from seedling.records.manifest import read_notes
from seedling.records.stage_notes import ValidateNotes
from seedling.review.log import ReviewLog
from seedling.review.records import ClassChange
from seedling.workspace import Workspace

SEEDLING = str(Path(sys.executable).with_name("seedling"))
TOPICS = {
    "fruit": ["apple", "pear", "plum", "cherry", "grape", "melon"],
    "tool": ["hammer", "saw", "drill", "wrench", "chisel", "pliers"],
}
START_SECONDS = 120


def run(*arguments: str, folder: Path) -> str:
    """Run a command in the workspace. Returns what it printed."""
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Client:
    """A reviewer's page, as far as the API is concerned."""

    def __init__(self, address: str) -> None:
        self.base, _, self.token = address.partition("/?token=")

    def call(self, path: str, body: object = None, token: str | None = None) -> Any:
        """Send a request. Returns the JSON answer. Raises HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Review-Token": token or self.token, "Content-Type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def items(self, mode: str = "label", count: int = 10, **options: str) -> list[Any]:
        """The next screens."""
        query = "".join(f"&{name}={value}" for name, value in options.items())
        items: list[Any] = self.call(f"/api/items?mode={mode}&count={count}{query}")["items"]
        return items

    def answer(self, item: Any, kind: str, label: str | None = None, answer_id: str | None = None) -> str:
        """Answer a screen. Returns the id of the answer."""
        answer_id = answer_id or uuid.uuid4().hex
        answer = {"id": answer_id, "row_id": item["row_id"], "question": item["question"], "answer": kind}
        fields = {"label": label, "asked_label": item.get("asked_label"), "milliseconds": 600}
        saved = self.call("/api/answers", {"answers": [answer | fields]})["saved"]
        assert saved == [answer_id]
        return answer_id


@contextmanager
def reviewing(workspace: Path, *options: str) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """`seedling review` on any free port."""
    command = [SEEDLING, "review", "--no-browser", "--port", "0", "--reviewer", "anna", *options]
    process = subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output, deadline = "", time.monotonic() + START_SECONDS
    try:
        while "/?token=" not in output:
            line = process.stdout.readline()
            output += line
            assert line, output
            assert time.monotonic() < deadline, output
        address = next(word for word in output.split() if "/?token=" in word)
        yield Client(address), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@pytest.fixture
def unlabeled(tmp_path: Path) -> Path:
    """A workspace of texts without any label."""
    source = tmp_path / "source"
    source.mkdir()
    for topic, words in TOPICS.items():
        for number in range(24):
            pair = f"{words[number % 6]} and {words[(number + 1 + number // 6) % 6]}"
            (source / f"{topic}-{number}.txt").write_text(f"number {number}: a {pair} for sale")
    run(
        SEEDLING,
        "init",
        "workspace",
        "--texts",
        "source",
        "--labels",
        "fruit,tool",
        "--encoder",
        "none",
        folder=tmp_path,
    )
    return tmp_path / "workspace"


def topic_of(item: Any) -> str:
    """The true class of a row, by the name of its file."""
    return str(item["origin"]).rpartition("/")[2].partition("-")[0]


@pytest.mark.slow
def test_labels_that_a_reviewer_gave_become_a_model(unlabeled: Path) -> None:
    """Without a label, `seedling run` names the review; after it, every decision is in validate, and DVC agrees."""
    refused = subprocess.run([SEEDLING, "run"], cwd=unlabeled, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "seedling review" in refused.stderr + refused.stdout
    with reviewing(unlabeled) as (client, _):
        labeled: dict[str, str] = {}
        bad, outside = None, None
        while len(labeled) < 24:
            for item in client.items(count=4):
                if bad is None:
                    bad = item["row_id"]
                    client.answer(item, "bad")
                elif outside is None:
                    outside = item["row_id"]
                    client.answer(item, "none_of_these")
                else:
                    labeled[item["row_id"]] = topic_of(item)
                    client.answer(item, "label", topic_of(item))
        undone = next(iter(labeled))
        history = client.call("/api/history?count=100")["answers"]
        answer_id = next(entry["id"] for entry in history if entry["row_id"] == undone)
        client.call("/api/undo", {"id": uuid.uuid4().hex, "answer_ids": [answer_id]})
        del labeled[undone]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            client.call("/api/panel", token="wrong")  # noqa: S106  (not a secret)
    output = run(SEEDLING, "run", folder=unlabeled)
    assert "reviews" in output  # of the command that commits the run
    validated = unlabeled / "generations/validate"
    rows = read(validated, ["id", "label", "label_source", "split"]).set_index("id")
    reviewed = rows[rows["label_source"] == "review"]
    assert reviewed["label"].to_dict() == labeled
    assert rows["split"].to_dict()[outside] == "out_of_scope"
    assert read_rejected(validated, ["id", "reason"]).to_dict("records") == [{"id": bad, "reason": "review:bad"}]
    notes = read_notes(validated, ValidateNotes).reviews
    assert notes is not None
    assert notes.decisions == {"bad": 1, "label": len(labeled), "none_of_these": 1}
    predictions = pd.read_parquet(unlabeled / "reports/predictions.parquet")
    assert (predictions["label"] == predictions["predicted"]).mean() > 0.7
    assert "up to date" in run(sys.executable, "-m", "dvc", "status", folder=unlabeled)


@pytest.mark.soak
def test_answers_are_an_input_of_validate_for_dvc_and_for_clones(unlabeled: Path, tmp_path: Path) -> None:
    """A new answer makes `dvc status` name validate; a clone with the log gives the same bytes by `dvc repro`."""
    with reviewing(unlabeled) as (client, _):
        for _ in range(4):
            for item in client.items(count=4):
                client.answer(item, "label", topic_of(item))
    run(SEEDLING, "stage", "validate", folder=unlabeled)
    before = (unlabeled / "generations/validate/manifest.json").read_bytes()
    clone = tmp_path / "clone"
    shutil.copytree(unlabeled, clone, ignore=shutil.ignore_patterns("generations", ".seedling"))
    shutil.rmtree(clone / "generations", ignore_errors=True)
    run(sys.executable, "-m", "dvc", "repro", "validate", folder=clone)
    assert (clone / "generations/validate/manifest.json").read_bytes() == before
    with reviewing(unlabeled) as (client, _):
        (item, *_) = client.items(count=1)
        client.answer(item, "bad")
    status = json.loads(run(sys.executable, "-m", "dvc", "status", "--json", folder=unlabeled))
    assert {"changed deps": {"reviews": "modified"}} in status["validate"]


@pytest.mark.slow
def test_a_reviewer_returns_to_the_same_row_after_the_server_was_killed(unlabeled: Path) -> None:
    """Between key and acknowledgment: the page sends the answer again with its id, and it is stored once."""
    with reviewing(unlabeled) as (client, process):
        first, second, *_ = client.items(count=5)
        answer_id = client.answer(first, "label", topic_of(first))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with reviewing(unlabeled) as (client, _):
        client.answer(first, "label", topic_of(first), answer_id)
        assert client.items(count=1)[0]["row_id"] == second["row_id"]
        assert len(client.call("/api/history")["answers"]) == 1
        assert client.call("/api/panel")["answers"] == 1
        client.call("/api/items?mode=label&count=1&order=newest")


@pytest.mark.slow
def test_two_reviewers_never_get_the_same_row_unless_they_should(unlabeled: Path) -> None:
    """A row on one screen is leased; with an overlap of 1, the second reviewer gets rows that the first answered."""
    with reviewing(unlabeled, "--reviewer", "ben", "--overlap", "1") as (anna, process):
        assert process.stdout is not None
        ben = Client(next(word for word in process.stdout.readline().split() if "/?token=" in word))
        of_anna, of_ben = anna.items(count=8), ben.items(count=8)
        assert not {item["row_id"] for item in of_anna} & {item["row_id"] for item in of_ben}
        answered = [item["row_id"] for item in of_anna if anna.answer(item, "label", topic_of(item))]
        for item in of_ben:
            ben.answer(item, "label", topic_of(item))
        shared = [item for item in ben.items(count=8) if item["row_id"] in answered]
        assert len(shared) >= 6  # some of the questions have another purpose
        assert not any(item["suggestion_shown"] or item["previous_label"] for item in shared)


@pytest.mark.soak
def test_evaluate_alone_after_a_renamed_class_names_the_command(finished_copy: Path) -> None:
    """Validate has the new class, and the model the old one: an explained error instead of a traceback."""
    old = str(load_classes(finished_copy)[0])
    change = ClassChange(id=uuid.uuid4().hex, reviewer="anna", operation="rename", old=(old,), new=("renamed",))
    ReviewLog(finished_copy).append("anna", [change])
    run(SEEDLING, "stage", "validate", folder=finished_copy)
    done = subprocess.run([SEEDLING, "stage", "evaluate"], cwd=finished_copy, capture_output=True, text=True)
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert f"The model was trained on other classes than the data has now ({old}, renamed)" in message
    assert "unexpected error" not in message


def load_classes(workspace: Path) -> tuple[str, ...]:
    """The classes of validate."""
    return read_manifest(Workspace(workspace).generation("validate")).classes
