"""A summary of a stage's output: its counts, and a short note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from seedling.files.ignored_files import ignored_phrase
from seedling.records.evaluation import EvaluationSummary
from seedling.records.few_labels import FEW_LABELS, classes_with_few_labels, few_labels_phrase, training_labels
from seedling.records.gate import Check
from seedling.records.manifest import Manifest, RowCounts, read_manifest_if_any
from seedling.records.notes import round_note
from seedling.records.results import read_evaluation_summary
from seedling.records.stage_notes import LabelIssueEstimate, NotEstimated, ScrapeNotes, ValidateNotes
from seedling.workspace import IGNORED

if TYPE_CHECKING:
    from seedling.pipeline import Stage


@dataclass(frozen=True)
class StageSummary:
    """A stage's output in short.

    rows: None for a stage without rows of its own; reasons: reason → rejected rows; checks: of its gate; note: its
    remarkable facts; is_skipped: whether the loop had stopped before it.
    """

    rows: RowCounts | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    checks: Sequence[Check] = ()
    note: str = ""
    is_skipped: bool = False


def summary(stage: Stage, workspace: Path) -> StageSummary:
    """Summary of a stage's output."""
    from seedling.gates.checking import read_checks

    folder = workspace / stage.output
    checks = read_checks(workspace, stage.name, folder)
    if stage.kind == "train":
        note = round_note(folder)
        return StageSummary(checks=checks, note=note, is_skipped=note.startswith("skipped"))
    if stage.kind == "evaluate":
        evaluation = read_evaluation_summary(folder)
        return StageSummary(checks=checks, note=headline(evaluation) if evaluation else "")
    manifest = read_manifest_if_any(folder)
    if manifest is None:
        return StageSummary(checks=checks)
    note = _rows_note(manifest, stage.output)
    return StageSummary(manifest.rows, manifest.reasons, checks, note, manifest.is_skipped)


def _rows_note(manifest: Manifest, output: str) -> str:
    """The remarkable facts of a stage that writes rows. output: its folder, relative to the workspace."""
    notes, phrases = manifest.notes, list[str]()
    if manifest.is_skipped:
        phrases.append("skipped: no further round")
    elif isinstance(notes, ScrapeNotes):
        if notes.empty_classes:
            phrases.append(f"no file in the folder of {', '.join(notes.empty_classes)}")
        if notes.files and (ignored := ignored_phrase(notes.files.ignored)):
            phrases.append(f"{ignored}: {output}/{IGNORED}")
    elif isinstance(notes, ValidateNotes):
        if notes.label_issues is not None:
            phrases.append(label_issues_phrase(notes.label_issues))
        if few := classes_with_few_labels(training_labels(manifest)):
            phrases.append(f"fewer than {FEW_LABELS} labels: {few_labels_phrase(few)}")
        if notes.fixed_camera:
            phrases.append(
                f"{notes.fixed_camera:,} images of a fixed camera, not treated as near-duplicates "
                "(validate.fixed_camera)"
            )
    return "; ".join(phrases)


def label_issues_phrase(label_issues: LabelIssueEstimate | NotEstimated) -> str:
    """Validate's estimate of the label errors, as a phrase."""
    if isinstance(label_issues, NotEstimated):
        return f"label errors not estimated: {label_issues.not_estimated}"
    expected, flagged = round(label_issues.expected), label_issues.flagged
    errors = f"about {expected:,} of {label_issues.labels:,} labels expected to be wrong"
    issues = f"{flagged:,} likely label {'error' if flagged == 1 else 'errors'}" if flagged else "none stands out"
    repaired = f", {label_issues.repaired:,} repaired ({label_issues.policy})" if label_issues.repaired else ""
    return f"{errors}, {issues}{repaired}"


def headline(evaluation: EvaluationSummary | None) -> str:
    """Accuracy with its interval, as a phrase. evaluation: None if nothing was evaluated."""
    metrics = evaluation.metrics if evaluation else None
    if evaluation is None or metrics is None:
        return "accuracy unknown: no labeled row can be held out (label two rows per class, or add a test split)"
    count = "" if metrics.rows is None else f"{metrics.rows:,} "
    on_test = evaluation.split == "test"
    evaluated_on = f"{count}test rows" if on_test else f"{count}cross-validated rows (there is no test split)"
    accuracy = metrics.accuracy
    return f"accuracy {accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}] on {evaluated_on}"


def use_of_model(evaluation: EvaluationSummary | None) -> list[str]:
    """Sentences on what the accuracy is worth: the majority-class baseline, and how often the model abstains."""
    metrics = evaluation.metrics if evaluation else None
    if evaluation is None or metrics is None:
        return []
    sentences, baseline, selective = list[str](), evaluation.baseline, evaluation.selective_prediction
    if baseline is not None:
        sentence = f"Always predicting '{baseline.name}' has an accuracy of {baseline.accuracy:.3f} on the same rows."
        if metrics.accuracy.low <= baseline.accuracy:
            sentence += " The model is not clearly better than that."
        sentences.append(sentence)
    if selective is not None and selective.threshold > 0 and selective.coverage is not None:
        sentence = (
            f"The model abstains on {1 - selective.coverage.value:.0%} of the rows, those with a confidence below "
            f"{selective.threshold:.2f}"
        )
        if selective.accuracy is not None:
            sentence += f"; on the others its accuracy is {selective.accuracy.value:.3f}"
        sentences.append(f"{sentence}. To change this, set train.target_selective_accuracy.")
    return sentences
