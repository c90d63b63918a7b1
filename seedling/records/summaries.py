"""A summary of a stage's output: its counts, and a short note."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedling.files.ignored_files import ignored_phrase
from seedling.files.reading import read_json
from seedling.records.notes import round_note
from seedling.records.results import read_evaluation
from seedling.workspace import IGNORED, MANIFEST

if TYPE_CHECKING:
    from seedling.pipeline import Stage


def summary(stage: Stage, workspace: Path) -> dict[str, Any]:
    """Summary of a stage's output: rows in, kept and rejected, reasons, checks, a note, and whether it was skipped."""
    from seedling.gates.checking import read_checks

    folder = workspace / stage.output
    checks = read_checks(workspace, stage.name, folder)
    if stage.kind == "train":
        note = round_note(folder)
        return {"checks": checks, "note": note, "is_skipped": note.startswith("skipped")}
    if stage.kind == "evaluate":
        metrics = read_evaluation(folder)
        return {"checks": checks, "note": headline(metrics) if metrics else ""}
    manifest = _json(folder / MANIFEST, {})
    note = _rows_note(manifest.get("notes", {}), stage.output)
    return {
        **manifest.get("rows", {}),
        "reasons": manifest.get("reasons", {}),
        "checks": checks,
        "note": note,
        "is_skipped": bool(manifest.get("notes", {}).get("skipped")),
    }


def _rows_note(notes: Mapping[str, Any], output: str) -> str:
    """The remarkable facts of a stage that writes rows. output: its folder, relative to the workspace."""
    if notes.get("skipped"):
        phrases = ["skipped: no further round"]
    else:
        phrases = [phrase] if (phrase := label_issues_phrase(notes.get("label_issues") or {})) else []
    if empty := notes.get("empty_classes"):
        phrases.append(f"no file in the folder of {', '.join(empty)}")
    if ignored := ignored_phrase(notes.get("files", {}).get("ignored", {})):
        phrases.append(f"{ignored}: {output}/{IGNORED}")
    if scene_rows := notes.get("fixed_camera"):
        phrases.append(
            f"{scene_rows:,} images of a fixed camera, not treated as near-duplicates (validate.fixed_camera)"
        )
    return "; ".join(phrases)


def label_issues_phrase(label_issues: Mapping[str, Any]) -> str:
    """Validate's estimate of the label errors, as a phrase."""
    if not label_issues:
        return ""
    if "not_estimated" in label_issues:
        return f"label errors not estimated: {label_issues['not_estimated']}"
    expected, n_labels, flagged = round(label_issues["expected"]), label_issues["labels"], label_issues["flagged"]
    errors = f"about {expected:,} of {n_labels:,} labels expected to be wrong"
    issues = f"{flagged:,} likely label {'error' if flagged == 1 else 'errors'}" if flagged else "none stands out"
    repaired = f", {label_issues['repaired']:,} repaired ({label_issues['policy']})" if label_issues["repaired"] else ""
    return f"{errors}, {issues}{repaired}"


def headline(metrics: Mapping[str, Any]) -> str:
    """Accuracy with its interval, as a phrase."""
    split = "test" if metrics.get("test") else "cross_validation"
    if not metrics.get(split):
        return "accuracy unknown: no labeled row can be held out (label two rows per class, or add a test split)"
    accuracy = metrics[split]["accuracy"]
    rows = metrics[split].get("rows")
    count = "" if rows is None else f"{rows:,} "
    evaluated_on = f"{count}test rows" if split == "test" else f"{count}cross-validated rows (there is no test split)"
    return f"accuracy {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}] on {evaluated_on}"


def _json(path: Path, default: Any) -> Any:
    return read_json(path) if path.is_file() else default
