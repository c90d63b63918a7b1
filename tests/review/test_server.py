"""The API of the review page: what it sends, what it stores, and its answers to bad input."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from answers import AnswerMaker
from starlette.testclient import TestClient

from seedling.config.params import set_value
from seedling.dataset.generation import GenerationWriter, Modality, Row, identify
from seedling.errors import InputError
from seedling.init.create import make_workspace
from seedling.media import images
from seedling.review.background import RankingTask
from seedling.review.log import ReviewLog, read_file
from seedling.review.page_answers import AnswerFromPage
from seedling.review.records import ClassChange
from seedling.review.server import ReviewServer, review_application
from seedling.review.session import ReviewSession
from seedling.workspace import Workspace

TOKENS = {"secret-of-anna": "anna", "secret-of-ben": "ben"}
SCRIPT = "<script>alert(1)</script>"


def write_rows(workspace: Path, rows: list[Row], classes: list[str], modality: Modality) -> None:
    """Write the generations of scrape and validate."""
    paths = Workspace(workspace)
    extra: list[pa.Field[Any]] = [pa.field("p_label_error", pa.float32()), pa.field("original_label", pa.string())]
    for stage, with_images in (("scrape", True), ("validate", False)):
        columns = extra if stage == "validate" else extra[:0]
        with GenerationWriter(
            paths.generation(stage),
            stage=stage,
            modality=modality,
            images=with_images,
            extra=columns,
        ) as writer:
            for row in rows:
                extra_values = {"p_label_error": None, "original_label": None} if columns else {}
                writer.keep(replace(row, extra=extra_values))
            writer.close(rows_in=len(rows), classes=classes if stage == "validate" else ())


def text_row(text: str, label: str | None = None, split: str = "pool") -> Row:
    """A row of the pool, or a labeled one."""
    row_id = identify(text.encode())
    source = "human" if label else None
    return Row(row_id, split, label=label, label_source=source, payload=text, group=row_id, origin=f"{label}/a.txt")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Two labeled texts and 30 of the pool, one of them long and one with markup."""
    folder = make_workspace(tmp_path / "workspace", None, "text", encoder="none")
    texts = [f"text number {number}" for number in range(28)]
    rows = [text_row("a cat", "cat", "train"), text_row("a dog", "dog", "train")]
    rows += [text_row(text) for text in [*texts, "word " * 40_000, SCRIPT]]
    write_rows(folder, rows, ["cat", "dog"], "text")
    return folder


@pytest.fixture
def client(workspace: Path) -> Iterator[TestClient]:
    """A client of anna."""
    session = ReviewSession.of(workspace)
    application = review_application(session, TOKENS, "workspace")
    with TestClient(application, headers={"X-Review-Token": "secret-of-anna"}) as test_client:
        yield test_client


def items(client: TestClient, mode: str = "label", count: int = 40) -> list[dict[str, Any]]:
    """The next screens."""
    response = client.get("/api/items", params={"mode": mode, "count": count})
    assert response.status_code == 200, response.text
    queue_items: list[dict[str, Any]] = response.json()["items"]
    return queue_items


def answer(item: dict[str, Any], **values: object) -> dict[str, Any]:
    """An answer about a screen."""
    fields = {"id": uuid.uuid4().hex, "row_id": item["row_id"], "question": item["question"], "milliseconds": 500}
    return fields | values


def test_every_row_is_sent_once_and_in_the_same_order_after_a_reload(client: TestClient) -> None:
    """A reload has no rows to skip, and gets those that were not answered."""
    first = [item["row_id"] for item in items(client)]
    assert len(first) == len(set(first)) == 32
    assert [item["row_id"] for item in items(client)] == first


def test_without_the_right_token_nothing_is_sent_or_stored(client: TestClient, workspace: Path) -> None:
    """Neither page, nor rows, nor answers."""
    (item, *_) = items(client)
    for headers in ({"X-Review-Token": "wrong"}, {"X-Review-Token": ""}):
        assert client.get("/api/items", headers=headers).status_code == 403
        refused = client.post("/api/answers", json={"answers": [answer(item, answer="bad")]}, headers=headers)
        assert refused.status_code == 403
        assert "open the address that `seedling review` printed" in refused.json()["error"]
    assert client.get("/").status_code == 403
    page = client.get("/", params={"token": "wrong"})
    assert page.status_code == 403 and page.headers["content-type"].startswith("text/html")
    assert "Open the address that <code>seedling review</code> printed" in page.text and "workspace" not in page.text
    assert not (workspace / "reviews/anna.jsonl").exists()


