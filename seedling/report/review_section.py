"""The section "Review" of report.html: what people decided, how right labels and reviewers are, and what to ask next.

Rows are labeled, reviewed or predicted: by the data, by a reviewer, or only by the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from seedling.dataset.generation import columns_of, read, read_manifest, read_rejected
from seedling.dataset.schema import REVIEW_SOURCE
from seedling.errors import SeedlingError
from seedling.files.reading import read_json
from seedling.records.intervals import EstimateRecord
from seedling.records.manifest import read_notes
from seedling.records.review import (
    AutomationBiasRecord,
    CorrectedTestRecord,
    ErrorRateRecord,
    OutcomeRecord,
    ReviewedTestRecord,
    ReviewRecord,
    StateRecord,
    write_review_table,
)
from seedling.records.run_records import RunRecord
from seedling.records.stage_notes import ValidateNotes
from seedling.report.pages import percent, points, thousands
from seedling.report.sentences import interval, plural, soft, warning
from seedling.report.suspicious_rows import ROW_COLUMNS, label_issues, review_links, short_ids, suspicious_rows
from seedling.review.decisions import Decisions, decide
from seedling.review.log import ReviewerFile, read_log
from seedling.review.records import Answer
from seedling.review.statistics import ReviewedData, review_record
from seedling.review.tally import is_blind
from seedling.stats.statistics import share
from seedling.workspace import REVIEWS, Workspace

MAX_LISTED_DISAGREEMENTS = 50
OUTCOMES = {
    "confirmed": "labels confirmed",
    "corrected": "labels corrected",
    "given": "labels given to unlabeled rows",
    "rejected_labels": "labels rejected, without another class",
    "none_of_these": "rows of none of the classes",
    "bad": "rows rejected as bad data",
    "duplicates": "rows rejected as duplicates",
    "undecided": "rows answered without a decision",
}


def review_context(
    workspace: Path, predictions: pd.DataFrame, confidence: float, runs: Sequence[RunRecord] = ()
) -> dict[str, Any]:
    """The values of review.jinja; writes reports/review.csv if there are answers.

    predictions: the rows of reports/predictions.parquet; runs: all of the workspace, the last one that of the report.
    """
    paths = Workspace(workspace)
    validated = paths.generation("validate")
    columns = [*(name for name in ROW_COLUMNS if name in columns_of(validated)), "split"]
    kept, rejected = read(validated, columns), read_rejected(validated)
    record = _record(workspace, kept, rejected, predictions, confidence, runs)
    if record is not None:
        write_review_table(workspace, record)
    suspicious = suspicious_rows(label_issues(kept, rejected))
    return {
        "review": record,
        "reviewing": {
            "summary": review_summary(record) if record and record.answers else None,
            "sentences": review_sentences(record) if record else [],
            "outcomes": _outcomes(record.outcomes) if record else [],
            "disagreements": record.disagreements[:MAX_LISTED_DISAGREEMENTS] if record else [],
            "suspicious": suspicious.to_dict("records"),
            "links": review_links(workspace, suspicious["id"]),
            "short_ids": short_ids(suspicious["id"], [*kept["id"], *rejected["id"]]),
        },
    }


def _record(
    workspace: Path,
    kept: pd.DataFrame,
    rejected: pd.DataFrame,
    predictions: pd.DataFrame,
    confidence: float,
    runs: Sequence[RunRecord],
) -> ReviewRecord | None:
    files = read_log(Workspace(workspace).generation("validate") / REVIEWS)  # as of these rows
    if not any(file.lines or file.damaged for file in files.values()):
        return None
    both = pd.concat([kept[["id", "origin"]], rejected[["id", "origin"]]]).drop_duplicates("id")
    is_reviewed = kept["label_source"].eq(REVIEW_SOURCE)
    states = StateRecord(
        labeled=int((kept["label"].notna() & ~is_reviewed).sum()),
        reviewed=int(is_reviewed.sum()),
        predicted=int((kept["label"].isna() & kept["split"].eq("pool")).sum()),
    )
    manifest = read_manifest(Workspace(workspace).generation("validate"))
    was_pool = is_reviewed & kept["original_label"].isna()
    data = ReviewedData(
        ids=set(both["id"]),
        origins=dict(zip(both["id"], both["origin"], strict=True)),
        classes=max(2, len(manifest.classes)),
        labeled=int((kept["split"].eq("train") & kept["label"].notna() & ~was_pool).sum()),
        pool=states.predicted + int(was_pool.sum()),
        states=states,
    )
    notes = read_notes(Workspace(workspace).generation("validate"), ValidateNotes).reviews
    test_ids = set(kept.loc[kept["split"].eq("test"), "id"]) if notes and notes.test_rows else set[str]()
    record = review_record(files, data, confidence)
    return record.model_copy(
        update={
            "corrected_test": corrected_test(kept, predictions, confidence),
            "reviewed_test": reviewed_test(test_ids, decide(files)),
            "new_answers": new_answers(files, runs),
            "accuracies": accuracies_of_refits(workspace, record.answers),
        }
    )


def new_answers(files: Mapping[str, ReviewerFile], runs: Sequence[RunRecord]) -> int:
    """The number of answers since the start of the run before that of the report; all of them in the first run."""
    written_at = [line.written_at for file in files.values() for line in file.lines if isinstance(line, Answer)]
    evaluated = [run for run in runs if run.metrics]
    if len(evaluated) < 2:
        return len(written_at)
    since = pd.Timestamp(evaluated[-2].started or evaluated[-2].ended)
    times = pd.to_datetime(pd.Series(written_at, dtype=str), errors="coerce", utc=True, format="ISO8601")
    return int((times > (since if since.tzinfo else since.tz_localize("UTC"))).sum())


def accuracies_of_refits(workspace: Path, answers: int) -> tuple[EstimateRecord, EstimateRecord] | None:
    """The accuracy of the first and of the last refit while reviewing, up to so many answers; None without two.

    They are kept in this copy of the workspace alone, and are not among the inputs of a stage.
    """
    try:
        points = [
            (int(number), EstimateRecord(value=value, low=low, high=high))
            for number, value, low, high in read_json(Workspace(workspace).review_accuracies)
            if number <= answers
        ]
    except (OSError, ValueError, TypeError, SeedlingError):
        return None
    if not points or points[0][0] == points[-1][0]:
        return None
    return points[0][1], points[-1][1]


def corrected_test(kept: pd.DataFrame, predictions: pd.DataFrame, confidence: float) -> CorrectedTestRecord | None:
    """The accuracy on the test rows with their former and their present labels; None if no review changed one.

    Rows that got their first label in a review have no former label, and are left out.
    kept: the rows of validate, with `original_label`; predictions: id, label, predicted and group of evaluated rows.
    """
    test = kept[kept["split"].eq("test")].drop_duplicates("id").set_index("id")
    is_reviewed = test["label_source"].eq(REVIEW_SOURCE)
    test = test[~is_reviewed | test["original_label"].notna()]
    rows = predictions[predictions["id"].isin(test.index)]
    of_row = test.loc[rows["id"]]
    is_changed = of_row["label_source"].eq(REVIEW_SOURCE) & of_row["original_label"].ne(of_row["label"])
    if not is_changed.any():
        return None
    former = of_row["label"].where(~is_changed, of_row["original_label"])
    predicted, groups = rows["predicted"].to_numpy(), rows["group"].to_numpy(dtype=str)
    before, after = (
        EstimateRecord.of(share((labels.to_numpy() == predicted).astype(bool), groups, confidence))
        for labels in (former, of_row["label"])
    )
    return CorrectedTestRecord(rows=len(rows), corrected=int(is_changed.sum()), before=before, after=after)


def reviewed_test(row_ids: Collection[str], decisions: Decisions) -> ReviewedTestRecord | None:
    """How the test rows that only reviewers have labeled came to their labels; None without such rows.

    row_ids: of these rows. The first decisive answer tells why a row was asked, the last one what the reviewer saw.
    """
    if not row_ids:
        return None
    first: dict[str, Answer] = {}
    last: dict[str, Answer] = {}
    for answer in decisions.answers:
        if answer.row_id in row_ids and answer.is_decisive:
            first.setdefault(answer.row_id, answer)
            last[answer.row_id] = answer
    return ReviewedTestRecord(
        rows=len(row_ids),
        random=sum("random" in {answer.purpose, answer.order} and is_blind(answer) for answer in first.values()),
        imported=sum(answer.purpose == "imported" for answer in first.values()),
        suggested=sum(answer.purpose != "imported" and not is_blind(answer) for answer in last.values()),
    )


def _outcomes(outcomes: OutcomeRecord) -> list[tuple[str, int]]:
    counts = outcomes.model_dump()
    return [(words, counts[name]) for name, words in OUTCOMES.items() if counts[name]]


def review_summary(record: ReviewRecord) -> Markup:
    """What people did and what it brought, for the top of the report."""
    people = "1 person" if len(record.reviewers) == 1 else f"{thousands(len(record.reviewers))} people"
    time = f" in {plural(max(1, round(record.minutes)), 'minute')}" if record.minutes else ""
    done = record.outcomes
    results = [
        f"gave {plural(done.given, 'row')} {'its' if done.given == 1 else 'their'} first label" if done.given else "",
        f"corrected {plural(done.corrected + done.rejected_labels, 'label')}"
        if done.corrected + done.rejected_labels
        else "",
        f"confirmed {plural(done.confirmed, 'label')}" if done.confirmed else "",
        f"removed {plural(done.none_of_these + done.bad + done.duplicates, 'row')}"
        if done.none_of_these + done.bad + done.duplicates
        else "",
    ]
    listed = [result for result in results if result] or ["decided on no row"]
    joined = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
    summary = Markup("<b>Reviewed:</b> {} by {}{}, who {}.").format(
        plural(record.answers, "answer"), people, time, joined
    )
    if record.accuracies:
        first, last = record.accuracies
        summary += Markup(
            " Meanwhile, the cross-validated accuracy on the labeled rows went from {} to <b>{}</b>."
        ).format(percent(first.value), percent(last.value))
    return summary


def review_sentences(record: ReviewRecord) -> list[Markup]:
    """What the review contributed and how right it is, a sentence or two per entry."""
    sentences = [answers_sentence(record)]
    sentences += [error_rate_sentence(rate) for rate in record.error_rates]
    if not record.error_rates:
        sentences.append(
            Markup("The error rate of the labels is unknown: {}").format(
                soft("no random row was answered without a suggestion (review.random_share in params.yaml).")
            )
        )
    if record.errors_left:
        left = record.errors_left
        ends = soft(f"[{thousands(round(left.low))}, {thousands(round(left.high))}]")
        sentences.append(
            Markup("About <b>{}</b> {} wrong labels are left among the training rows that nobody has reviewed.").format(
                thousands(round(left.value)), ends
            )
        )
    if record.automation_bias:
        sentences.append(automation_bias_sentence(record.automation_bias))
    if record.corrected_test:
        sentences.append(corrected_test_sentence(record.corrected_test))
    if record.alpha is not None:
        sentences.append(
            Markup("{} were answered by several reviewers: Krippendorff's alpha is <b>{:.2f}</b> {}.").format(
                plural(record.shared_rows, "row"), record.alpha, soft("(1: they always agree, 0: as by chance)")
            )
        )
    sentences += log_sentences(record)
    return sentences


def answers_sentence(record: ReviewRecord) -> Markup:
    """How many answers and decided rows there are, and the states of all rows."""
    states = record.states
    return Markup(
        "{} gave {} and decided on <b>{}</b>. Of all labels, <b>{}</b> are reviewed and {} are labeled by the data "
        "alone; {} are only predicted."
    ).format(
        plural(len(record.reviewers), "reviewer"),
        plural(record.answers, "answer"),
        plural(record.outcomes.decided, "row"),
        thousands(states.reviewed),
        thousands(states.labeled),
        plural(states.predicted, "row"),
    )


def error_rate_sentence(rate: ErrorRateRecord) -> Markup:
    """The share of wrong labels or pseudo-labels, and how far the reviewers' own errors are part of it."""
    sentence = Markup("<b>{}</b> {} of the {} {}, measured on {} that were answered without a suggestion.").format(
        percent(rate.estimate.value),
        soft(interval(rate.estimate)),
        "labels" if rate.kind == "labels" else "model's predictions for unlabeled rows",
        "were wrong before the review" if rate.kind == "labels" else "were wrong when they were checked",
        plural(rate.rows, "random row"),
    )
    contradicted = f"Reviewers contradicted {percent(rate.contradicted.value)} of them"
    if rate.is_corrected:
        details = soft(
            f"{contradicted}; their own errors, measured on {plural(rate.second_looks, 'row')} that were answered "
            "twice, are taken out. A mistake that is made each time is not noticed."
        )
    else:
        details = warning(
            f"{contradicted}. Only {plural(rate.second_looks, 'row')} were answered twice without a suggestion, so "
            "their own error is assumed to be about 5 %, not measured, and the interval is wide."
        )
    sentence += Markup(" {}").format(details)
    if rate.undecided:
        sentence += Markup(" {}").format(soft(f"{plural(rate.undecided, 'random row')} got no decision."))
    return sentence


