"""Sentences of report.html and data.html that depend on conditions.

Each function returns one sentence or phrase as text or as HTML with escaped values; "" or None if it does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from seedling.records.candidates import (
    LearnerAccuracyRecord,
    RepeatedRecord,
    UnknownClassesRecord,
    UnseenSourcesRecord,
)
from seedling.records.evaluation import (
    EvaluatedSplit,
    FoldRecord,
    MajorityBaselineRecord,
    MinimalPerturbationRecord,
    OutOfScopeRecord,
    RobustnessRecord,
    RoundRecord,
    SelectivePredictionRecord,
    WrongTestLabelsRecord,
)
from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.predicted_gain import PredictedGain
from seedling.records.review import ReviewedTestRecord
from seedling.records.stage_notes import MIN_P_BETTER_FILTER, LabelIssueEstimate, NotEstimated, PseudoLabelAudit
from seedling.records.test_evaluations import EvaluationLog
from seedling.report.pages import breakable, percent, points, thousands, whole_percent
from seedling.report.results import Headline, Subject, ThresholdResult
from seedling.stats.statistics import Estimate

MAX_NAMED_CLASSES = 12
MAX_VISIBLE_LEVELS = 1.0  # of 255 gray levels; a smaller change of an image is invisible
USUAL_TEACHER_WEIGHT = 0.1  # of a nearby label
HIGH_AGREEMENT = 0.9
MIN_KEPT_SHARE = 0.2  # of the held-out rows: the precision of a filter that keeps fewer says little

Values = Mapping[str, Any]


def soft(text: str) -> Markup:
    """The text in a lighter color."""
    return Markup('<span class="soft">{}</span>').format(text)


def warning(text: str) -> Markup:
    """The text in the color of warnings."""
    return Markup('<span class="warn">{}</span>').format(text)


def interval(estimate: EstimateRecord) -> str:
    """[12.3 %, 45.6 %]."""
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]"


def points_with_interval(difference: DifferenceRecord) -> Markup:
    """+1.2 points [-3.4, +5.6]."""
    ends = soft(f"[{points(difference.low)}, {points(difference.high)}]")
    return Markup("{} points {}").format(points(difference.value), ends)


def plural(count: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{thousands(count)} {noun}" if count == 1 else f"{thousands(count)} {noun}s"


def listed(counts: Mapping[str, int]) -> str:
    """{"too_small": 2, "blurred": 1} → 2 too small, 1 blurred."""
    return ", ".join(f"{thousands(count)} {name.replace('_', ' ')}" for name, count in counts.items())


def plural_classes(count: int) -> str:
    """1 class, 2 classes."""
    return "1 class" if count == 1 else f"{thousands(count)} classes"


def named_classes(classes: Sequence[str]) -> Markup:
    """The first MAX_NAMED_CLASSES names, and the number of the others."""
    names = Markup(", ").join(breakable(name) for name in classes[:MAX_NAMED_CLASSES])
    others = len(classes) - MAX_NAMED_CLASSES
    return names + (f" and {thousands(others)} more" if others > 0 else "")


def subject_sentence(subject: Subject, accepted_round: int) -> Markup:
    """What the model classifies, what it was trained on, and which round is in use."""
    never = subject.never_predicted
    classes = [name for name in subject.classes if name not in never]
    sources = ", ".join(f"{thousands(rows)} {source}" for source, rows in subject.sources)
    labeled = f"rows labeled {subject.sources[0][0]}" if len(subject.sources) == 1 else f"labeled rows ({sources})"
    pseudo_labeled = f" and {thousands(subject.pseudo_labeled)} pseudo-labeled rows" if subject.pseudo_labeled else ""
    return Markup("Classifies {} into {}: {}{}. Trained on {} {}{}. The model in use is round {}: {}.").format(
        "images" if subject.modality == "image" else "texts",
        plural_classes(len(classes)),
        named_classes(classes),
        Markup("; never predicts {}").format(named_classes(never)) if never else "",
        thousands(subject.labeled),
        labeled,
        pseudo_labeled,
        accepted_round,
        subject.learners,
    )


def accuracy_sentence(headline: Headline, confidence: float) -> Markup:
    """The interval of the accuracy, and the rows it was measured on."""
    if headline.accuracy is None:
        return Markup(
            "<b>The accuracy is unknown:</b> there is no test split, and every labeled row is needed for training. "
            "Label "
            "a second row of some classes, or give rows the split <code>test</code> (in data/test/&lt;class&gt;/, or "
            "in "
            "the table)."
        )
    rows = (
        f"{thousands(headline.rows)} test rows, which were not used in training"
        if headline.where == "test"
        else f"{thousands(headline.rows)} labeled rows by cross-validation"
    )
    return Markup("accuracy ({} interval <b>{}</b> to <b>{}</b>), on {}.").format(
        whole_percent(confidence), percent(headline.accuracy.low), percent(headline.accuracy.high), rows
    )


def model_choice_sentence(rounds: Sequence[RoundRecord], accepted_round: int) -> Markup | None:
    """Why the model in use is that of its round, by the last comparison of two rounds; None if there was none."""
    compared = [result for result in rounds if result.round > 0]
    if not compared:
        return None
    last = compared[-1]
    if last.decision == "rejected":
        return Markup("The model of round {} stays, because round {} was rejected: {}.").format(
            accepted_round, last.round, last.reason
        )
    return Markup("The model of round {} was accepted in place of that of round {}: {}.").format(
        accepted_round, accepted_round - 1, last.reason
    )


def baseline_sentence(baseline: MajorityBaselineRecord, accuracy: EstimateRecord) -> Markup:
    """The accuracy of always predicting the most frequent class, and whether the model is clearly better."""
    sentence = Markup("Always predicting “{}” would be right for <b>{}</b> of these rows.").format(
        breakable(baseline.name), percent(baseline.accuracy)
    )
    if accuracy.low <= baseline.accuracy:
        sentence += Markup(" {}").format(warning("The model is not clearly better than that."))
    return sentence


def predicted_gain_sentence(gain: PredictedGain) -> Markup:
    """What the previous run expected of the labels that were added or fixed since, and what they brought."""
    measured = gain.measured
    sentence = Markup("<b>Last time</b> Seedling expected <b>{}</b> from {}; you got <b>{}</b> {}").format(
        f"{points(gain.expected.value)} points",
        gain.source,
        points(measured.value),
        soft(f"[{points(measured.low)}, {points(measured.high)}]"),
    )
    if gain.agrees:
        return sentence + "."
    return sentence + Markup(": {}.").format(warning("more" if measured.value > gain.expected.value else "less"))


def confidence_sentence(
    selective: SelectivePredictionRecord, points_by_error: Sequence[ThresholdResult]
) -> Markup | None:
    """At which confidence the predictions are reliable; None if nothing was evaluated.

    points_by_error: the operating points, the lowest maximum error rate first. The first one that covers rows and is
    stricter than the threshold in use is named.
    """
    if not selective.coverage:
        return None
    if selective.threshold > 0:
        sentence = Markup("")
    else:
        sentence = Markup(
            "It predicts every row: in cross-validation, it reached the target accuracy of {} without a threshold. "
        ).format(whole_percent(selective.target_accuracy))
    for point in points_by_error:
        if point.threshold is None or point.threshold <= selective.threshold or not (point.coverage and point.errors):
            continue
        if percent(point.threshold) == percent(selective.threshold):  # the sentence on abstention has said it
            continue
        errors = point.errors
        ends = soft(f"[{percent(1 - errors.high)}, {percent(1 - errors.low)}]")
        return sentence + Markup(
            "Above a confidence of {} it predicts {} of the rows, and {} {} of these predictions are right."
        ).format(percent(point.threshold), percent(point.coverage.value), percent(1 - errors.value), ends)
    return sentence or None


def abstention_sentence(selective: SelectivePredictionRecord, rows: int, label_noise: float) -> Markup | None:
    """Coverage and selective accuracy at the threshold in use; None if the model never abstains.

    rows: number of evaluation rows; label_noise: expected share of wrong labels.
    """
    if not selective.coverage or selective.threshold <= 0:
        return None
    coverage, threshold, target = selective.coverage.value, percent(selective.threshold), selective.target_accuracy
    if selective.accuracy is None:
        sentence = Markup(
            "No row has a confidence above {}, the threshold for the target accuracy of {}: the model abstains on all "
            "of them"
        ).format(threshold, whole_percent(target))
    else:
        accuracy = selective.accuracy
        result = Markup("and {} {} of these predictions are right").format(
            percent(accuracy.value), soft(interval(accuracy))
        )
        is_missed = accuracy.value < target
        sentence = Markup("Above a confidence of {} it predicts {} of {} rows ({}), {}{}").format(
            threshold,
            thousands(round(coverage * rows)),
            thousands(rows),
            percent(coverage),
            result,
            Markup("; {}").format(warning(f"the target is {whole_percent(target)}")) if is_missed else "",
        )
    if label_noise > 1 - target and coverage < 0.5:
        sentence += Markup(
            ". {} it was chosen on rows of which an estimated {} have a wrong label, and a wrong label counts as an "
            "error. Check those labels first"
        ).format(warning("The threshold may be too strict:"), whole_percent(label_noise))
    return sentence


def out_of_scope_sentence(
    out_of_scope: OutOfScopeRecord | None, unknown_classes: UnknownClassesRecord | None, threshold: float
) -> Markup:
    """How the model treats rows that belong to none of the classes."""
    if out_of_scope is None:
        sentence = Markup("{} put examples into data/out_of_scope/ (or give them the split {} in the table)").format(
            warning("not evaluated:"), Markup("<code>out_of_scope</code>")
        )
        if unknown_classes is not None:
            sentence += Markup(". {}").format(_stand_in(unknown_classes))
        return sentence
    coverage, auroc = out_of_scope.coverage, out_of_scope.auroc
    return Markup("It does not abstain on {} {} of {} rows; AUROC of confidence {:.3f} {}{}").format(
        percent(coverage.value),
        soft(interval(coverage)),
        thousands(out_of_scope.rows),
        auroc.value,
        soft(f"[{auroc.low:.3f}, {auroc.high:.3f}]"),
        Markup(" {}").format(soft("(optimistic: the threshold was chosen on these rows)")) if threshold > 0 else "",
    )


def _stand_in(unknown_classes: UnknownClassesRecord) -> Markup:
    auroc, hardest = unknown_classes.auroc, unknown_classes.hardest
    return Markup(
        '<span class="soft">As a stand-in, each class was left out of training in turn: confidence separates its rows '
        "from known ones with an AUROC of {:.2f} [{:.2f}, {:.2f}] (chance: 0.5); worst for {} ({:.2f})</span>"
    ).format(auroc.value, auroc.low, auroc.high, breakable(hardest.name), hardest.auroc)


def unseen_source_sentence(unseen_sources: UnseenSourcesRecord) -> Markup:
    """Accuracy of a quick model on sources that were left out of its training."""
    accuracy, hardest = unseen_sources.accuracy, unseen_sources.hardest
    return Markup(
        "On a site, file or folder that was left out of training, a quick model has an accuracy of {} {}, {} from its "
        "accuracy with it; worst of {} sources: {} {}"
    ).format(
        percent(accuracy.value),
        soft(interval(accuracy)),
        points_with_interval(unseen_sources.difference),
        unseen_sources.sources,
        hardest.source,
        soft(f"({percent(hardest.accuracy.value)} {interval(hardest.accuracy)} of {thousands(hardest.rows)} rows)"),
    )


def unlearned_sentence(rows: int) -> str:
    """The test rows that were left out because their class has too few training rows."""
    it = "it" if rows == 1 else "them"
    return (
        f"{plural(rows, 'row')} of classes with too few training rows: the model gets {it} wrong, and the accuracy "
        f"above "
        f"does not include {it}"
    )


def unchecked_labels_sentence(subject: Subject, where: EvaluatedSplit) -> Markup:
    """The training labels that no person checked."""
    sentence = Markup("{} of the {} training labels were given by rules or models, not by people").format(
        thousands(subject.unchecked), thousands(subject.labeled)
    )
    if where == "test":
        return sentence + " " + soft("(those of the test rows were given by people)")
    if subject.unchecked == subject.labeled:
        return sentence + ", and the accuracy above is measured against them"
    return sentence


def reviewed_test_sentence(test: ReviewedTestRecord) -> Markup:
    """Why the accuracy on a test split that was taken from reviewed rows is not that of all rows."""
    selected = test.rows - test.random - test.imported
    imported = (
        f" {thousands(test.imported)} {was_or_were(test.imported)} labeled in another tool." if test.imported else ""
    )
    return Markup(
        "{} Only reviewers labeled the {}. The order of the review selected {}, which are harder than the data on "
        "average, and {} at random without a suggestion.{} {} The accuracy is an estimate for such rows. For an "
        "unbiased one, draw rows at random, label them, and put them into data/test/&lt;class&gt;/ or give them the "
        "split <code>test</code> in the table."
    ).format(
        warning("Not a random sample."),
        plural(test.rows, "test row"),
        "all of them" if selected == test.rows else f"{thousands(selected)} of them",
        "none was drawn" if not test.random else f"{thousands(test.random)} {was_or_were(test.random)} drawn",
        imported,
        f"{thousands(test.suggested)} {was_or_were(test.suggested)} answered with a suggestion or a proposed class on "
        "the screen, so the labels may agree with the model too often."
        if test.suggested
        else "None was answered with a suggestion on the screen.",
    )


def was_or_were(count: int) -> str:
    """Was for 1, were for all others."""
    return "was" if count == 1 else "were"


def evaluation_log_sentence(log: EvaluationLog, corrected: Estimate | None, *, is_random: bool = True) -> Markup:
    """How often the test split was used, by whom and when, and what this means for the accuracy.

    corrected: interval of the accuracy with Bonferroni's correction for the number of models; is_random: whether the
    test rows were drawn at random, so that the accuracy may be unbiased.
    """
    models, since = log.models, log.incomplete_since
    if since is None:
        sentence = Markup("{}").format(len(models))
    else:
        count = (
            f"at least {len(models)}: the log was restarted on {since[:10]}, and earlier evaluations are not counted"
            if models
            else "unknown: test_evaluations.jsonl has no entry for this test split, although there are results on it"
        )
        sentence = Markup(
            "{}; <code>git log -- test_evaluations.jsonl</code> or another copy of the workspace may have the log."
        ).format(count)
    if models:
        users = ", ".join(dict.fromkeys(entry.who for entry in models))
        first, last = models[0].time[:10], models[-1].time[:10]
        sentence += Markup(" {}").format(
            soft(f"by {users}, {first} to {last}" if first != last else f"by {users}, {last}")
        )
    if len(models) == 1 and since is None:
        is_unbiased = ", so the accuracy is unbiased" if is_random else ""
        sentence += soft(
            f": first use of the test set{is_unbiased}. Picking the best of many evaluations would inflate it"
        )
    if corrected is not None:
        sentence += soft(
            f". If you choose between these {len(models)} models by this score, read {percent(corrected.low)} to "
            f"{percent(corrected.high)}"
        )
    return sentence


def wrong_test_labels_sentence(test_labels: WrongTestLabelsRecord) -> Markup:
    """The estimated share of wrong test labels, and the accuracy without them."""
    rate, accuracy = test_labels.rate, test_labels.accuracy
    return Markup(
        'Are the test labels right? <span class="soft">An estimated {} {} of them are wrong, if errors are random; '
        "with "
        "those fixed, the accuracy would be <b>{}</b> {}. A model hardly notices a label of a similar class, so there "
        "may be "
        "more; a weak model takes difficult rows for wrong labels, so there may be fewer.</span>"
    ).format(percent(rate.value), interval(rate), percent(accuracy.value), interval(accuracy))


def split_variation_sentence(repeated: RepeatedRecord) -> Markup:
    """How much the accuracy varies from split to split, and whether two quick learners can be told apart."""
    splits, difference = repeated.splits, repeated.difference
    lowest, lower, _, upper, highest = splits.accuracy
    first, second = (_learner_accuracy(learner) for learner in repeated.learners)
    sentence = Markup(
        "Over {} splits of {} rows ({} folds, {} times), {} scored <b>{}</b> to <b>{}</b>, half of the time {} to {}: "
        'one split of so few rows says little. <span class="soft">{}, {}; difference {} points [{}, {}]'
    ).format(
        repeated.repeats * repeated.folds,
        thousands(repeated.rows),
        repeated.folds,
        repeated.repeats,
        splits.learner.replace("_", " "),
        *(percent(value) for value in (lowest, highest, lower, upper)),
        first[:1].upper() + first[1:],
        second,
        *(points(end) for end in (difference.value, difference.low, difference.high)),
    )
    if difference.low <= 0 <= difference.high:
        sentence += ": not significant"
        if repeated.agreement > HIGH_AGREEMENT:
            sentence += " (the same one wins nearly every time, but the splits share rows, so that proves nothing)"
    return sentence + Markup(".</span>")


def _learner_accuracy(learner: LearnerAccuracyRecord) -> str:
    accuracy = learner.accuracy
    return f"{learner.learner.replace('_', ' ')} {percent(accuracy.value)} {interval(accuracy)}"


def fold_accuracies_sentence(folds: Sequence[FoldRecord]) -> str:
    """The accuracy of each cross-validation fold."""
    accuracies = ", ".join(f"{percent(fold.accuracy)} of {fold.rows}" for fold in folds)
    return f"Accuracy of each cross-validation fold: {accuracies}."


def missed_target(point: ThresholdResult) -> Markup | None:
    """A note if the error rate of an operating point is above its maximum; None otherwise."""
    errors, target = point.errors, point.allowed[0]
    if errors is None or errors.value <= target:
        return None
    missed = f"target of {whole_percent(target)} not met"
    if errors.low > target:
        return Markup('<span class="bad">{}</span>').format(missed)
    return warning(f"{missed}, perhaps by chance")


def thresholds_sentence(cross_validated_rows: int, where: EvaluatedSplit) -> str:
    """The rows that the thresholds were chosen on, and whether the table is an independent check."""
    rows = thousands(cross_validated_rows) if cross_validated_rows else "no"
    check = (
        "so their results on the test rows are an independent check."
        if where == "test"
        else "so their results on the same rows are optimistic."
    )
    return f"The thresholds were chosen on {rows} cross-validated rows, {check}"


def robustness_sentence(robustness: RobustnessRecord) -> Markup:
    """The rows that were degraded, and how to test more of them."""
    return Markup("A random sample of {} test rows, of which {} are right without changes. {}").format(
        thousands(robustness.rows),
        percent(robustness.accuracy),
        soft("The intervals account for the size of the sample."),
    )


def perturbation_sentence(perturbation: MinimalPerturbationRecord) -> Markup:
    """The size of the minimal perturbation that flips a prediction."""
    rows, flipped, median = perturbation.rows, perturbation.flipped, perturbation.median
    low, high = perturbation.quartiles
    if median is None or low is None or high is None:
        return Markup("No minimal perturbation was found for the {} right rows that were tried.").format(rows)
    if perturbation.unit == "words":
        return Markup("Leaving out <b>{} of the words</b> flips the prediction {}.").format(
            percent(median),
            soft(f"(half of the texts: {percent(low)} to {percent(high)}; {flipped} of {rows} flipped)"),
        )
    size = soft(f"(half of the images: {low:.2g} to {high:.2g}; DeepFool)")
    if median < MAX_VISIBLE_LEVELS:
        return Markup(
            "An invisible change (<b>{:.2g} of 255 gray levels</b>) flips the prediction in {} of {} tries {}. Do not "
            "use the model where someone may try to fool it."
        ).format(median, flipped, rows, size)
    return Markup("A change of <b>{:.2g} of 255 gray levels</b> flips the prediction in {} of {} tries {}.").format(
        median, flipped, rows, size
    )


def filter_sentence(audit: PseudoLabelAudit) -> str:
    """Why all rows are kept although the labels of another filter are right more often; empty if there is none.

    The most precise of the filters that keep at least a fifth of the held-out rows is named. Empty, too, if another
    filter would have been chosen, so that params.yaml has set this one.
    """
    used = next((trial for trial in audit.filters if trial.filter == audit.filter), None)
    rivals = [trial for trial in audit.filters if trial.precision and trial.kept >= MIN_KEPT_SHARE * audit.rows]
    if not rivals or used is None or not used.precision or used.filter != "all":
        return ""
    best = max(rivals, key=lambda trial: trial.precision.value if trial.precision else 0.0)
    assert best.precision is not None  # noqa: S101  (all rivals have one)
    is_set = any(trial.probability_better >= MIN_P_BETTER_FILTER for trial in audit.filters)
    if best.precision.value <= used.precision.value or is_set:
        return ""
    words = best.filter.replace("_", " ")
    sentence = (
        f"The labels that the filter {words} keeps are right more often ({percent(best.precision.value)} instead of "
        f"{percent(used.precision.value)}), but they are fewer ({best.kept} instead of {used.kept}), and "
    )
    if best.gain <= used.gain:
        return sentence + f"the value per row is lower ({best.gain:.3f} instead of {used.gain:.3f})."
    return sentence + (
        f"the value per row is not clearly higher ({best.gain:.3f} instead of {used.gain:.3f}; the probability is "
        f"{best.probability_better:.2f}, and {MIN_P_BETTER_FILTER:.2f} is needed)."
    )


def teacher_weight_sentence(audit: PseudoLabelAudit) -> str:
    """Why the model's prediction hardly counts for the pseudo-labels; "" if it counts as usual."""
    weight = audit.teacher_weight
    if not weight or weight >= USUAL_TEACHER_WEIGHT:
        return ""
    if not audit.rows:
        return "No row could be held out to check the model, so its prediction only breaks ties between nearby labels."
    return (
        "On the held-out rows the model was overconfident, so its prediction of a row counts "
        f"1/{thousands(round(1 / weight))} of a nearby label instead of the usual 1/10."
    )