def test_an_answer_is_on_the_disk_with_what_the_page_showed(client: TestClient, workspace: Path) -> None:
    """The server adds the former label and the position; the page cannot change them."""
    item = next(item for item in items(client) if item["text"] == "a cat")
    sent = answer(item, answer="label", label="dog", previous_label="forged", purpose="gold")
    response = client.post("/api/answers", json={"answers": [sent]})
    assert response.json()["saved"] == [sent["id"]]
    (line,) = read_file(workspace / "reviews/anna.jsonl").lines
    assert (line.label, line.previous_label, line.previous_source) == ("dog", "cat", "human")  # type: ignore[union-attr]
    assert line.purpose in {"queue", "random"}  # type: ignore[union-attr]


def test_an_answer_that_is_sent_twice_is_stored_once(client: TestClient, workspace: Path) -> None:
    """The page sends it until it is acknowledged, from two tabs, too."""
    sent = answer(items(client)[0], answer="bad")
    for _ in range(3):
        assert client.post("/api/answers", json={"answers": [sent, sent]}).json()["saved"] == [sent["id"]] * 2
    assert len(read_file(workspace / "reviews/anna.jsonl").lines) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"answer": "label"}, "an answer has a label if and only if"),
        ({"answer": "reject"}, "needs `asked_label`"),
        ({"answer": "label", "label": "x" * 1_001}, "label"),
        ({"answer": "delete everything"}, "answer"),
        ({"answer": "bad", "row_id": "../../etc/passwd"}, "row_id"),
        ({"answer": "bad", "id": "1"}, "id"),
        ({"answer": "flag", "note": "x" * 2_001}, "note"),
    ],
)
def test_invalid_answers_are_refused_with_a_reason(
    client: TestClient, workspace: Path, values: dict[str, Any], message: str
) -> None:
    """Nothing of the request is stored."""
    (item, *_) = items(client)
    response = client.post("/api/answers", json={"answers": [answer(item, **values)]})
    assert response.status_code == 400
    assert message in response.json()["error"]
    assert not (workspace / "reviews/anna.jsonl").exists()


def test_a_long_text_is_cut_and_marked(client: TestClient) -> None:
    """200,000 characters would delay each key."""
    item = next(item for item in items(client) if item["text"].startswith("word"))
    assert len(item["text"]) == 20_000
    assert item["text_cut"] is True


def test_markup_in_texts_and_classes_is_data(workspace: Path) -> None:
    """The page has its configuration in a JSON block, which a class name must not end."""
    set_value(workspace, ["review", "classes"], [SCRIPT, "x" * 200])
    application = review_application(ReviewSession.of(workspace), TOKENS, SCRIPT)
    with TestClient(application) as client:
        page = client.get("/", params={"token": "secret-of-anna"})
    assert "alert(1)" in page.text
    assert SCRIPT not in page.text
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]


def test_a_thousand_classes_are_in_the_page(workspace: Path) -> None:
    """With those of the data."""
    set_value(workspace, ["review", "classes"], [f"class {number}" for number in range(1_000)])
    assert len(ReviewSession.of(workspace).queue.rows.classes) == 1_002


def test_an_empty_queue_is_reported(client: TestClient) -> None:
    """After all rows were answered."""
    answers = [answer(item, answer="bad") for item in items(client)]
    client.post("/api/answers", json={"answers": answers})
    result = client.get("/api/items", params={"mode": "label"}).json()
    assert (result["items"], result["remaining"]) == ([], 0)
    panel = client.get("/api/panel").json()
    assert (panel["enough"], panel["reason"]) == (True, "Every row has been answered.")


def test_a_row_that_does_not_exist_is_an_error_that_names_it(client: TestClient) -> None:
    """For example from a link in an old report."""
    response = client.get(f"/api/item/{'0' * 32}")
    assert response.status_code == 404
    assert "0" * 32 in response.json()["error"]


def test_answers_about_rows_of_another_workspace_are_kept_and_do_nothing(workspace: Path) -> None:
    """The log was copied from elsewhere: its rows are not in this queue."""
    session = ReviewSession.of(workspace)
    with TestClient(review_application(session, TOKENS, "x"), headers={"X-Review-Token": "secret-of-anna"}) as client:
        foreign = {"row_id": "f" * 32, "question": "label"}
        client.post("/api/answers", json={"answers": [answer(foreign, answer="label", label="cat")]})
        assert len(items(client)) == 32
    assert ReviewSession.of(workspace).queue.remaining == 32