def automation_bias_sentence(bias: AutomationBiasRecord) -> Markup:
    """Whether a suggestion that is shown sways the reviewers."""
    difference = bias.difference
    ends = soft(f"[{points(difference.low)}, {points(difference.high)}]")
    sentence = Markup("Showing the model's suggestion changes the agreement with it by {} points {}.").format(
        points(difference.value), ends
    )
    if difference.low > 0 and bias.is_random:
        sentence += Markup(" {}").format(warning("Suggestions sway the reviewers."))
    if not bias.is_random:
        sentence += soft(
            " The rows with a suggestion were selected by the queue, and those without are random: the difference may "
            "be due to the rows."
        )
    return sentence


def corrected_test_sentence(test: CorrectedTestRecord) -> Markup:
    """The accuracy on the test split before and after its labels were corrected."""
    return Markup(
        "Reviewers corrected {} of the {} that had a label in the data. On these rows, the accuracy of this model is "
        "{} {} with the former labels, and <b>{}</b> {} with the corrected ones. {}"
    ).format(
        plural(test.corrected, "label"),
        plural(test.rows, "test row"),
        percent(test.before.value),
        soft(interval(test.before)),
        percent(test.after.value),
        soft(interval(test.after)),
        soft("Corrected labels make another test set: compare only accuracies on the same one."),
    )


def log_sentences(record: ReviewRecord) -> list[Markup]:
    """What is unusual about the log: vanished rows, damaged and edited lines."""
    sentences = []
    if record.vanished:
        verb = "is" if record.vanished == 1 else "are"
        sentences.append(
            Markup("{} {} no longer in the data; the decisions stay in reviews/.").format(
                plural(record.vanished, "decided row"), verb
            )
        )
    for places, problem in (
        (record.damaged, "cannot be read and are not used"),
        (record.edited, "were changed by hand and are used"),
    ):
        if places:
            listed = ", ".join(f"reviews/{place.replace(':', '.jsonl:')}" for place in places[:5])
            sentences.append(warning(f"{plural(len(places), 'line')} of the log {problem}: {listed}."))
    return sentences
