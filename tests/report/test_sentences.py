"""Sentences of the report and of the data page, for each of their conditions."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from evaluation_records import estimate, selective
from manifests import audit, label_issues
from markupsafe import Markup
from round_records import difference

from seedling.records.candidates import (
    FoldAccuraciesRecord,
    HardestClassRecord,
    HardestSourceRecord,
    LearnerAccuracyRecord,
    RepeatedRecord,
    UnknownClassesRecord,
    UnseenSourcesRecord,
)
from seedling.records.evaluation import (
    FoldRecord,
    MajorityBaselineRecord,
    MinimalPerturbationRecord,
    OutOfScopeRecord,
    RobustnessRecord,
    RoundRecord,
    WrongTestLabelsRecord,
)
from seedling.records.intervals import EstimateRecord
from seedling.records.predicted_gain import PredictedGain
from seedling.records.stage_notes import FilterTrial, NotEstimated
from seedling.records.test_evaluations import EvaluationLog, LoggedEvaluation
from seedling.report import sentences
from seedling.report.results import Headline, Subject, ThresholdResult
from seedling.stats.statistics import Estimate

ESTIMATE = estimate(0.8, 0.7, 0.9)


def plain(sentence: str | Markup | None) -> str:
    """The sentence as a reader sees it: without tags, and with ordinary spaces."""
    assert sentence is not None
    text = html.unescape(re.sub(r"<[^>]*>", "", str(sentence)))
    return text.replace("\u00a0", " ").replace("\u202f", " ")


def subject(**changes: Any) -> Subject:
    """A model of two classes, trained on 1,200 labels of people and 300 of a rule."""
    values: dict[str, Any] = {
        "modality": "image",
        "classes": ("cat", "dog"),
        "labeled": 1_500,
        "unchecked": 300,
        "sources": (("by people", 1_200), ("by rules (tag)", 300)),
        "pseudo_labeled": 0,
        "learners": "svm",
    }
    return Subject(**{**values, **changes})


def test_the_subject_names_classes_labels_and_round() -> None:
    """With pseudo-labels; of more than twelve classes the first twelve; names are escaped."""
    assert plain(sentences.subject_sentence(subject(pseudo_labeled=40), 2)) == (
        "Classifies images into 2 classes: cat, dog. Trained on 1 500 labeled rows (1 200 by people, 300 by rules "
        "(tag)) "
        "and 40 pseudo-labeled rows. The model in use is round 2: svm."
    )
    reviewed = plain(sentences.subject_sentence(subject(labeled=164, sources=[("by reviewers", 164)]), 0))
    assert "Trained on 164 rows labeled by reviewers. The model" in reviewed
    many_classes = plain(sentences.subject_sentence(subject(modality="text", classes=[f"c{n}" for n in range(20)]), 0))
    assert "texts into 20 classes" in many_classes
    assert "c11 and 8 more." in many_classes
    assert "pseudo-labeled" not in many_classes
    assert "&lt;b&gt;" in sentences.subject_sentence(subject(classes=["<b>"]), 0)


def test_a_class_that_is_never_predicted_is_not_claimed() -> None:
    """It is neither counted nor listed among the classes."""
    claimed = plain(sentences.subject_sentence(subject(classes=["cat", "dog", "owl"], never_predicted=["dog"]), 0))
    assert claimed.startswith("Classifies images into 2 classes: cat, owl; never predicts dog. Trained on ")


@pytest.mark.parametrize(
    ("decisions", "accepted_round", "sentence"),
    [
        (["accepted"], 0, None),
        (["accepted", "accepted"], 1, "The model of round 1 was accepted in place of that of round 0: reason 1."),
        (["accepted", "rejected"], 0, "The model of round 0 stays, because round 1 was rejected: reason 1."),
        (
            ["accepted", "accepted", "rejected"],
            1,
            "The model of round 1 stays, because round 2 was rejected: reason 2.",
        ),
    ],
)
def test_the_model_in_use_has_a_reason(decisions: list[Any], accepted_round: int, sentence: str | None) -> None:
    """That of the last comparison; without one, there is nothing to say."""
    rounds = [
        RoundRecord(
            round=number, decision=decision, reason=f"reason {number}",
            worth_in_labels=None, harmed=(), accuracy=None, difference=None,
        )
        for number, decision in enumerate(decisions)
    ]  # fmt: skip
    assert sentences.model_choice_sentence(rounds, accepted_round) == sentence


def test_the_baseline_is_the_most_frequent_class() -> None:
    """A model whose interval reaches it is not clearly better."""
    baseline = MajorityBaselineRecord(name="ham", accuracy=0.65)
    sentence = "Always predicting “ham” would be right for 65.0 % of these rows."
    assert plain(sentences.baseline_sentence(baseline, ESTIMATE)) == sentence
    assert plain(sentences.baseline_sentence(MajorityBaselineRecord(name="ham", accuracy=0.7), ESTIMATE)) == (
        "Always predicting “ham” would be right for 70.0 % of these rows. The model is not clearly better than that."
    )


@pytest.mark.parametrize(
    ("new_labels", "fixed", "measured", "end", "labels"),
    [
        (580, 0, 0.058, ".", "580 new labels"),
        (1, 0, 0.058, ".", "1 new label"),
        (0, 12, 0.058, ".", "about 12 fixed labels"),
        (580, 0, -0.05, ": less.", "580 new labels"),
        (580, 0, 0.25, ": more.", "580 new labels"),
    ],
)
def test_the_gain_expected_last_time_is_beside_the_measured_one(
    new_labels: int, fixed: int, measured: float, end: str, labels: str
) -> None:
    """Whether it was less or more is said only if the intervals do not overlap."""
    gain = PredictedGain(
        "20261128-grow",
        new_labels,
        fixed,
        Estimate(0.059, 0.03, 0.081),
        Estimate(measured, measured - 0.03, measured + 0.03),
    )
    change = f"{100 * measured:+.1f} [{100 * measured - 3:+.1f}, {100 * measured + 3:+.1f}]"
    assert plain(sentences.predicted_gain_sentence(gain)) == (
        f"Last time Seedling expected +5.9 points from {labels}; you got {change}{end}"
    )


def test_the_first_stricter_threshold_is_named() -> None:
    """Not one that covers nothing, nor one below the threshold in use; without any, only that no threshold is needed."""
    errors = estimate(0.009, 0.002, 0.048)
    none = ThresholdResult(None, (0.001,), coverage=None, errors=None)
    empty = ThresholdResult(0.99, (0.005,), coverage=estimate(0.0), errors=None)
    point = ThresholdResult(0.892, (0.01,), coverage=estimate(0.932), errors=errors)
    always = "It predicts every row: in cross-validation, it reached the target accuracy of 95 % without a threshold. "
    confident = "Above a confidence of 89.2 % it predicts 93.2 % of the rows, and 99.1 % [95.2 %, 99.8 %] of these "
    confident += "predictions are right."
    assert plain(sentences.confidence_sentence(selective(), [none, empty, point])) == always + confident
    assert plain(sentences.confidence_sentence(selective(threshold=0.5), [point])) == confident
    assert sentences.confidence_sentence(selective(threshold=0.9), [point]) is None
    assert sentences.confidence_sentence(selective(threshold=0.8919), [point]) is None, "both are printed as 89.2 %"
    assert plain(sentences.confidence_sentence(selective(), [none])) == always
    assert sentences.confidence_sentence(selective(coverage=None), [point]) is None


def test_the_sample_of_the_robustness_tests_is_stated() -> None:
    """With the accuracy on the unchanged rows of the sample."""
    assert plain(sentences.robustness_sentence(RobustnessRecord(rows=1_000, accuracy=0.857, changes=()))) == (
        "A random sample of 1 000 test rows, of which 85.7 % are right without changes. The intervals account for the "
        "size of the sample."
    )


def test_the_accuracy_has_its_interval_and_rows() -> None:
    """On test rows, by cross-validation, and unknown."""
    assert plain(sentences.accuracy_sentence(Headline("test", 224, ESTIMATE), 0.95)) == (
        "accuracy (95 % interval 70.0 % to 90.0 %), on 224 test rows, which were not used in training."
    )
    assert plain(sentences.accuracy_sentence(Headline("cross_validation", 224, ESTIMATE), 0.9)) == (
        "accuracy (90 % interval 70.0 % to 90.0 %), on 224 labeled rows by cross-validation."
    )
    unknown = plain(sentences.accuracy_sentence(Headline("cross_validation", 224, None), 0.95))
    assert unknown.startswith("The accuracy is unknown:")


def test_abstention_states_coverage_and_the_target_only_if_it_is_missed() -> None:
    """A target of 95 % is missed with 89.3 %, one of 85 % is met; no row is confident enough; no threshold."""
    values = {
        "threshold": 0.598,
        "coverage": estimate(205 / 224, 0.8, 0.95),
        "accuracy": estimate(0.893, 0.85, 0.93),
    }
    assert plain(sentences.abstention_sentence(selective(**values), 224, 0.0)) == (
        "Above a confidence of 59.8 % it predicts 205 of 224 rows (91.5 %), and 89.3 % [85.0 %, 93.0 %] of these predictions "
        "are right; "
        "the target is 95 %"
    )
    assert "target" not in plain(
        sentences.abstention_sentence(selective(**{**values, "target_accuracy": 0.85}), 224, 0.0)
    )
    assert plain(sentences.abstention_sentence(selective(**{**values, "accuracy": None}), 224, 0.0)) == (
        "No row has a confidence above 59.8 %, the threshold for the target accuracy of 95 %: the model abstains on all "
        "of them"
    )
    assert sentences.abstention_sentence(selective(**{**values, "threshold": 0.0}), 224, 0.0) is None
    assert sentences.abstention_sentence(selective(**{**values, "coverage": None}), 224, 0.0) is None


def test_a_threshold_raised_by_wrong_labels_is_reported() -> None:
    """A tenth of the labels are wrong, the target is 95 %, and less than half of the rows are covered."""
    strict = selective(threshold=0.9, coverage=estimate(0.3), accuracy=ESTIMATE)
    sentence = plain(sentences.abstention_sentence(strict, 100, 0.1))
    assert (
        "The threshold may be too strict: it was chosen on rows of which an estimated 10 % have a wrong label"
        in sentence
    )
    assert "too strict" not in plain(sentences.abstention_sentence(strict, 100, 0.01))


def test_rows_of_no_class_are_evaluated_or_a_stand_in_is_named() -> None:
    """With such rows, with the stand-in, and with neither."""
    hardest = HardestClassRecord(name="cloudy", auroc=0.55)
    unknown = UnknownClassesRecord(classes=4, auroc=estimate(0.71, 0.6, 0.8), hardest=hardest)
    outside = OutOfScopeRecord(rows=30, coverage=ESTIMATE, auroc=estimate(0.912, 0.85, 0.96))
    assert plain(sentences.out_of_scope_sentence(None, None, 0.5)) == (
        "not evaluated: put examples into data/out_of_scope/ (or give them the split out_of_scope in the table)"
    )
    assert plain(sentences.out_of_scope_sentence(None, unknown, 0.5)).endswith(
        "As a stand-in, each class was left out of training in turn: confidence separates its rows from known ones "
        "with an "
        "AUROC of 0.71 [0.60, 0.80] (chance: 0.5); worst for cloudy (0.55)"
    )
    evaluated = plain(sentences.out_of_scope_sentence(outside, unknown, 0.0))
    assert evaluated == (
        "It does not abstain on 80.0 % [70.0 %, 90.0 %] of 30 rows; AUROC of confidence 0.912 [0.850, 0.960]"
    )
    assert "optimistic" in plain(sentences.out_of_scope_sentence(outside, unknown, 0.5))


def test_a_new_source_is_compared_with_known_ones() -> None:
    """Accuracy, difference and the worst source, whose name is escaped."""
    unseen = UnseenSourcesRecord(
        sources=3,
        rows=40,
        accuracy=ESTIMATE,
        difference=difference(-0.05, -0.1, 0.0),
        hardest=HardestSourceRecord(source="<i>", accuracy=ESTIMATE, rows=12),
    )
    sentence = sentences.unseen_source_sentence(unseen)
    assert "accuracy of 80.0 % [70.0 %, 90.0 %], -5.0 points [-10.0, +0.0] from" in plain(sentence)
    assert "worst of 3 sources: &lt;i&gt; " in sentence


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            1,
            "1 row of classes with too few training rows: the model gets it wrong, and the accuracy above does not "
            "include it",
        ),
        (
            2,
            "2 rows of classes with too few training rows: the model gets them wrong, and the accuracy above does not "
            "include them",
        ),
    ],
)
def test_unlearned_rows_agree_in_number(rows: int, expected: str) -> None:
    """One row and two."""
    assert plain(sentences.unlearned_sentence(rows)) == expected


def test_unchecked_labels_are_counted() -> None:
    """With a test split, without one, and where no label was checked."""
    counted = "300 of the 1 500 training labels were given by rules or models, not by people"
    assert plain(sentences.unchecked_labels_sentence(subject(), "cross_validation")) == counted
    assert plain(sentences.unchecked_labels_sentence(subject(), "test")) == (
        f"{counted} (those of the test rows were given by people)"
    )
    every = subject(unchecked=1_500)
    assert plain(sentences.unchecked_labels_sentence(every, "cross_validation")).endswith(
        ", and the accuracy above is measured against them"
    )


def test_test_set_evaluations_are_counted_and_corrected() -> None:
    """The first use, two models, a restarted log, and no log at all."""
    first = LoggedEvaluation("2026-11-27T10:00:00+00:00", "ann", test="t", model="m1")
    second = LoggedEvaluation("2026-11-28T10:00:00+00:00", "bob", test="t", model="m2")
    assert plain(sentences.evaluation_log_sentence(EvaluationLog([first]), None)) == (
        "1 by ann, 2026-11-27: first use of the test set, so the accuracy is unbiased. Picking the best of many "
        "evaluations "
        "would inflate it"
    )
    assert "unbiased" not in sentences.evaluation_log_sentence(EvaluationLog([first]), None, is_random=False)
    assert plain(sentences.evaluation_log_sentence(EvaluationLog([first, second]), Estimate(0.5, 0.419, 0.548))) == (
        "2 by ann, bob, 2026-11-27 to 2026-11-28. If you choose between these 2 models by this score, read 41.9 % to "
        "54.8 %"
    )
    restarted = plain(sentences.evaluation_log_sentence(EvaluationLog([first], "2026-11-26T00:00:00"), None))
    assert restarted.startswith(
        "at least 1: the log was restarted on 2026-11-26, and earlier evaluations are not counted;"
    )
    assert "first use" not in restarted
    assert plain(sentences.evaluation_log_sentence(EvaluationLog([], ""), None)).startswith(
        "unknown: test_evaluations.jsonl has no entry for this test split, although there are results on it;"
    )


def test_wrong_test_labels_are_an_estimate() -> None:
    """The share of wrong labels, and the accuracy without them."""
    test_labels = WrongTestLabelsRecord(rate=estimate(0.05, 0.7, 0.9), accuracy=ESTIMATE)
    sentence = plain(sentences.wrong_test_labels_sentence(test_labels))
    assert "An estimated 5.0 % [70.0 %, 90.0 %] of them are wrong" in sentence
    assert "the accuracy would be 80.0 % [70.0 %, 90.0 %]." in sentence


def test_split_variation_states_whether_learners_differ() -> None:
    """25 splits; a difference whose interval contains zero, with and without agreement, and one that does not."""
    repeated = RepeatedRecord(
        rows=60,
        folds=5,
        repeats=5,
        agreement=0.5,
        splits=FoldAccuraciesRecord(learner="logistic_regression", accuracy=(0.5, 0.7, 0.8, 0.9, 1.0)),
        learners=(
            LearnerAccuracyRecord(learner="logistic_regression", accuracy=ESTIMATE),
            LearnerAccuracyRecord(learner="svm", accuracy=ESTIMATE),
        ),
        difference=estimate(-0.036, -0.1, 0.03),
    )
    sentence = plain(sentences.split_variation_sentence(repeated))
    assert sentence == (
        "Over 25 splits of 60 rows (5 folds, 5 times), logistic regression scored 50.0 % to 100.0 %, half of the time "
        "70.0 % to 90.0 %: one split of so few rows says little. Logistic regression 80.0 % [70.0 %, 90.0 %], svm "
        "80.0 % "
        "[70.0 %, 90.0 %]; difference -3.6 points [-10.0, +3.0]: not significant."
    )
    agreeing = plain(sentences.split_variation_sentence(repeated.model_copy(update={"agreement": 0.95})))
    assert "the splits share rows, so that proves nothing" in agreeing
    different = repeated.model_copy(update={"difference": estimate(-0.06, -0.1, -0.01)})
    assert plain(sentences.split_variation_sentence(different)).endswith("points [-10.0, -1.0].")


def test_fold_accuracies_are_listed() -> None:
    """Two folds."""
    folds = [FoldRecord(fold=0, rows=10, accuracy=0.5), FoldRecord(fold=1, rows=8, accuracy=0.75)]
    assert plain(sentences.fold_accuracies_sentence(folds)) == (
        "Accuracy of each cross-validation fold: 50.0 % of 10, 75.0 % of 8."
    )


def test_a_missed_target_is_bad_only_beyond_chance() -> None:
    """Met, without rows, missed within the interval, and missed beyond it."""

    def point(errors: EstimateRecord | None) -> ThresholdResult:
        return ThresholdResult(0.5, (0.01, 0.02), coverage=ESTIMATE, errors=errors)

    assert (
        plain(sentences.missed_target(point(estimate(0.03, 0.005, 0.06)))) == "target of 1 % not met, perhaps by chance"
    )
    significant = sentences.missed_target(point(estimate(0.03, 0.02, 0.06)))
    assert plain(significant) == "target of 1 % not met"
    assert 'class="bad"' in str(significant)
    assert sentences.missed_target(point(estimate(0.01, 0.0, 0.06))) is None
    assert sentences.missed_target(point(None)) is None


def test_thresholds_are_an_independent_check_on_test_rows_alone() -> None:
    """On test rows, and on the rows that chose them."""
    assert plain(sentences.thresholds_sentence(1_200, "test")) == (
        "The thresholds were chosen on 1 200 cross-validated rows, so their results on the test rows are an "
        "independent check."
    )
    assert plain(sentences.thresholds_sentence(0, "cross_validation")) == (
        "The thresholds were chosen on no cross-validated rows, so their results on the same rows are optimistic."
    )


def test_an_invisible_perturbation_is_a_warning() -> None:
    """Below one gray level, above it, words, and none found."""
    images = MinimalPerturbationRecord(unit="levels", rows=16, flipped=13, median=0.21, quartiles=(0.1, 0.4))
    assert plain(sentences.perturbation_sentence(images)) == (
        "An invisible change (0.21 of 255 gray levels) flips the prediction in 13 of 16 tries (half of the images: "
        "0.1 to "
        "0.4; DeepFool). Do not use the model where someone may try to fool it."
    )
    visible = plain(sentences.perturbation_sentence(images.model_copy(update={"median": 12.0})))
    assert visible.startswith("A change of 12 of 255 gray levels flips") and "fool" not in visible.replace(
        "DeepFool", ""
    )
    words = MinimalPerturbationRecord(unit="words", rows=8, flipped=8, median=0.25, quartiles=(0.1, 0.5))
    unchanged = MinimalPerturbationRecord(unit="levels", rows=16, flipped=0, median=None, quartiles=(None, None))
    assert plain(sentences.perturbation_sentence(words)).startswith(
        "Leaving out 25.0 % of the words flips the prediction"
    )
    assert plain(sentences.perturbation_sentence(unchanged)) == (
        "No minimal perturbation was found for the 16 right rows that were tried."
    )


def filter_trial(name: str, kept: int, precision: float | None, gain: float, p: float = 0.0) -> FilterTrial:
    """A filter on 20 held-out rows; p: the probability that it gains more than keeping all rows."""
    interval = None if precision is None else estimate(precision)
    return FilterTrial(filter=name, kept=kept, precision=interval, gain=gain, probability_better=p)


def test_a_filter_with_more_right_labels_that_is_not_used_is_explained() -> None:
    """By its value per row; filters that keep less than a fifth of the rows, 4 of 20, are not named."""
    keep_all = filter_trial("all", 20, 0.45, 0.21)
    few, none = filter_trial("confidence", 3, 1.0, 0.05), filter_trial("agreement", 0, None, 0.0)
    half = filter_trial("top_per_class", 10, 0.55, 0.17, 0.3)
    beginning = (
        "The labels that the filter top per class keeps are right more often (55.0 % instead of 45.0 %), but they are "
        "fewer (10 instead of 20), and "
    )
    assert plain(sentences.filter_sentence(audit(filters=(keep_all, few, none, half)))) == (
        beginning + "the value per row is lower (0.170 instead of 0.210)."
    )
    unclear = filter_trial("top_per_class", 10, 0.55, 0.23, 0.63)
    assert plain(sentences.filter_sentence(audit(filters=(keep_all, few, none, unclear)))) == (
        beginning + "the value per row is not clearly higher (0.230 instead of 0.210; the probability is 0.63, and "
        "0.90 is needed)."
    )


def test_the_most_precise_filter_and_a_round_without_an_audit_need_no_explanation() -> None:
    """Nothing is compared without held-out rows."""
    trials = (filter_trial("all", 20, 0.45, 0.21), filter_trial("top_per_class", 10, 0.55, 0.31, 0.97))
    assert sentences.filter_sentence(audit(filters=trials, filter="top_per_class")) == ""
    assert sentences.filter_sentence(audit(filters=trials)) == "", "params.yaml has set the filter all"
    assert sentences.filter_sentence(audit(filters=())) == ""
    assert sentences.filter_sentence(audit(filters=(filter_trial("all", 0, None, 0.0),), rows=0)) == ""


def test_a_teacher_that_hardly_counts_is_explained() -> None:
    """Usual weight, overconfident, and without held-out rows."""
    assert sentences.teacher_weight_sentence(audit(teacher_weight=0.1, rows=20)) == ""
    assert sentences.teacher_weight_sentence(audit(teacher_weight=0.0, rows=20)) == ""
    assert "1/50 of a nearby label" in sentences.teacher_weight_sentence(audit(teacher_weight=0.02, rows=20))
    assert "only breaks ties" in sentences.teacher_weight_sentence(audit(teacher_weight=0.02, rows=0))


def test_label_issues_are_flagged_and_repaired() -> None:
    """None flagged, one, two repaired, and no estimate."""
    noise = label_issues(labels=1_028, policy="drop")
    assert plain(sentences.label_issues_sentence(noise)) == (
        "of 1 028 labels are expected to be wrong, estimated by out-of-fold models and a model of labeling mistakes; "
        "none is "
        "likely enough to flag."
    )
    assert plain(sentences.label_issues_sentence(noise.model_copy(update={"flagged": 1}))).endswith(
        "; 1 is likely enough to flag."
    )
    assert plain(sentences.label_issues_sentence(noise.model_copy(update={"flagged": 2, "repaired": 2}))).endswith(
        "; 2 are likely enough to flag, and 2 of them were repaired (drop)."
    )
    assert sentences.label_issues_sentence(None) is None
    assert sentences.label_issues_sentence(NotEstimated(not_estimated="too few labels")) is None


def test_copies_and_leaks_are_counted() -> None:
    """With leaks and conflicts, with neither, and without copies."""
    copies = {"rows": 12, "groups": 5, "conflicts": 2}
    assert plain(
        sentences.copies_sentence(copies, {"near-duplicates of test rows": 3, "exact copies of test rows": 1})
    ) == (
        "12 rows are duplicates or near-duplicates, in 5 groups. 4 rows were rejected because they would leak a "
        "held-out row "
        "into another split (3 near-duplicates of test rows, 1 exact copies of test rows). All 2 rows with "
        "contradicting "
        "labels were rejected. The remaining rows of a group are in the same fold."
    )
    assert plain(sentences.copies_sentence({"rows": 2, "groups": 1, "conflicts": 0}, {})) == (
        "2 rows are duplicates or near-duplicates, in 1 group. 0 rows were rejected because they would leak a "
        "held-out row "
        "into another split. The remaining rows of a group are in the same fold."
    )
    assert sentences.copies_sentence({"rows": 0, "groups": 0, "conflicts": 0}, {}) == ""


def test_counts_are_listed_in_words() -> None:
    """Underscores become blanks, and thousands are set apart."""
    assert plain(sentences.listed({"too_small": 1_200, "blurred": 1})) == "1 200 too small, 1 blurred"
    assert sentences.listed({}) == ""