def test_undo_works_after_a_restart(workspace: Path) -> None:
    """The history is in the log, not in the page."""
    with TestClient(review_application(ReviewSession.of(workspace), TOKENS, "x")) as client:
        client.headers["X-Review-Token"] = "secret-of-anna"
        item = items(client)[0]
        client.post("/api/answers", json={"answers": [answer(item, answer="bad")]})
    session = ReviewSession.of(workspace)
    with TestClient(review_application(session, TOKENS, "x")) as client:
        client.headers["X-Review-Token"] = "secret-of-anna"
        (entry,) = client.get("/api/history").json()["answers"]
        client.post("/api/undo", json={"id": uuid.uuid4().hex, "answer_ids": [entry["id"]]})
        assert client.get("/api/history").json()["answers"][0]["undone"] is True
        assert session.queue.remaining == 32
        client.post("/api/redo", json={"id": uuid.uuid4().hex, "answer_ids": [entry["id"]]})
        assert session.queue.remaining == 31


def test_a_renamed_class_is_renamed_everywhere(client: TestClient) -> None:
    """In the page's classes, in labels of the data, and in earlier answers."""
    item = next(item for item in items(client) if item["text"] == "a dog")
    client.post("/api/answers", json={"answers": [answer(item, answer="label", label="cat")]})
    change = {"id": uuid.uuid4().hex, "operation": "rename", "old": ["cat"], "new": ["feline"]}
    assert client.post("/api/classes", json=change).json()["classes"] == ["dog", "feline"]
    session = client.app.routes  # type: ignore[attr-defined]
    assert session
    other = client.get("/api/items", params={"mode": "verify", "count": 40}).json()["items"]
    labels = {entry["asked_label"] for entry in other if entry.get("text") == "a cat"}
    assert labels <= {"feline", None}


def test_random_rows_are_asked_without_a_hint(workspace: Path) -> None:
    """Neither suggestion, nor label, nor the folder that names the class."""
    set_value(workspace, ["review", "random_share"], 0.5)
    set_value(workspace, ["review", "gold_share"], 0)
    set_value(workspace, ["review", "repeat_share"], 0)
    session = ReviewSession.of(workspace)
    with TestClient(review_application(session, TOKENS, "x"), headers={"X-Review-Token": "secret-of-anna"}) as client:
        leases = {lease.row_id: lease for lease in session.queue.next_leases("anna", "verify", "random", 40)}
        screens = {item["row_id"]: item for item in items(client, "verify")}
    random_ids = [row_id for row_id, lease in leases.items() if lease.purpose == "random"]
    assert len(random_ids) >= 8
    for row_id in random_ids:
        item = screens[row_id]
        assert (item["question"], item["asked_label"], item["suggestions"]) == ("label", None, [])
        assert item["previous_label"] is None
        assert "/" not in item["origin"] or leases[row_id].previous_label is None


@pytest.mark.slow
def test_images_are_encoded_again_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    """A large image is reduced, and a row without a file answers 404 with its id."""
    folder = make_workspace(tmp_path / "workspace", None, "image", encoder="none")
    noise = np.random.default_rng(0).integers(0, 255, (300, 5_000, 3)).astype(np.uint8)
    row = Row("a" * 32, "train", label="x", label_source="human", payload=images.encode(noise), group="a", origin="x/a")
    damaged = Row("b" * 32, "train", label="y", label_source="human", payload=b"not an image", group="b", origin="y/b")
    write_rows(folder, [row, damaged], ["x", "y"], "image")
    with TestClient(review_application(ReviewSession.of(folder), TOKENS, "x")) as client:
        token = {"token": "secret-of-anna"}
        large = client.get(f"/image/{'a' * 32}", params={**token, "side": 0})
        assert large.headers["content-type"] == "image/jpeg"
        assert images.decode(large.content, 64).shape == (246, 4_096, 3)
        assert (
            images.decode(client.get(f"/image/{'a' * 32}", params={**token, "side": 256}).content, 64).shape[1] == 256
        )
        for row_id in ("b" * 32, "c" * 32):
            missing = client.get(f"/image/{row_id}", params=token)
            assert missing.status_code == 404
            assert row_id in missing.json()["error"]
        assert client.get(f"/image/{'a' * 32}").status_code == 403


