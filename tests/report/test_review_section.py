"""The report's section on reviews, its table, and the suspicious rows of both pages, on validated sentences."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from answers import AnswerMaker, row_id
from evaluation_records import estimate

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, read, read_rejected
from seedling.files.writing import write_json
from seedling.records.evaluation import EvaluationSummary
from seedling.records.review import AutomationBiasRecord, ErrorRateRecord, ReviewedTestRecord, write_review_table
from seedling.records.run_records import RunRecord
from seedling.report.cards import limit_of_test_rows
from seedling.report.data_page import write_data_page
from seedling.report.pages import environment
from seedling.report.review_section import (
    accuracies_of_refits,
    automation_bias_sentence,
    corrected_test,
    error_rate_sentence,
    new_answers,
    review_context,
    review_summary,
    reviewed_test,
)
from seedling.report.sentences import reviewed_test_sentence
from seedling.report.suspicious_rows import label_issues, short_ids, suspicious_rows, with_position
from seedling.review.address import remove_server_address, write_server_address
from seedling.review.decisions import decide
from seedling.review.log import ReviewLog
from seedling.review.statistics import ReviewedData, review_record
from seedling.validate import validate
from seedling.workspace import Workspace

TEXTS = WorkspaceConfig(modality="text")
WITHOUT_TEST_SPLIT = ValidateParams(test_share=0)
TRAIN, TEST, WRONG = 120, 20, 3
NO_PREDICTIONS = pd.DataFrame({"id": [], "label": [], "predicted": [], "group": []}, dtype=object)


def collect(workspace: Path, wrong: int = WRONG, *, is_labeled: bool = True) -> list[Row]:
    """Sentences of two classes as scrape's output, of which the first training rows have the other class's label."""
    words = {"fruit": ["apple", "pear", "plum", "cherry"], "road": ["bus", "tram", "lorry", "bike"]}
    rng, rows = np.random.default_rng(1), []
    for number in range(TRAIN + TEST):
        kind, other = ("fruit", "road") if number % 2 else ("road", "fruit")
        text = " ".join(rng.choice(words[kind], 5)) + f" {number}"
        label = None if not is_labeled else other if number < wrong else kind
        source = "human" if is_labeled else None
        split = ("train" if number < TRAIN else "test") if is_labeled else "pool"
        origin = f"signs.csv#{number + 1}"
        rows.append(Row(identify(text.encode()), split, label=label, label_source=source, payload=text, origin=origin))
    with GenerationWriter(Workspace(workspace).generation("scrape"), stage="scrape", modality="text") as writer:
        for row in rows:
            writer.keep(row)
        writer.close(rows_in=len(rows))
    return rows


def validated(workspace: Path, params: ValidateParams = WITHOUT_TEST_SPLIT) -> pd.DataFrame:
    """The rows that validate keeps, with the decisions of the log."""
    paths = Workspace(workspace)
    output = paths.generation("validate")
    validate(
        params,
        TEXTS,
        collected=paths.generation("scrape"),
        output=output,
        reviews=paths.reviews,
    )
    (output / "gate.json").write_text("[]", encoding="utf-8")
    return read(output)


def answer_rows(workspace: Path, rows: list[Row], reviewer: str = "anna", **changes: Any) -> None:
    """Log an answer per row: its label, unless `changes` has another one."""
    answer = AnswerMaker()
    for row in rows:
        values = {"previous_label": row.label, "label": row.label, **changes}
        answer_of_row = answer(0, reviewer=reviewer, **values).model_copy(update={"row_id": row.id})
        log_id = identify(f"{reviewer}{row.id}{changes}".encode())
        ReviewLog(workspace).append(reviewer, [answer_of_row.model_copy(update={"id": log_id})])


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """A workspace whose most suspicious row was corrected, the second confirmed, and two test labels changed."""
    workspace = tmp_path_factory.mktemp("reviewed")
    rows = collect(workspace)
    answer_rows(workspace, rows[:1], label="road" if rows[0].label == "fruit" else "fruit", purpose="random")
    answer_rows(workspace, rows[1:2])
    answer_rows(workspace, rows[10:12], label=None, answer="bad")
    answer_rows(workspace, rows[TRAIN : TRAIN + 2], label="fruit")
    answer_rows(workspace, rows[20:40], purpose="random")
    answer_rows(workspace, rows[20:40], reviewer="ben", purpose="overlap", label="fruit")
    validated(workspace)
    return workspace, rows


def page_of(context: dict[str, Any]) -> str:
    """The section as HTML, its lines joined."""
    return " ".join(environment().get_template("review.jinja").render(**context).split())


@pytest.mark.slow
def test_a_workspace_without_reviews_says_the_command_and_lists_ten_rows(tmp_path: Path) -> None:
    """No label is wrong or flagged; the ten most suspicious ones are listed, each with the command."""
    collect(tmp_path, wrong=0)
    kept = validated(tmp_path)
    assert not kept["is_label_issue"].eq(True).any()
    page = page_of(review_context(tmp_path, NO_PREDICTIONS, 0.95))
    assert "No row has been reviewed. <code>seedling review</code>" in page
    assert len(re.findall(r">seedling review <span>--row [0-9a-f]{8}</span></code>", page)) == 10
    assert not Workspace(tmp_path).review_table.exists()
    data_page = write_data_page(tmp_path).read_text(encoding="utf-8")
    assert "These are the 10 most suspicious ones" in data_page and data_page.count("not flagged") == 10


def test_the_section_says_what_was_decided_and_the_table_has_the_numbers(reviewed: tuple[Path, list[Row]]) -> None:
    """46 answers about 26 rows: 21 random ones, of which one label was contradicted, and the decisions by kind."""
    workspace, _ = reviewed
    context = review_context(workspace, NO_PREDICTIONS, 0.95)
    page = page_of(context)
    for words in (
        "2 reviewers gave 46 answers and decided on <b>26 rows</b>",
        "measured on 21 random rows that were answered without a suggestion",
        '<td>rows rejected as bad data</td><td class="n">2</td>',
        "<td>reviewed by a person</td>",
        "Krippendorff's alpha is",
        "tied: undecided" if context["review"].outcomes.undecided else "anna: <b>",
    ):
        assert words in page, words
    with Workspace(workspace).review_table.open(encoding="utf-8", newline="") as file:
        table = {(line["part"], line["name"], line["quantity"]): line for line in csv.DictReader(file)}
    assert table["decisions", "", "bad"]["value"] == "2"
    contradicted = table["random rows", "labels", "contradicted"]
    assert float(contradicted["value"]) == pytest.approx(1 / 21, abs=1e-6) and contradicted["rows"] == "21"
    assert float(table["pair", "anna, ben", "agreement"]["value"]) == 0.5


@pytest.mark.slow
def test_answers_after_validate_are_not_in_the_section(tmp_path: Path) -> None:
    """The log grows while people review; the section counts the answers that the rows of the generation have."""
    rows = collect(tmp_path)
    answer_rows(tmp_path, rows[20:25])
    validated(tmp_path)
    before = review_context(tmp_path, NO_PREDICTIONS, 0.95)["review"]
    answer_rows(tmp_path, rows[30:40])
    assert review_context(tmp_path, NO_PREDICTIONS, 0.95)["review"] == before
    assert (before.answers, before.states.reviewed) == (5, 5)


def test_labeled_reviewed_and_predicted_rows_are_counted_apart(reviewed: tuple[Path, list[Row]]) -> None:
    """Of 140 rows two are rejected; the others have their label from the data or from a reviewer."""
    states = review_context(reviewed[0], NO_PREDICTIONS, 0.95)["review"].states
    kept = read(Workspace(reviewed[0]).generation("validate"))
    assert states.reviewed == kept["label_source"].eq("review").sum() == 24
    assert states.labeled + states.reviewed == TRAIN + TEST - 2 and states.predicted == 0


def test_a_reviewed_row_does_not_come_back(reviewed: tuple[Path, list[Row]]) -> None:
    """Of the three wrong labels, one was corrected and one confirmed: only the third is still suspicious."""
    workspace, rows = reviewed
    folder = Workspace(workspace).generation("validate")
    listed = list(suspicious_rows(label_issues(read(folder), read_rejected(folder)))["id"])
    assert rows[2].id == listed[0]
    assert {rows[0].id, rows[1].id, rows[10].id, rows[11].id} & set(listed) == set()


def test_the_lists_have_the_file_the_row_and_the_text(reviewed: tuple[Path, list[Row]]) -> None:
    """In label_issues.csv, and on the page."""
    workspace, rows = reviewed
    page = write_data_page(workspace).read_text(encoding="utf-8")
    table = pd.read_csv(Workspace(workspace).label_issues_file, dtype=str)
    first = table[table["id"] == rows[2].id].iloc[0]
    assert (first["file"], first["row"], first["text"]) == ("signs.csv", "3", rows[2].payload)
    assert "signs.csv#3" in page.replace("<wbr>", "")


def test_the_origin_of_a_page_or_a_file_stays_whole() -> None:
    """Only a row of a table has a row; personal data in a text is masked."""
    origins = ["labeled/cat/1.png", "https://example.org/a#b", "a#b.csv#7", None]
    frame = pd.DataFrame({"origin": origins, "text": ["x", "", "mail anna@example.org", None]})
    rows = with_position(frame, ["origin"])
    assert list(zip(rows["file"], rows["row"], strict=True)) == [
        ("labeled/cat/1.png", ""),
        ("https://example.org/a#b", ""),
        ("a#b.csv", "7"),
        ("", ""),
    ]
    assert rows["text"].tolist() == ["x", "", "mail [e-mail]", ""]


def test_rows_link_to_a_running_reviewer_without_its_token(reviewed: tuple[Path, list[Row]]) -> None:
    """On both pages; others may read the pages, so the token is not on them."""
    workspace, rows = reviewed
    write_server_address(workspace, "http://127.0.0.1:8123/?token=secret")
    try:
        section = page_of(review_context(workspace, NO_PREDICTIONS, 0.95))
        data_page = write_data_page(workspace).read_text(encoding="utf-8")
    finally:
        remove_server_address(workspace)
    for page in (section, data_page):
        assert f'href="http://127.0.0.1:8123/item/{rows[2].id}" target="_blank" rel="noopener"' in page
        assert "They work while <code>seedling review</code> is running" in page and "secret" not in page


def test_short_ids_name_one_row_each() -> None:
    """Eight digits are enough, except for two rows that share their first nine; an id alone has eight, too."""
    first, second, other = "123456789a" + "0" * 22, "123456789b" + "0" * 22, "f" * 32
    assert short_ids([first, other], [other, second, first, first]) == {first: "123456789a", other: "f" * 8}
    assert short_ids([other], [other]) == {other: "f" * 8}


def test_accuracy_is_measured_with_the_former_and_the_corrected_test_labels() -> None:
    """Of four test rows, the model is right on two by the former labels and on three by the corrected ones."""
    rows = {"id": list("abcd"), "split": ["test"] * 4, "label": ["cat", "dog", "cat", "dog"]}
    sources = {"label_source": ["review", "human", "human", "review"], "original_label": ["dog", None, None, "dog"]}
    kept = pd.DataFrame(rows | sources)
    predictions = pd.DataFrame({"id": list("abcd"), "predicted": ["cat", "dog", "cat", "cat"], "group": list("abcd")})
    corrected = corrected_test(kept, predictions, 0.95)
    assert corrected is not None
    assert (corrected.rows, corrected.corrected) == (4, 1)
    assert (corrected.before.value, corrected.after.value) == (0.5, 0.75)
    assert corrected_test(kept.assign(label_source="human"), predictions, 0.95) is None


def test_a_first_label_of_a_test_row_is_not_a_correction() -> None:
    """Rows a and b had no label in the data, and c was corrected: the accuracies are of c and d alone."""
    rows = {"id": list("abcd"), "split": ["test"] * 4, "label": ["cat", "dog", "cat", "dog"]}
    sources = {"label_source": ["review"] * 3 + ["human"], "original_label": [None, None, "dog", None]}
    kept = pd.DataFrame(rows | sources)
    predictions = pd.DataFrame({"id": list("abcd"), "predicted": ["dog", "cat", "cat", "dog"], "group": list("abcd")})
    corrected = corrected_test(kept, predictions, 0.95)
    assert corrected is not None
    assert (corrected.rows, corrected.corrected, corrected.before.value, corrected.after.value) == (2, 1, 0.5, 1.0)
    assert corrected_test(kept[:2], predictions, 0.95) is None
    assert corrected_test(kept, predictions[:0], 0.95) is None


def test_a_corrected_test_split_is_in_the_section(reviewed: tuple[Path, list[Row]]) -> None:
    """One of the two reviewed test labels changed; a model that predicts the former one loses a row."""
    workspace, rows = reviewed
    test = rows[TRAIN:]
    predicted = pd.DataFrame(
        {"id": [row.id for row in test], "predicted": [row.label for row in test], "group": [row.id for row in test]}
    )
    context = review_context(workspace, predicted, 0.95)
    corrected = context["review"].corrected_test
    assert (corrected.corrected, corrected.before.value) == (1, 1.0)
    assert corrected.after.value == pytest.approx(1 - 1 / len(test))
    assert "Reviewers corrected 1 label of the 20 test rows that had a label in the data" in page_of(context)


def test_the_summary_says_what_the_answers_brought_and_how_long_they_took(tmp_path: Path) -> None:
    """Of three answers of a minute, one gives a first label, one corrects a label, and one finds a useless row."""
    answer = AnswerMaker()
    answer(1, "cat", previous_label=None, milliseconds=60_000)
    answer(2, "dog", milliseconds=60_000)
    answer(3, answer="bad", milliseconds=60_000)
    record = review_record(answer.files, ReviewedData())
    assert record.minutes == 3.0
    summary = "<b>Reviewed:</b> 3 answers by 1 person in 3 minutes, who gave 1 row its first label, corrected 1 label "
    assert str(review_summary(record)) == summary + "and removed 1 row."
    points = [[2, 0.5, 0.4, 0.6], [3, 0.75, 0.7, 0.8], [9, 0.9, 0.8, 1.0]]
    write_json(Workspace(tmp_path).review_accuracies, points)
    accuracies = accuracies_of_refits(tmp_path, answers=3)
    assert accuracies is not None
    changed = record.model_copy(update={"accuracies": accuracies})
    assert "went from 50.0\u00a0% to <b>75.0\u00a0%</b>" in review_summary(changed)


@pytest.mark.parametrize("content", ["[[2, 0.5, 0.4, 0.6]]", "{}", "[[1]]", '[["a", 0, 0, 0]]', "dam", None])
def test_fewer_than_two_refits_and_damaged_files_have_no_accuracies(tmp_path: Path, content: str | None) -> None:
    """The file is of this copy of the workspace alone, and another one does not have it."""
    path = Workspace(tmp_path).review_accuracies
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert accuracies_of_refits(tmp_path, answers=100) is None


def test_answers_since_the_previous_run_are_new() -> None:
    """Of three answers, one is older than the run before that of the report, and one has no valid time."""
    answer = AnswerMaker()
    for time in ("2026-01-01T10:00:00.000+00:00", "2026-01-01T12:00:00.000+00:00", "yesterday"):
        answer(len(answer.lines), "cat", written_at=time)
    metrics = EvaluationSummary(test=None, cross_validation=None)
    runs = [
        RunRecord(name="1", started="2026-01-01T12:30:00+02:00", ended="2026-01-01T12:40:00+02:00", metrics=metrics),
        RunRecord(name="2", started="2026-01-01T13:00:00+00:00", ended="2026-01-01T13:10:00+00:00", metrics=metrics),
    ]
    assert new_answers(answer.files, runs) == 1
    assert new_answers(answer.files, runs[:1]) == new_answers(answer.files, []) == 3


def test_a_test_split_of_reviewed_rows_says_how_its_rows_were_chosen() -> None:
    """Row 1 was drawn at random, row 2 asked by the queue, row 3 first by the queue and then as a random row."""
    answer = AnswerMaker()
    answer(1, "cat", purpose="random", previous_label=None)
    answer(2, "cat", suggestion_shown=True, previous_label=None)
    answer(3, "cat", asked_label="cat", previous_label=None)
    answer(3, "cat", purpose="random")
    answer(4, "cat", order="random")
    decisions = decide(answer.files)
    assert reviewed_test([], decisions) is None
    assert reviewed_test([row_id(4)], decisions) == ReviewedTestRecord(rows=1, random=1, suggested=0)
    record = reviewed_test([row_id(1), row_id(2), row_id(3)], decisions)
    assert record == ReviewedTestRecord(rows=3, random=1, suggested=1)
    assert not record.is_random
    sentence = str(reviewed_test_sentence(record))
    assert "Only reviewers labeled the 3 test rows. The order of the review selected 2 of them" in sentence
    assert "and 1 was drawn at random without a suggestion. 1 was answered with a suggestion" in sentence


def test_test_rows_that_were_labeled_in_another_tool_are_not_called_selected_by_the_review() -> None:
    """One imported row, one of the queue without a suggestion, and one random row."""
    answer = AnswerMaker()
    answer(1, "cat", purpose="imported", previous_label=None)
    answer(2, "cat", purpose="queue", previous_label=None)
    answer(3, "cat", purpose="random", previous_label=None)
    record = reviewed_test([row_id(1), row_id(2), row_id(3)], decide(answer.files))
    assert record == ReviewedTestRecord(rows=3, random=1, suggested=0, imported=1)
    sentence = str(reviewed_test_sentence(record))
    assert "The order of the review selected 1 of them" in sentence
    assert "1 was labeled in another tool. None was answered with a suggestion on the screen." in sentence


@pytest.mark.slow
def test_the_model_card_does_not_warn_of_test_rows_that_were_drawn_at_random(tmp_path: Path) -> None:
    """All answers are of a review in random order."""
    rows = collect(tmp_path, is_labeled=False)
    answer_rows(tmp_path, rows[0:40:2], label="road", order="random")
    answer_rows(tmp_path, rows[1:40:2], label="fruit", order="random")
    validated(tmp_path, ValidateParams(min_test_rows=2))
    assert list(limit_of_test_rows(tmp_path)) == []


def test_a_test_split_that_the_data_has_is_not_one_of_reviewed_rows(reviewed: tuple[Path, list[Row]]) -> None:
    """Two of its labels were reviewed, which does not change how its rows were chosen."""
    assert review_context(reviewed[0], NO_PREDICTIONS, 0.95)["review"].reviewed_test is None


@pytest.mark.slow
def test_validate_counts_the_test_rows_that_only_reviewers_have_labeled(tmp_path: Path) -> None:
    """All 40 labels are answers about the pool, so a test split of them is not a random sample."""
    rows = collect(tmp_path, is_labeled=False)
    answer_rows(tmp_path, rows[0:40:2], label="road")
    answer_rows(tmp_path, rows[1:40:2], label="fruit")
    kept = validated(tmp_path, ValidateParams(min_test_rows=2))
    record = review_context(tmp_path, NO_PREDICTIONS, 0.95)["review"].reviewed_test
    assert record.rows == kept["split"].eq("test").sum() > 0
    assert (record.random, record.suggested) == (0, 0)
    assert "test rows are not a random sample" in next(limit_of_test_rows(tmp_path))


def test_an_error_rate_says_whether_the_reviewers_errors_are_measured() -> None:
    """With 50 second looks they are; with 3 they are assumed."""
    values = {"kind": "labels", "rows": 100, "undecided": 2, "estimate": estimate(0.05), "contradicted": estimate(0.1)}
    measured = ErrorRateRecord.model_validate(values | {"second_looks": 50, "is_corrected": True})
    assumed = ErrorRateRecord.model_validate(values | {"second_looks": 3, "is_corrected": False})
    assert "measured on 50 rows that were answered twice, are taken out" in error_rate_sentence(measured)
    assert "2 random rows got no decision" in error_rate_sentence(measured)
    assert "assumed to be about 5 %, not measured" in error_rate_sentence(assumed)


def test_suggestions_sway_only_if_random_rows_show_it() -> None:
    """Otherwise the sentence says that the rows differ."""
    values = {"difference": estimate(0.2, 0.1, 0.3), "shown_rows": 50, "hidden_rows": 50}
    random_rows = automation_bias_sentence(AutomationBiasRecord.model_validate(values | {"is_random": True}))
    queue_rows = automation_bias_sentence(AutomationBiasRecord.model_validate(values | {"is_random": False}))
    assert "Suggestions sway the reviewers" in random_rows and "Suggestions sway" not in queue_rows
    assert "may be due to the rows" in queue_rows


def test_names_and_labels_with_markup_are_escaped_and_formulas_are_text(tmp_path: Path) -> None:
    """On the page and in the table that a spreadsheet program opens."""
    answer = AnswerMaker()
    answer(1, "<script>alert(1)</script>")
    answer(1, "=1+1", reviewer="ben")
    record = review_record(answer.files, ReviewedData())
    context = {
        "sentences": [],
        "outcomes": [],
        "disagreements": record.disagreements,
        "suspicious": [],
        "links": {},
        "short_ids": {},
    }
    page = page_of({"review": record, "reviewing": context})
    assert "<script>" not in page and "&lt;script&gt;" in page.replace("<wbr>", "")
    table = write_review_table(tmp_path, record).read_text(encoding="utf-8")
    assert "=1+1" not in [cell for line in csv.reader(table.splitlines()) for cell in line]
