"""reports/report.html: one self-contained page about the model, its data and how it was made.

The page is derived from the outputs of all stages. It is rewritten after each run, as it also shows what changed since
the previous run and how long each stage took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from seedling.dataset.generation import digest, payloads, read, read_manifest, read_rejected, stage_of
from seedling.dataset.schema import is_human_label
from seedling.errors import MissingGeneration
from seedling.evaluate import read_decisions
from seedling.evaluate.plots import read_losses
from seedling.files.ignored_files import count_not_copied
from seedling.files.reading import read_frame, read_json, row_dicts
from seedling.gates.checking import read_checks
from seedling.pipeline import row_stages
from seedling.records.ablation import AblationRecord
from seedling.records.candidates import CandidateRecord, CandidatesRecord
from seedling.records.crawl_rates import CrawlRatePoint, CrawlRates
from seedling.records.evaluation import (
    ClassResultRecord,
    EvaluatedSplit,
    EvaluationRecord,
    OperatingPointRecord,
    RoundRecord,
)
from seedling.records.few_labels import classes_with_few_labels, few_labels_phrase, training_labels
from seedling.records.gate import Check
from seedling.records.intervals import EstimateRecord
from seedling.records.manifest import LabelCount, RowCounts, read_notes
from seedling.records.model import ModelRecord
from seedling.records.notes import decision_note, skipped_rounds_note, warning_sentence
from seedling.records.predicted_gain import predicted_gain
from seedling.records.results import read_evaluation
from seedling.records.round_manifest import RoundManifestRecord
from seedling.records.run_records import RunRecord, read_run_records
from seedling.records.stage_notes import (
    AugmentNotes,
    FilesRecord,
    PseudoLabelAudit,
    PseudoLabelNotes,
    ScrapeNotes,
    ValidateNotes,
)
from seedling.records.test_evaluations import read_test_evaluations
from seedling.report import charts, sentences
from seedling.report.confusion import confusion_context
from seedling.report.contact_sheet import STAGES, sheet
from seedling.report.pages import environment, never_predicted, preview, vote
from seedling.report.results import Headline, Subject, ThresholdResult
from seedling.report.review_section import review_context
from seedling.report.row_stories import examples, stories
from seedling.stats.statistics import Estimate, wilson_of
from seedling.workspace import (
    CALIBRATION,
    CANDIDATES,
    CRAWL_RATES,
    EVALUATION,
    GATE,
    MANIFEST,
    MODEL,
    REPORTS,
    RISK_COVERAGE,
    Workspace,
)

MAX_SAMPLES = 12
MAX_WORST = 8  # rows in tables of the worst classes or confusions
MAX_WEAKEST_CLASSES = 3
SPLITS: tuple[EvaluatedSplit, ...] = ("test", "cross_validation")
METRIC_MEANINGS = (
    ("accuracy", "share of rows that are right"),
    ("balanced_accuracy", "recall, averaged over classes: rare classes count as much as common ones"),
    ("macro_f1", "F1 (precision and recall together), averaged over classes"),
    ("top_3_accuracy", "share of rows whose class is among the three most probable ones"),
    ("steps_off", "distance between predicted and true class in the order of the classes"),
    ("log_loss", "-log of the probability of the true class, averaged over rows; 0 is best"),
    ("brier", "squared distance of the probabilities from the truth, 0 to 2"),
    ("calibration_error", "difference between confidence and accuracy, without what chance adds"),
)
STEP_MEANINGS = {  # training data and losses, in the table of step contributions
    "augment": "augmented rows",
    "synthesize": "mixed, pasted or translated images, and filled templates",
    "consistency": "the network's prediction of a pool image stays the same under augmentation",
    "mixin": "rows of another dataset, with a separate output layer",
    "label_weighted": "likely label errors have a lower weight",
    "label_weighted_twice": "likely label errors have a much lower weight",
    "balanced": "rare classes have the same weight as common ones",
    "logit_adjusted": "rare classes are separated from common ones by a margin",
}
GLOSSARY = (
    ("row", "one image or text with its metadata"),
    ("pool", "rows without a label, which the model may pseudo-label and train on in later rounds"),
    (
        "test split",
        "labeled rows that no model was trained or chosen on; if there are any, the accuracy is measured on them",
    ),
    ("cross-validation", "each labeled row is predicted by a model that was trained without it"),
    ("95 % interval", "if this were repeated on new rows, 95 % of such intervals would contain the true value"),
    ("weak label", "given by a rule, such as a tag of the row's page, not by a person"),
    ("mixup", "a weighted average of two rows and of their labels"),
    (
        "round",
        "one training; a later round also trains on pseudo-labels, and is rolled back unless it is clearly better",
    ),
    ("log-loss", "0 if the model is certain and right, and largest if it is certain and wrong"),
    ("DeepFool", "a search for the smallest change of an image that flips the prediction"),
    ("quality gate", "checks of a stage's rows that must pass before the next stage may use them"),
    ("svm, boosted trees, logistic regression, network", "learners; the model is one of them, or a vote of several"),
)
STAGE_MEANINGS = {
    "scrape": "collected from data/ and from sites",
    "validate": "checked, and assigned to splits and folds",
    "augment": "augmented training rows with the same label",
    "synthesize": "new rows: mixed, pasted or translated images, filled templates",
    "pseudo_label": "pool rows labeled by the model",
}


@dataclass(frozen=True)
class StageResult:
    """A generation.

    rows: of its manifest; files: that scrape read, None for other stages; counts: rows by split; seconds: None if the
    stage was not run.
    """

    name: str
    meaning: str
    rows: RowCounts
    reasons: Sequence[tuple[str, int]]
    files: FilesRecord | None
    counts: Mapping[str, int]
    seconds: float | None


@dataclass(frozen=True)
class Sample:
    """A row with its label and a preview. is_weak: whether a rule labeled it."""

    label: str
    is_weak: bool
    text: str = ""
    image: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Samples:
    """A few rows of a stage."""

    stage: str
    rows: list[Sample]


@dataclass(frozen=True)
class RoundResult:
    """A trained round. pseudo_labeled: number of pool rows with a pseudo-label that it was trained on."""

    result: RoundRecord
    learners: str
    pseudo_labeled: int
    note: str


@dataclass(frozen=True)
class GateResult:
    """A gate. checks: their number; failed: each failed check with a sentence."""

    stage: str
    checks: int
    failed: list[tuple[Check, str]]


@dataclass(frozen=True)
class CrawlRateChart:
    """The crawl rate of a source. ceiling: the maximum rate, in requests per second; hosts: the last point of each."""

    source: str
    ceiling: float
    chart: Markup
    hosts: list[CrawlRatePoint]


@dataclass(frozen=True)
class ChangeSinceRun:
    """The changes since the previous run.

    since: its name; before, after: accuracies; is_same_test: whether both were evaluated on the same test split; rows:
    stages whose number of kept rows changed, with the numbers.
    """

    since: str
    before: EstimateRecord
    after: EstimateRecord
    is_same_test: bool
    rows: list[tuple[str, int, int]]


def write_report(workspace: Path) -> Path:
    """Writes the page from generations/, models/, reports/ and the records of runs; returns its path."""
    paths = Workspace(workspace)
    evaluation = read_evaluation(paths.reports)
    if evaluation is None:
        raise MissingGeneration(f"{REPORTS}/{EVALUATION}", "evaluate")
    predictions = read_frame(paths.predictions_file)
    classes = list(read_manifest(paths.generation("validate")).classes)
    runs = read_run_records(workspace)
    page = (
        environment("report.html.jinja")
        .get_template("report.html.jinja")
        .render(
            name=workspace.resolve().name,
            metrics=evaluation,
            sentences=sentences,
            glossary=GLOSSARY,
            **_result_context(workspace, evaluation, predictions),
            **_rows_context(paths.generations, runs),
            **_rounds_context(workspace, evaluation),
            **review_context(workspace, predictions, evaluation.confidence, runs),
            not_copied=count_not_copied(workspace),
            crawl_rates=_crawl_rates(paths.crawl_stores),
            confusion=confusion_context(predictions, classes),
            gates=_gates(workspace),
            change=_change(runs),
            gain=predicted_gain(runs),
            stories=stories(paths.generations, predictions),
            examples=examples(paths.generations, predictions, classes),
        )
    )
    path = paths.report_page
    path.write_text(page, encoding="utf-8")
    return path


def _result_context(workspace: Path, evaluation: EvaluationRecord, predictions: pd.DataFrame) -> dict[str, Any]:
    """The accuracy, its interpretation, and the limits of use."""
    paths = Workspace(workspace)
    validated, plots = paths.generation("validate"), paths.plots
    evaluations = read_test_evaluations(
        workspace, evaluation.test_digest or "", has_results=evaluation.test is not None
    )
    return {
        "subject": _subject(workspace, evaluation),
        "headline": Headline.of(evaluation),
        "baseline": evaluation.baseline,
        "label_noise": _label_noise(validated),
        "unlearned": _unlearned_rows(validated) if evaluation.test else 0,
        "operating_points": merge_thresholds(evaluation.operating_points),
        "evaluations": evaluations,
        "corrected": _corrected(evaluation, len(evaluations.models)),
        "metric_meanings": METRIC_MEANINGS,
        "splits": [split for split in SPLITS if evaluation.metrics_of(split)],
        "weakest": weakest(evaluation.per_class),
        "learning_curve": charts.learning_curve(evaluation.learning_curve),
        "risk_coverage": charts.risk_coverage(pd.read_csv(plots / RISK_COVERAGE)),
        "calibration": charts.calibration(row_dicts(pd.read_csv(plots / CALIBRATION))),
        "step_meanings": STEP_MEANINGS,
        **_ablation(workspace, evaluation.accepted_round),
    }


def _rows_context(generations: Path, runs: Sequence[RunRecord]) -> dict[str, Any]:
    """The rows of each stage, samples, and the rows that were made."""
    scrape_notes = read_notes(generations / "scrape", ScrapeNotes)
    augment_notes = read_notes(generations / "augment", AugmentNotes)
    sheets = {stage: sheet(generations, stage) for stage in STAGES}
    screening = augment_notes.screening
    return {
        "stages": _stages(generations, runs),
        "rules": scrape_notes.rules,
        "no_items": scrape_notes.no_items,
        "samples": _samples(generations),
        "sheets": sheets,
        "screening": screening,
        "class_shares": augment_notes.class_shares,
        "made": bool(screening) or any(contents["groups"] for contents in sheets.values()),
    }


def _rounds_context(workspace: Path, evaluation: EvaluationRecord) -> dict[str, Any]:
    """The rounds, the audits of pseudo-labels, and the candidates of round 0."""
    paths = Workspace(workspace)
    first_round = paths.model(0)
    return {
        "rounds": _rounds(paths.models, evaluation.rounds),
        "audits": _audits(paths.generations),
        "candidates": _candidates(first_round, paths.training_seconds("train@0")),
        "skipped": _skipped_rounds(paths.models),
        "left_out": CandidatesRecord.read(first_round / CANDIDATES).left_out,
        "losses": charts.losses(read_losses(first_round)),
    }


def _crawl_rates(folder: Path) -> list[CrawlRateChart]:
    """The crawl rate of each web source in its last visit, if the visit was long enough for a chart."""
    rates = []
    for path in sorted(folder.glob(CRAWL_RATES)):
        record = CrawlRates.read(path)
        chart = charts.crawl_rate(record.points)
        if chart is not None:
            last = {point.host: point for point in record.points}
            rates.append(CrawlRateChart(record.source, record.ceiling, chart, list(last.values())))
    return rates


def _ablation(workspace: Path, accepted_round: int) -> dict[str, Any]:
    """The results of `seedling ablate`, and whether they are of an earlier model than the accepted one."""
    path = Workspace(workspace).ablation_file
    ablation = AblationRecord.read(path) if path.is_file() else None
    is_earlier = ablation is not None and ablation.model != digest(Workspace(workspace).model(accepted_round))
    return {"ablation": ablation if ablation and ablation.bars else None, "ablation_is_earlier": is_earlier}


def _subject(workspace: Path, evaluation: EvaluationRecord) -> Subject:
    paths = Workspace(workspace)
    manifest = read_manifest(paths.generation("validate"))
    model_folder = paths.model(evaluation.accepted_round)
    model = ModelRecord.read(model_folder / MODEL)
    round_manifest = RoundManifestRecord.read(model_folder / MANIFEST)
    labels_by_source: dict[str, int] = {}
    for count in manifest.counts:
        if count.split == "train":
            source = count.label_source or "human"
            labels_by_source[source] = labels_by_source.get(source, 0) + count.rows
    return Subject(
        modality=manifest.modality,
        classes=manifest.classes,
        never_predicted=tuple(never_predicted(evaluation.per_class)),
        few_labels=few_labels_phrase(classes_with_few_labels(training_labels(manifest))),
        labeled=sum(labels_by_source.values()),
        unchecked=sum(labels for source, labels in labels_by_source.items() if not is_human_label(source)),
        sources=tuple(
            (_source_in_words(source), labels)
            for source, labels in sorted(labels_by_source.items(), key=lambda item: not is_human_label(item[0]))
        ),
        pseudo_labeled=round_manifest.pseudo_labeled,
        learners=vote(model),
    )


def _source_in_words(label_source: str) -> str:
    if is_human_label(label_source):
        return "by people" if label_source == "human" else "by reviewers"
    return f"by rules ({label_source[5:]})" if label_source.startswith("weak:") else f"by models ({label_source})"


def _unlearned_rows(validated: Path) -> int:
    """Number of test rows that were rejected because their class has too few training rows, or none."""
    rejected = read_rejected(validated, ["split", "reason"])
    is_unlearned = rejected["reason"].isin(["class_not_in_training", "class_too_small"])
    return int(((rejected["split"] == "test") & is_unlearned).sum())


def _label_noise(validated: Path) -> float:
    """Expected share of wrong labels; 0 if validate has no estimate, or repaired the labels."""
    label_issues = read_notes(validated, ValidateNotes).estimated_issues
    if label_issues is None or label_issues.repaired:
        return 0.0
    return label_issues.expected / max(1, label_issues.labels)


def merge_thresholds(points: Sequence[OperatingPointRecord]) -> list[ThresholdResult]:
    """The operating points, consecutive ones with the same threshold merged."""
    merged = []
    for threshold, of_threshold in groupby(points, key=lambda point: point.threshold):
        first, *others = of_threshold
        allowed = tuple(point.max_error_rate for point in (first, *others))
        merged.append(ThresholdResult(threshold, allowed, first.coverage, first.errors))
    return merged


def _corrected(evaluation: EvaluationRecord, n_models: int) -> Estimate | None:
    """The interval of the accuracy with Bonferroni's correction for the models evaluated on this test split.

    Its level is 1 - (1 - confidence) / n_models.
    """
    test = evaluation.test
    if n_models < 2 or test is None:
        return None
    return wilson_of(test.accuracy.value, test.effective_rows, 1 - (1 - evaluation.confidence) / n_models)


def weakest(classes: Sequence[ClassResultRecord]) -> list[ClassResultRecord]:
    """The predicted classes with the lowest recall below 1, at most MAX_WEAKEST_CLASSES."""
    imperfect = [
        (result.recall.value, result.name, result)
        for result in classes
        if result.precision and result.recall and result.recall.value < 1
    ]
    return [result for _, _, result in sorted(imperfect, key=lambda entry: entry[:2])[:MAX_WEAKEST_CLASSES]]


def _stages(generations: Path, runs: Sequence[RunRecord]) -> list[StageResult]:
    """Each generation: rows, reasons, meaning, and the seconds of the last run of its stage."""
    seconds: dict[str, float] = {}
    for run in runs:
        seconds |= {stage.stage: stage.seconds for stage in run.stages if stage.how == "done"}
    folders = [generations / name for name in row_stages()] + sorted((generations / "pseudo_label").glob("[0-9]*"))
    results = []
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest.is_skipped:
            continue
        name = manifest.stage
        results.append(
            StageResult(
                name=name,
                meaning=STAGE_MEANINGS[name.partition("@")[0]],
                rows=manifest.rows,
                reasons=sorted(manifest.reasons.items(), key=lambda item: -item[1]),
                files=manifest.notes.files if isinstance(manifest.notes, ScrapeNotes) else None,
                counts=_by_split(manifest.counts),
                seconds=seconds.get(name),
            )
        )
    return results


def _by_split(counts: Sequence[LabelCount]) -> dict[str, int]:
    """Rows by split and source of the label, such as `train (weak:tag)`."""
    totals: dict[str, int] = {}
    for count in counts:
        source = "" if count.label_source in {None, "human"} else f" ({count.label_source})"
        totals[count.split + source] = totals.get(count.split + source, 0) + count.rows
    return totals


def _samples(generations: Path) -> list[Samples]:
    """A few rows of each label from each stage that has rows: those with the first ids, so always the same."""
    samples = []
    for name in ("scrape", "pseudo_label/1"):
        folder = generations / name
        if not (folder / MANIFEST).is_file():
            continue
        rows = read(folder).sort_values("id")
        if rows.empty:
            continue
        labeled = rows[rows["label"].notna()]
        candidates = labeled if len(labeled) else rows
        per_label = max(1, MAX_SAMPLES // max(1, candidates["label"].nunique()))
        chosen = candidates.groupby("label", dropna=False).head(per_label).sort_values(["label", "id"])
        chosen = chosen.head(MAX_SAMPLES)
        source = [folder] if name != "pseudo_label/1" else [generations / "scrape"]
        content = dict(payloads(source, chosen["id"]))
        samples.append(
            Samples(
                stage=name.replace("/", "@"),
                rows=[
                    Sample(
                        row["label"] or "unlabeled",
                        is_weak=str(row["label_source"] or "").startswith("weak"),
                        **preview(content[row["id"]]),
                    )
                    for row in row_dicts(chosen[["id", "label", "label_source"]])
                ],
            )
        )
    return samples


def _rounds(models: Path, results: Sequence[RoundRecord]) -> list[RoundResult]:
    rounds = []
    for result in results:
        manifest = RoundManifestRecord.read(models / str(result.round) / MANIFEST)
        model = ModelRecord.read(models / str(result.round) / MODEL)
        note = decision_note(
            result.round,
            result.decision,
            result.reason,
            result.difference is not None,
            result.accuracy.value if result.accuracy else None,
        )
        learners = ", ".join(dict.fromkeys(member.learner.replace("_", " ") for member in model.members))
        rounds.append(RoundResult(result, learners, manifest.pseudo_labeled, note))
    return rounds


def _skipped_rounds(models: Path) -> str | None:
    """One sentence about all skipped rounds; None if there are none."""
    skipped = [decision for decision in read_decisions(models) if decision.decision == "skipped"]
    return skipped_rounds_note(skipped[0].round, skipped[0].reason) if skipped else None


@dataclass(frozen=True)
class RoundAudit:
    """The audit of a round's pseudo-labels. worst: imperfect classes with the lowest precision, in this order."""

    round: int
    audit: PseudoLabelAudit
    worst: list[str]
    never_predicted: list[str]