def label_issues_sentence(label_noise: LabelIssueEstimate | NotEstimated | None) -> Markup | None:
    """Validate's estimate of the wrong labels; None without an estimate."""
    if not isinstance(label_noise, LabelIssueEstimate):
        return None
    flagged, repaired = label_noise.flagged, label_noise.repaired
    sentence = Markup(
        "of {} labels are expected to be wrong, estimated by out-of-fold models and a model of labeling mistakes; "
    ).format(thousands(label_noise.labels))
    if flagged:
        sentence += Markup("<b>{}</b> likely enough to flag").format(
            f"{thousands(flagged)} {'is' if flagged == 1 else 'are'}"
        )
    else:
        sentence += "none is likely enough to flag"
    if repaired:
        sentence += Markup(", and {} of them {} repaired (<code>{}</code>)").format(
            thousands(repaired), "was" if repaired == 1 else "were", label_noise.policy
        )
    return sentence + "."


def copies_sentence(copies: Values, leaks: Mapping[str, int]) -> str:
    """Numbers of duplicates, removed leaks and conflicting labels; "" without duplicates."""
    if not copies["rows"]:
        return ""
    kinds = f" ({', '.join(f'{thousands(rows)} {kind}' for kind, rows in leaks.items())})" if leaks else ""
    conflicts = (
        f" All {thousands(copies['conflicts'])} rows with contradicting labels were rejected."
        if copies["conflicts"]
        else ""
    )
    return (
        f"{thousands(copies['rows'])} rows are duplicates or near-duplicates, in {plural(copies['groups'], 'group')}. "
        f"{thousands(sum(leaks.values()))} rows were rejected because they would leak a held-out row into another split"
        f"{kinds}.{conflicts} The remaining rows of a group are in the same fold."
    )
