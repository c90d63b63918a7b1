"""What is counted of the review log, by hand-made answers."""

from __future__ import annotations

import numpy as np
import pytest
from answers import AnswerMaker, row_id

from seedling.records.review import OutcomeRecord, ReviewerRecord, ReviewRecord, StateRecord
from seedling.review.error_rate import Counted
from seedling.review.statistics import ReviewedData, error_rate, errors_left, label_checks, review_record
from seedling.review.tally import ReviewTally


def record_of(answer: AnswerMaker, **data: object) -> ReviewRecord:
    """The review in numbers, with three classes."""
    return review_record(answer.files, ReviewedData(**{"classes": 3, **data}))  # type: ignore[arg-type]


def reviewer_of(answer: AnswerMaker, name: str = "anna") -> ReviewerRecord:
    """A reviewer of the record."""
    (reviewer,) = [entry for entry in record_of(answer).reviewers if entry.name == name]
    return reviewer


def test_only_random_rows_without_any_class_on_the_page_measure_labels() -> None:
    """A suggestion that is shown, a class that is asked about, and an import do not count; the first look does."""
    answer = AnswerMaker()
    answer(1, "dog", purpose="random")
    answer(1, "cat", purpose="repeat")
    answer(2, "cat", purpose="random")
    answer(3, "dog", purpose="random", suggestion_shown=True)
    answer(4, "cat", purpose="random", question="verify", asked_label="cat")
    answer(5, "dog", purpose="imported")
    answer(6, "dog", purpose="queue")
    checks = label_checks(ReviewTally(answer.files), "labels", 3)
    assert checks.labels == {"anna": Counted(2, 1)}
    assert checks.second_looks == {("anna", "anna"): Counted(1, 1)}


def test_a_row_that_is_asked_ever_again_is_one_second_look() -> None:
    """Three repeats of one row say no more of the reviewer's errors than the first."""
    answer = AnswerMaker()
    answer(1, "cat", purpose="random")
    for label in ("dog", "cat", "dog"):
        answer(1, label, purpose="repeat")
    checks = label_checks(ReviewTally(answer.files), "labels", 3)
    assert checks.second_looks == {("anna", "anna"): Counted(1, 1)}


def test_pseudo_labels_are_measured_on_rows_without_a_label() -> None:
    """The suggestion that the model made is compared, although the reviewer did not see it."""
    answer = AnswerMaker()
    answer(1, "dog", purpose="random", previous_label=None, suggestion="dog")
    answer(2, "cat", purpose="random", previous_label=None, suggestion="dog")
    answer(3, "cat", purpose="random", previous_label=None)
    tally = ReviewTally(answer.files)
    assert label_checks(tally, "pseudo_labels", 3).labels == {"anna": Counted(2, 1)}
    assert label_checks(tally, "labels", 3).labels == {}


def test_an_answer_contradicts_a_label_or_does_not_tell() -> None:
    """None of these contradicts; unsure and bad data do not tell, and a later look at the row decides."""
    answer = AnswerMaker()
    answer(1, answer="none_of_these", purpose="random")
    answer(2, answer="unsure", purpose="random")
    answer(3, answer="bad", purpose="random")
    answer(4, answer="unsure", purpose="random")
    answer(4, "cat", purpose="random", reviewer="ben")
    record = record_of(answer)
    (rate,) = record.error_rates
    assert (rate.rows, rate.contradicted.value, rate.undecided) == (2, 0.5, 2)


def test_labels_are_compared_under_the_present_names_of_classes() -> None:
    """After cat was renamed to feline, an earlier answer cat and the label cat agree; split classes do not tell."""
    answer = AnswerMaker()
    answer(1, "cat", purpose="random")
    answer(2, "dog", purpose="random", previous_label="dog")
    answer.change_classes("rename", ["cat"], ["feline"])
    answer.change_classes("split", ["dog"], ["poodle", "collie"])
    answer(3, "feline", purpose="random", previous_label="feline")
    assert label_checks(ReviewTally(answer.files), "labels", 3).labels == {"anna": Counted(2, 0)}