@pytest.mark.slow
def test_a_second_server_and_a_port_in_use_are_errors_with_a_remedy(workspace: Path, tmp_path: Path) -> None:
    """Two servers of a workspace would give the same rows twice."""
    server = ReviewServer(ReviewSession.of(workspace), ["anna"], "127.0.0.1", 0)
    server.start()
    try:
        record = json.loads((workspace / ".seedling/review/server.json").read_text())
        assert record["url"] == server.addresses["anna"]
        with pytest.raises(InputError, match=r"already running at http://127\.0\.0\.1"):
            ReviewServer(ReviewSession.of(workspace), ["anna"], "127.0.0.1", 0)
        other = make_workspace(tmp_path / "other", None, "text", encoder="none")
        write_rows(other, [text_row("a", "x", "train"), text_row("b", "y", "train")], ["x", "y"], "text")
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(InputError, match="choose another --port"):
            ReviewServer(ReviewSession.of(other), ["anna"], "127.0.0.1", port)
    finally:
        server.stop()
    assert not (workspace / ".seedling/review/server.json").exists()


def test_the_suggestion_for_a_labeled_row_comes_from_heads_that_have_not_seen_its_label(tmp_path: Path) -> None:
    """Without a model, a text about dogs that is labeled cat gets the suggestion dog."""
    workspace = make_workspace(tmp_path / "workspace", None, "text", encoder="none")
    cats = [text_row(f"the cat number {number} meows at the mouse", "cat", "train") for number in range(20)]
    dogs = [text_row(f"the dog number {number} barks at the ball", "dog", "train") for number in range(20)]
    wrong = text_row("the dog number 99 barks at the ball", "cat", "train")
    write_rows(workspace, [*cats, *dogs, wrong], ["cat", "dog"], "text")
    session = ReviewSession.of(workspace)
    queue = session.queue
    task = RankingTask(queue.rows, "label_issues", queue.open_positions(), queue.present_decisions(), 0)
    session.ranker.rank_now(task)
    lease = queue.lease_row("anna", wrong.id, "verify")
    assert lease is not None
    screen = session.items().item(lease)
    assert screen["asked_label"] == "cat"
    assert screen["suggestions"][0]["label"] == "dog" and screen["suggestions"][0]["probability"] > 0.6


def test_a_review_of_the_test_split_expects_no_gain(workspace: Path) -> None:
    """Its answers train no model, so that the accuracies of earlier refits are not shown; its order is random."""
    session = ReviewSession.of(workspace, split="test")
    for answers in (20, 40, 60):
        session.ranker.history.add(answers, (0.5 + answers / 200, 0.4, 0.9))
    panel = session.panel("anna")
    assert panel["expected_gain"] is None and not panel["accuracy_history"]
    client = TestClient(review_application(session, TOKENS, "workspace"))
    page = client.get("/", params={"token": "secret-of-anna"}).text
    assert '"orders": ["random"]' in page and '"modes": ["label"]' in page


def test_the_test_split_is_asked_without_suggestions_and_in_the_same_order_whatever_is_requested(
    tmp_path: Path,
) -> None:
    """Also if a page asks for the mode verify, or for another order; the label of the data is hidden, too."""
    workspace = make_workspace(tmp_path / "workspace", None, "text", encoder="none")
    training = [text_row(f"the {name} number {n}", name, "train") for name in ("cat", "dog") for n in range(20)]
    test = [text_row(f"the {name} with the number {n}", name, "test") for name in ("cat", "dog") for n in range(10)]
    write_rows(workspace, [*training, *test], ["cat", "dog"], "text")
    session = ReviewSession.of(workspace, split="test")
    session.queue.rows.probabilities[:] = (0.9, 0.1)  # as if a model had predicted the rows
    orders = set()
    for mode, order in (("verify", "margin"), ("label", "newest"), ("grid", "random")):
        leases = session.queue.next_leases("anna", mode, order, 20)  # type: ignore[arg-type]
        for item in session.items().screens(leases):
            assert (item["question"], item["suggestions"], item["previous_label"]) == ("label", [], None)
            assert item["asked_label"] is None
        orders.add(tuple(lease.row_id for lease in leases))
    assert len(orders) == 1 and len(next(iter(orders))) == 20


