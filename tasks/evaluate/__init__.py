"""evaluate: the locked test split is read here and nowhere else; metrics with intervals, plots, predictions.

python -m tasks.evaluate
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import InputError
from tasks.evaluate.looks import log_look
from tasks.evaluate.metrics import calibration_bins, per_class, with_intervals
from tasks.generation import digest, payloads, read, read_manifest, write_json
from tasks.learners.model import load_model, single_threaded
from tasks.params import EvaluateParams, Facts
from tasks.progress import Progress, silent
from tasks.statistics import Floats, wilson


@dataclass(frozen=True)
class Scored:
    """Rows with their probabilities: what metrics and plots are made of."""

    frame: pd.DataFrame  # id, origin, label, group
    probabilities: Floats
    classes: list[str]

    @property
    def truth(self) -> np.ndarray:
        """(n_rows,) class numbers."""
        number = {label: place for place, label in enumerate(self.classes)}
        return np.array([number[label] for label in self.frame["label"]], dtype=np.int64)

    @property
    def groups(self) -> np.ndarray:
        """(n_rows,) near-duplicate groups."""
        groups: np.ndarray = self.frame["group"].to_numpy(dtype=str)
        return groups


def evaluate(
    params: EvaluateParams,
    facts: Facts,
    *,
    collected: Path,
    validated: Path,
    generations: Path,
    models: Path,
    looks: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Writes metrics.json, predictions.parquet and plots/ of the accepted model; every look at the test split is logged.

    Without a test split the numbers are the cross-validation's alone, and say so: "test" is null.
    """
    verdicts = read_verdicts(models)
    accepted = verdicts[-1]["accepted_round"]
    classes = read_manifest(validated)["classes"]
    model = models / str(accepted)
    cross_validated = out_of_fold(model, validated, classes)
    test = _predict_test(model, collected, validated, classes, progress)
    if test is not None:
        log_look(looks, test_digest(test.frame), digest(model))
    shown = test if test is not None else cross_validated
    metrics = {
        "accepted_round": accepted,
        "cross_validation": _metrics(cross_validated, params, facts) if len(cross_validated.frame) else None,
        "test": None if test is None else _metrics(test, params, facts),
        "per_class": per_class(shown.probabilities.argmax(axis=1), shown.truth, classes),
        "rounds": _rounds(verdicts, models, validated, classes, params, facts),
        "abstain": abstained(shown, _model_json(model)["abstain"]),
        "rows": _rows_by_stage(generations),
        "test_digest": None if test is None else test_digest(test.frame),
    }
    write_json(output / "metrics.json", metrics)
    _write_predictions(output / "predictions.parquet", shown, accepted)
    _write_plots(output / "plots", shown, metrics, params)
    _write_losses(output / "plots" / "losses.csv", models / "0")


def read_verdicts(models: Path) -> list[dict[str, Any]]:
    """The rounds' verdicts in their order. Raises InputError where there is none."""
    found = sorted(
        (int(path.parent.name), path) for path in models.glob("*/verdict.json") if path.parent.name.isdigit()
    )
    if not found:
        raise InputError(f"{models} holds no trained round: run `seedling stage train@0`, or `seedling run`.")
    return [json.loads(path.read_text(encoding="utf-8")) for _, path in found]


def out_of_fold(model: Path, validated: Path, classes: Sequence[str]) -> Scored:
    """The rows that people labelled, with the predictions of models that never saw them."""
    frame = pd.read_parquet(model / "out_of_fold.parquet")
    frame = frame[frame["fold"].notna() | (frame["split"] != "train")]  # rows that every model saw say nothing
    frame = frame[frame["label_source"] != "repaired"]  # and rows that were relabelled agree with the models
    human = frame[frame["label_source"] == "human"]
    used = (human if len(human) else frame).reset_index(drop=True)
    origin = read(validated, ["id", "origin"], ids=used["id"].tolist()).drop_duplicates("id").set_index("id")["origin"]
    stacked = used["probabilities"].tolist()
    probabilities = np.array(stacked, dtype=np.float64).reshape(len(stacked), len(classes))
    return Scored(used.assign(origin=used["id"].map(origin)), probabilities, list(classes))


def _predict_test(
    model: Path, collected: Path, validated: Path, classes: list[str], progress: Progress
) -> Scored | None:
    columns = ["id", "split", "label", "origin", "group"]
    rows = read(validated, columns, splits=["test"]).set_index("id")
    if rows.empty:
        return None
    with single_threaded():
        probabilities = load_model(model).predict_rows(rows.index.tolist(), partial(payloads, [collected]), progress)
    return Scored(rows.reset_index(), probabilities, classes)