def test_undone_and_changed_answers_are_reversals() -> None:
    """A repeat that differs is not one, nor is a redone answer, and undone answers decide nothing."""
    answer = AnswerMaker()
    first = answer(1, "cat")
    second = answer(2, "dog")
    answer(3, "cat")
    answer.undo([first, second])
    answer.undo([second], "redo")
    answer(3, "dog")
    answer(2, "cat", purpose="repeat")
    assert reviewer_of(answer).reversals == 2
    assert record_of(answer).outcomes == OutcomeRecord(confirmed=1, corrected=1, undecided=0)


def test_the_rows_of_a_grid_take_their_time_once_and_a_pause_counts_a_minute() -> None:
    """3 + 1 decisions in 2 s and a pause that counts 60 s: 4 / 62 s · 3,600 s = 232.3 an hour; imports have no time."""
    answer = AnswerMaker()
    for row in range(3):
        answer(row, "cat", batch="a" * 32, milliseconds=2_000, question="grid", asked_label="cat")
    answer(5, "cat", milliseconds=3_600_000)
    answer(6, answer="skip", milliseconds=0)
    answer(7, "cat", purpose="imported", milliseconds=0)
    assert reviewer_of(answer).per_hour == pytest.approx(4 / 62 * 3600, abs=0.1)


def test_gold_questions_are_right_if_they_agree_with_what_others_decided() -> None:
    """Anna and Ben said cat on row 1 and differ on row 2: Cleo is right on one of one gold rows."""
    answer = AnswerMaker()
    for name in ("anna", "ben"):
        answer(1, "cat", reviewer=name)
        answer(2, "cat" if name == "anna" else "dog", reviewer=name)
    answer(1, "cat", reviewer="cleo", purpose="gold")
    answer(2, "dog", reviewer="cleo", purpose="gold")
    gold = reviewer_of(answer, "cleo").gold
    assert gold.rows == 1 and gold.share is not None and gold.share.value == 1.0


def test_repeats_measure_self_agreement_also_after_a_rejection() -> None:
    """Not a cat, then dog: alike; not a cat, then cat: not alike."""
    answer = AnswerMaker()
    for row, label in ((1, "dog"), (2, "cat")):
        answer(row, answer="reject", question="verify", asked_label="cat")
        answer(row, label, purpose="repeat")
    repeats = reviewer_of(answer).repeats
    assert repeats.rows == 2 and repeats.share is not None and repeats.share.value == 0.5


def test_pairs_of_reviewers_have_kappa_and_all_have_alpha() -> None:
    """Both say cat on two rows and dog on one, and differ on one: p_o = .75, p_e = .5, κ = .5; α = 1 - 7 · 2 / 30."""
    answer = AnswerMaker()
    for name, labels in (("anna", ("cat", "cat", "dog", "cat")), ("ben", ("cat", "cat", "dog", "dog"))):
        for row, label in enumerate(labels):
            answer(row, label, reviewer=name)
    answer(9, "cat")
    record = record_of(answer, origins={row_id(3): "a.csv#4"})
    (pair,) = record.pairs
    assert (pair.rows, pair.agreement.value, pair.kappa) == (4, 0.75, 0.5)
    assert record.alpha == pytest.approx(1 - 7 * 2 / 30, abs=1e-4) and record.shared_rows == 4
    (disagreement,) = record.disagreements
    assert disagreement.row_id == row_id(3) and disagreement.origin == "a.csv#4"
    assert disagreement.votes == (("anna", "cat"), ("ben", "dog"))


def test_automation_bias_compares_random_rows_if_there_are_enough() -> None:
    """30 random rows with and 30 without the suggestion; the queue's rows, all accepted, are left out then."""
    answer = AnswerMaker()
    for row in range(100):
        answer(row, "cat", suggestion="cat", suggestion_shown=True)
    for row in range(100, 160):
        accepts = row < 130 or row % 3 > 0
        answer(row, "cat" if accepts else "dog", suggestion="cat", purpose="random", suggestion_shown=row < 130)
    bias = reviewer_of(answer).automation_bias
    assert bias is not None and bias.is_random
    assert (bias.shown_rows, bias.hidden_rows) == (30, 30)
    assert bias.difference.value == pytest.approx(1 / 3, abs=1e-4)