def _audits(generations: Path) -> list[RoundAudit]:
    """The audit of each round that labeled the pool."""
    audits = []
    for folder in sorted((generations / "pseudo_label").glob("[0-9]*")):
        audit = read_notes(folder, PseudoLabelNotes).audit
        if audit is not None:
            precision_of = {name: result.precision for name, result in audit.classes.items() if result.precision}
            imperfect = [name for name, precision in precision_of.items() if precision.value < 1]
            worst = sorted(imperfect, key=lambda name: (precision_of[name].value, name))[:MAX_WORST]
            audits.append(RoundAudit(int(folder.name), audit, worst, sorted({*audit.classes} - {*precision_of})))
    return audits


def _candidates(model: Path, seconds: Path) -> list[tuple[CandidateRecord, float | None]]:
    """The candidates, the best first, with the seconds of each if it was trained on this machine."""
    candidates = sorted(
        CandidatesRecord.read(model / CANDIDATES).candidates,
        key=lambda candidate: (candidate.log_loss is None, candidate.log_loss, not candidate.chosen),
    )
    seconds_by_name = read_json(seconds) if seconds.is_file() else {}
    return [(candidate, seconds_by_name.get(candidate.name)) for candidate in candidates]


def _gates(workspace: Path) -> list[GateResult]:
    paths = Workspace(workspace)
    gates = []
    for path in [
        *sorted(paths.generations.glob(f"**/{GATE}")),
        *sorted(paths.models.glob(f"*/{GATE}")),
        paths.reports / GATE,
    ]:
        name = "evaluate" if path.parent.name == REPORTS else stage_of(path.parent)
        checks = read_checks(workspace, name, path.parent)
        if checks:
            failed = [(check, warning_sentence(check)) for check in checks if not check.passed]
            gates.append(GateResult(name, len(checks), failed))
    return gates


def _change(runs: Sequence[RunRecord]) -> ChangeSinceRun | None:
    """The last run compared with the previous one: the accuracy, and the rows kept per stage where they differ."""
    evaluated = [(run.name, run.metrics) for run in runs if run.metrics]
    if len(evaluated) < 2:
        return None
    (old_name, old), (_, new) = evaluated[-2:]
    split: EvaluatedSplit = "test" if new.test and old.test else "cross_validation"
    before, after = old.metrics_of(split), new.metrics_of(split)
    if not (before and after):
        return None
    rows = [(stage, old.kept(stage) or 0, new.kept(stage) or 0) for stage in sorted({*old.rows, *new.rows})]
    return ChangeSinceRun(
        since=old_name,
        before=before.accuracy,
        after=after.accuracy,
        is_same_test=old.test_digest == new.test_digest,
        rows=[(stage, rows_before, rows_after) for stage, rows_before, rows_after in rows if rows_before != rows_after],
    )
