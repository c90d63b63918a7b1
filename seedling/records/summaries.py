"""What a stage's output says of itself, in numbers and in a phrase."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedling.files.ignored_files import IGNORED, ignored_phrase
from seedling.files.reading import read_json
from seedling.records.results import read_decision, read_evaluation

if TYPE_CHECKING:
    from seedling.pipeline import Stage


def summary(stage: Stage, workspace: Path) -> dict[str, Any]:
    """What the stage's output says of itself: rows in, kept and rejected, reasons, checks, and a phrase on the rest."""
    from seedling.gates.checking import read_checks

    folder = workspace / stage.output
    checks = read_checks(workspace, stage.name, folder)
    manifest = _json(folder / "manifest.json", {})
    if stage.kind == "train":
        path = folder / "decision.json"
        round_decision = read_decision(path) if path.is_file() else None
        return {
            "checks": checks,
            "note": f"{round_decision['decision']}: {round_decision['reason']}" if round_decision else "",
        }
    if stage.kind == "evaluate":
        metrics = read_evaluation(folder)
        return {"checks": checks, "note": headline(metrics) if metrics else ""}
    notes = manifest.get("notes", {})
    note = "skipped: the loop has stopped" if notes.get("skipped") else doubted(notes.get("doubt") or {})
    phrases = [note] if note else []
    if empty := notes.get("empty_classes"):
        phrases.append(f"no file in the folder of {', '.join(empty)}")
    if ignored := ignored_phrase(notes.get("files", {}).get("ignored", {})):
        phrases.append(f"{ignored}: {stage.output}/{IGNORED}")
    if scene_rows := notes.get("fixed_camera"):
        phrases.append(
            f"{scene_rows:,} images of a fixed camera, not taken for near-duplicates (validate.fixed_camera)"
        )
    note = "; ".join(phrases)
    return {**manifest.get("rows", {}), "reasons": manifest.get("reasons", {}), "checks": checks, "note": note}


def doubted(doubt: Mapping[str, Any]) -> str:
    """What validate says of the labels, in a phrase."""
    if not doubt:
        return ""
    if "cannot_judge" in doubt:
        return f"labels not judged: {doubt['cannot_judge']}"
    repaired = f", {doubt['repaired']} repaired ({doubt['policy']})" if doubt["repaired"] else ""
    return f"{doubt['expected']:.0f} of {doubt['judged']} labels probably wrong, {doubt['flagged']} doubtful{repaired}"


def headline(metrics: Mapping[str, Any]) -> str:
    """The result in a phrase, with its interval."""
    where = "test" if metrics.get("test") else "cross_validation"
    if not metrics.get(where):
        return "accuracy unknown: no labeled row can be held out (label two of a class, or give a test split)"
    found = metrics[where]["accuracy"]
    split = "test split" if where == "test" else "cross-validation alone (no test split)"
    return f"accuracy {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}] on {split}"


def _json(path: Path, default: Any) -> Any:
    return read_json(path) if path.is_file() else default