@pytest.mark.slow
def test_rows_whose_answers_take_the_reviewer_less_time_come_earlier(tmp_path: Path) -> None:
    """Of the same rows, half labeled and half not: the kind that the log's answers took less time for comes first."""
    positions = {}
    for fast in ("labels", "pool"):
        workspace = make_workspace(tmp_path / fast, None, "text", encoder="none")
        labeled = [text_row(f"the {name} number {n}", name, "train") for name in ("cat", "dog") for n in range(30)]
        pool = [text_row(f"the {name} with the number {n}") for name in ("cat", "dog") for n in range(30)]
        write_rows(workspace, [*labeled, *pool], ["cat", "dog"], "text")
        answer_times = AnswerMaker()
        for number in range(20):
            for kind, label in (("labels", "cat"), ("pool", None)):
                milliseconds = 500 if kind == fast else 2_000
                answer_times(number, "cat", milliseconds=milliseconds, previous_label=label, purpose="queue")
        ReviewLog(workspace).append("anna", answer_times.lines)
        session = ReviewSession.of(workspace)
        queue = session.queue
        session.ranker.rank_now(
            RankingTask(queue.rows, "expected_value", queue.open_positions(), queue.present_decisions(), 0)
        )
        ranked = queue.ranking("expected_value").positions
        positions[fast] = float(np.flatnonzero(queue.rows.labels.is_known[ranked]).mean())
    assert positions["labels"] < positions["pool"]


def sent_answer(number: int, row_id: str, label: str, **values: Any) -> AnswerFromPage:
    """The answer with this number, as a page sends it."""
    return AnswerFromPage(id=f"{number:032x}", row_id=row_id, question="label", answer="label", label=label, **values)


def test_an_answer_of_a_page_that_did_not_know_a_reused_name_is_about_its_former_class(workspace: Path) -> None:
    """Cat becomes feline, and dog becomes cat: "cat" of a page from before is feline, and of a new page the former dog."""
    queue = ReviewSession.of(workspace).queue
    for number, (old, new) in enumerate((("cat", "feline"), ("dog", "cat"))):
        change = ClassChange(id=f"{number + 100:032x}", reviewer="ben", operation="rename", old=(old,), new=(new,))
        queue.change_classes("ben", change)
    for number, known_changes in enumerate((0, 1, 2, None)):
        queue.answer("anna", [sent_answer(number, queue.rows.ids[number + 2], "cat", class_change_count=known_changes)])
    labels = [queue.present_decisions().by_row[queue.rows.ids[number + 2]].label for number in range(4)]
    assert labels == ["feline", "cat", "cat", "cat"]


def test_a_row_whose_last_answer_named_a_split_class_is_asked_again(workspace: Path) -> None:
    """First dog, then cat; after cat is split, the row has no decision, and is open again."""
    session = ReviewSession.of(workspace)
    row_id = session.queue.rows.ids[5]
    for number, label in enumerate(("dog", "cat")):
        session.queue.answer("anna", [sent_answer(number, row_id, label)])
    remaining = session.queue.remaining
    change = ClassChange(id="f" * 32, reviewer="anna", operation="split", old=("cat",), new=("lion", "tiger"))
    session.queue.change_classes("anna", change)
    assert row_id in {session.queue.rows.ids[int(position)] for position in session.queue.open_positions()}
    assert session.queue.remaining == remaining + 1


def test_answers_that_arrive_while_the_classes_change_are_mapped_and_counted_once(workspace: Path) -> None:
    """Eight threads answer cat while cat is renamed; each answer is about feline afterward, and none is missing."""
    session = ReviewSession.of(workspace)
    queue = session.queue
    row_ids = [
        row_id for row_id in queue.rows.ids[:] if queue.rows.labels[queue.rows.ids.position(row_id) or 0] is None
    ]
    change = ClassChange(id="f" * 32, reviewer="ben", operation="rename", old=("cat",), new=("feline",))

    def answer_row(number: int) -> None:
        if number == 10:
            queue.change_classes("ben", change)
        queue.answer("anna", [sent_answer(number, row_ids[number], "cat", class_change_count=0)])

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(answer_row, range(25)))
    decisions = queue.present_decisions().by_row
    assert {decisions[row_id].label for row_id in row_ids[:25]} == {"feline"}
    assert queue.remaining == 32 - 25
    assert len(queue.decisions.answers) == 25


def test_the_image_of_a_deleted_part_is_gone_and_not_a_full_disk(tmp_path: Path) -> None:
    """Status 404, so that the page lets the row be skipped."""
    workspace = make_workspace(tmp_path / "workspace", None, "image", encoder="none")
    encoded = images.encode(np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8))
    row = Row("a" * 32, "pool", payload=encoded, group="a" * 32, origin="a.png")
    write_rows(workspace, [row], [], "image")
    session = ReviewSession.of(workspace)
    (Workspace(workspace).generation("scrape") / "part-00000.parquet").unlink()
    client = TestClient(review_application(session, TOKENS, "workspace"))
    response = client.get(f"/image/{row.id}", params={"token": "secret-of-anna"})
    assert response.status_code == 404 and "is gone" in response.json()["error"]