def test_outcomes_count_each_row_once() -> None:
    """Compared with the label that the row had when it was first asked."""
    answer = AnswerMaker()
    answer(1, "cat")
    answer(2, "dog")
    answer(3, "dog", previous_label=None)
    answer(4, answer="reject", question="verify", asked_label="cat")
    answer(5, answer="none_of_these")
    answer(6, answer="bad")
    answer(7, answer="duplicate", question="duplicates")
    answer(8, answer="skip")
    answer(2, "dog", previous_label="dog", purpose="repeat")
    expected = OutcomeRecord(
        confirmed=1, corrected=1, given=1, rejected_labels=1, none_of_these=1, bad=1, duplicates=1, undecided=1
    )
    record = record_of(answer, states=StateRecord(labeled=1, reviewed=2, predicted=3))
    assert record.outcomes == expected and expected.decided == 7
    assert (record.states.labeled, record.states.reviewed, record.states.predicted) == (1, 2, 3)


def test_decided_rows_that_are_no_longer_in_the_data_are_counted() -> None:
    """Row 2 is gone; its decision stays in the log."""
    answer = AnswerMaker()
    answer(1, "cat")
    answer(2, "cat")
    assert record_of(answer, ids={row_id(1)}).vanished == 1
    assert record_of(answer).vanished == 0


def test_errors_left_are_those_of_rows_that_nobody_has_reviewed() -> None:
    """100 of 1,000 labels are wrong; by a reviewer who hardly errs, 60 of 300 reviewed ones are found: 40 are left."""
    answer = AnswerMaker()
    for row in range(200):
        answer(row, "dog" if row < 20 else "cat", purpose="random")
    for row in range(200, 300):
        answer(row, "dog" if row < 240 else "cat", suggestion_shown=True)
    for row in range(200):
        answer(row, "dog" if row < 20 else "cat", purpose="repeat")
    tally = ReviewTally(answer.files)
    rate = error_rate(tally, "labels", 5, 1_000)
    assert rate is not None and rate.is_corrected
    left = errors_left(tally, rate, 5, 1_000)
    assert left is not None
    assert left.low < 40 < left.high and left.value == pytest.approx(40, abs=4)
    assert errors_left(tally, rate, 5, None) is None


def test_counts_that_are_kept_up_to_date_are_those_of_the_whole_log() -> None:
    """Hundreds of random answers, undone and restored ones, and a renamed class, line by line and at once."""
    rng, answer = np.random.default_rng(0), AnswerMaker()
    for number in range(600):
        name, row = str(rng.choice(["anna", "ben", "cleo"])), int(rng.integers(60))
        purpose = str(rng.choice(["queue", "random", "repeat", "gold", "overlap"]))
        label = str(rng.choice(["cat", "dog", "fox"]))
        line = answer(row, label, reviewer=name, purpose=purpose, suggestion="cat", suggestion_shown=purpose == "queue")
        if rng.random() < 0.2:
            answer.undo([line], "undo")
            if rng.random() < 0.5:
                answer.undo([line], "redo")
        if number == 300:
            answer.change_classes("rename", ["fox"], ["wolf"])
    step_by_step = ReviewTally()
    for each_line in answer.lines:
        step_by_step.add([each_line])
        step_by_step.add([each_line])  # sent twice
    at_once = ReviewTally(answer.files)
    assert step_by_step.counts == at_once.counts and len(at_once.counts) > 50
    assert step_by_step.times == at_once.times and step_by_step.undone == at_once.undone


def test_an_empty_log_gives_a_record_without_estimates() -> None:
    """No reviewer, no rate, nothing to agree on."""
    record = review_record({}, ReviewedData())
    assert (record.answers, record.error_rates, record.alpha, record.reviewers) == (0, (), None, ())