def test_digest(frame: pd.DataFrame) -> str:
    """Which test split this is: a hash of its ids and labels in the ids' order."""
    lines = sorted(f"{one} {label}" for one, label in zip(frame["id"], frame["label"], strict=True))
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def _metrics(scored: Scored, params: EvaluateParams, facts: Facts) -> dict[str, Any]:
    found = with_intervals(scored.probabilities, scored.truth, scored.groups, params, facts.seed)
    return {**found, "rows": len(scored.frame)}


def _rounds(
    verdicts: Sequence[Mapping[str, Any]],
    models: Path,
    validated: Path,
    classes: Sequence[str],
    params: EvaluateParams,
    facts: Facts,
) -> list[dict[str, Any]]:
    """Each trained round: the verdict, and its cross-validated accuracy on the same rows."""
    rounds = []
    for verdict in verdicts:
        if verdict["decision"] == "skipped":
            continue
        scored = out_of_fold(models / str(verdict["round"]), validated, classes)
        found = with_intervals(scored.probabilities, scored.truth, scored.groups, params, facts.seed)
        kept = {name: verdict[name] for name in ("round", "decision", "reason", "worth_in_labels")}
        harmed = [classes[one["label"]] for one in verdict["classes"] if one["harmed"]]
        rounds.append({**kept, "harmed": harmed, "accuracy": found["accuracy"], "difference": verdict["accuracy"]})
    return rounds


def _model_json(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model / "model.json").read_text(encoding="utf-8"))
    return found


def abstained(scored: Scored, abstain: Mapping[str, Any]) -> dict[str, Any]:
    """What the limit that train chose does on these rows: the share that is answered, and how many of those are right."""
    sure = scored.probabilities.max(axis=1) >= abstain["below"] if len(scored.frame) else np.zeros(0, dtype=bool)
    right = scored.probabilities.argmax(axis=1) == scored.truth if len(scored.frame) else sure
    return {
        "below": abstain["below"],
        "wanted": abstain["wanted"],
        "out_of_scope": abstain["out_of_scope"],
        "answered": wilson(int(sure.sum()), len(sure)).rounded() if len(sure) else None,
        "right": wilson(int(right[sure].sum()), int(sure.sum())).rounded() if sure.any() else None,
    }


def _rows_by_stage(generations: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(generations.glob("**/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found[manifest["stage"]] = {**manifest["rows"], "reasons": manifest["reasons"]}
    return found


def _write_predictions(path: Path, scored: Scored, accepted: int) -> None:
    classes = np.array(scored.classes)
    table = {
        "id": pa.array(scored.frame["id"], pa.string()),
        "origin": pa.array(scored.frame["origin"], pa.string()),
        "label": pa.array(scored.frame["label"], pa.string()),
        "predicted": pa.array(classes[scored.probabilities.argmax(axis=1)].tolist(), pa.string()),
        "probabilities": pa.array(list(scored.probabilities.astype(np.float32)), pa.list_(pa.float32())),
        "round": pa.array([accepted] * len(scored.frame), pa.int8()),
        "group": pa.array(scored.frame["group"], pa.string()),
    }
    pq.write_table(pa.table(table), path, compression="zstd")


def _write_plots(folder: Path, scored: Scored, metrics: Mapping[str, Any], params: EvaluateParams) -> None:
    classes = scored.classes
    said = [classes[place] for place in scored.probabilities.argmax(axis=1)]
    pairs = [{"label": label, "predicted": one} for label, one in zip(scored.frame["label"], said, strict=True)]
    _write_csv(folder / "confusion.csv", pairs, ["label", "predicted"])
    bins = calibration_bins(scored.probabilities, scored.truth, params.calibration_bins)
    _write_csv(folder / "calibration.csv", bins, ["confidence", "accuracy", "rows"])
    rounds = [
        {"round": one["round"], "accuracy": one["accuracy"]["value"]} for one in metrics["rounds"] if one["accuracy"]
    ]
    _write_csv(folder / "rounds.csv", rounds, ["round", "accuracy"])
    recalls = [
        {"class": one["class"], "recall": one["recall"]["value"]}
        for one in metrics["per_class"]
        if one["recall"] is not None
    ]
    _write_csv(folder / "recall.csv", recalls, ["class", "recall"])


def _write_losses(path: Path, model: Path) -> None:
    """The losses of round 0's models as they learnt, which later rounds take over; the head line alone where there is none."""
    made = model / "losses.csv"
    path.write_text(made.read_text(encoding="utf-8") if made.is_file() else "model,step,loss\n", encoding="utf-8")


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
