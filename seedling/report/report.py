"""reports/report.html: one self-contained page about the model, its data and how it was made.

The page is derived from the outputs of all stages. It is rewritten after each run, as it also shows what changed since
the previous run and how long each stage took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from seedling.dataset.generation import digest, payloads, read, read_manifest, read_rejected, stage_of
from seedling.errors import MissingGeneration
from seedling.evaluate import read_decisions
from seedling.evaluate.plots import read_losses
from seedling.files.ignored_files import count_not_copied
from seedling.files.reading import read_frame, read_json
from seedling.gates.checking import read_checks
from seedling.pipeline import row_stages
from seedling.records.notes import decision_note, skipped_rounds_note, warning_sentence
from seedling.records.predicted_gain import predicted_gain
from seedling.records.results import read_evaluation
from seedling.records.run_records import read_run_records
from seedling.records.test_evaluations import read_test_evaluations
from seedling.report import charts, sentences
from seedling.report.confusion import confusion_context
from seedling.report.contact_sheet import STAGES, sheet
from seedling.report.pages import environment, never_predicted, preview, vote
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
    ("round", "one training; later rounds also train on pseudo-labels, and are rolled back if the result is worse"),
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


def write_report(workspace: Path) -> Path:
    """Writes the page from generations/, models/, reports/ and the records of runs; returns its path."""
    paths = Workspace(workspace)
    metrics = read_evaluation(paths.reports)
    if metrics is None:
        raise MissingGeneration(f"{REPORTS}/{EVALUATION}", "evaluate")
    classes = read_manifest(paths.generation("validate"))["classes"]
    runs = read_run_records(workspace)
    page = (
        environment("report.html.jinja")
        .get_template("report.html.jinja")
        .render(
            name=workspace.resolve().name,
            metrics=metrics,
            sentences=sentences,
            glossary=GLOSSARY,
            **_result_context(workspace, metrics),
            **_rows_context(paths.generations, runs),
            **_rounds_context(workspace, metrics),
            not_copied=count_not_copied(workspace),
            crawl_rates=_crawl_rates(paths.crawl_stores),
            confusion=confusion_context(paths.predictions_file, classes),
            gates=_gates(workspace),
            change=_change(runs),
            gain=predicted_gain(runs),
            stories=stories(workspace),
            examples=examples(workspace, classes),
        )
    )
    path = paths.report_page
    path.write_text(page, encoding="utf-8")
    return path


def _result_context(workspace: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy, its interpretation, and the limits of use."""
    paths = Workspace(workspace)
    validated, plots = paths.generation("validate"), paths.plots
    evaluations = read_test_evaluations(
        workspace, metrics["test_digest"] or "", has_results=metrics["test"] is not None
    )
    return {
        "subject": {
            **_subject(workspace, metrics["accepted_round"]),
            "never_predicted": never_predicted(metrics["per_class"]),
        },
        "headline": _headline(metrics),
        "baseline": majority_baseline(validated, paths.predictions_file),
        "label_noise": _label_noise(validated),
        "unlearned": _unlearned_rows(validated) if metrics["test"] else 0,
        "operating_points": merge_thresholds(metrics["operating_points"]),
        "evaluations": evaluations,
        "corrected": _corrected(metrics, len(evaluations.models)),
        "metric_meanings": METRIC_MEANINGS,
        "splits": [split for split in ("test", "cross_validation") if metrics[split]],
        "weakest": weakest(metrics["per_class"]),
        "learning_curve": charts.learning_curve(metrics["learning_curve"]),
        "risk_coverage": charts.risk_coverage(pd.read_csv(plots / RISK_COVERAGE)),
        "calibration": charts.calibration(pd.read_csv(plots / CALIBRATION).to_dict("records")),
        "step_meanings": STEP_MEANINGS,
        "ablation": _ablation(workspace, metrics["accepted_round"]),
    }


def _rows_context(generations: Path, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows of each stage, samples, and the rows that were made."""
    scrape_notes, augment_notes = read_manifest(generations / "scrape")["notes"], _notes(generations / "augment")
    sheets = {stage: sheet(generations, stage) for stage in STAGES}
    screening = augment_notes.get("screening")
    return {
        "stages": _stages(generations, runs),
        "rules": scrape_notes.get("rules", []),
        "no_items": scrape_notes.get("no_items", {}),
        "samples": _samples(generations),
        "sheets": sheets,
        "screening": screening,
        "class_shares": augment_notes.get("class_shares"),
        "made": bool(screening) or any(contents["groups"] for contents in sheets.values()),
    }


def _rounds_context(workspace: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The rounds, the audits of pseudo-labels, and the candidates of round 0."""
    paths = Workspace(workspace)
    first_round = paths.model(0)
    return {
        "rounds": _rounds(paths.models, metrics),
        "audits": _audits(paths.generations),
        "candidates": _candidates(first_round, paths.training_seconds("train@0")),
        "skipped": _skipped_rounds(paths.models),
        "left_out": read_json(first_round / CANDIDATES)["left_out"],
        "losses": charts.losses(read_losses(first_round)),
    }


def _crawl_rates(folder: Path) -> list[dict[str, Any]]:
    """The crawl rate of each web source in its last visit, if the visit was long enough for a chart."""
    rates = []
    for path in sorted(folder.glob(CRAWL_RATES)):
        record = read_json(path)
        chart = charts.crawl_rate(record["points"])
        if chart is not None:
            last = {point["host"]: point for point in record["points"]}
            rates.append({**record, "chart": chart, "hosts": list(last.values())})
    return rates


def _ablation(workspace: Path, accepted_round: int) -> dict[str, Any] | None:
    """The results of `seedling ablate`; only {"earlier": True} if they are of another model than the accepted one."""
    path = Workspace(workspace).ablation_file
    if not path.is_file():
        return None
    ablation: dict[str, Any] = read_json(path)
    if ablation["model"] != digest(Workspace(workspace).model(accepted_round)):
        return {"earlier": True}
    return ablation if ablation["bars"] else None


def _subject(workspace: Path, accepted_round: int) -> dict[str, Any]:
    """What the model classifies, and its training rows. unchecked: number of labels that no person gave."""
    paths = Workspace(workspace)
    manifest = read_manifest(paths.generation("validate"))
    model = read_json(paths.model(accepted_round) / MODEL)
    rows = read_json(paths.model(accepted_round) / MANIFEST)["rows"]
    labels_by_source: dict[str, int] = {}
    for count in manifest["counts"]:
        if count["split"] == "train":
            source = count["label_source"] or "human"
            labels_by_source[source] = labels_by_source.get(source, 0) + count["rows"]
    return {
        "modality": manifest["modality"],
        "classes": manifest["classes"],
        "labeled": sum(labels_by_source.values()),
        "unchecked": sum(labels for source, labels in labels_by_source.items() if source != "human"),
        "sources": [
            (_source_in_words(source), labels)
            for source, labels in sorted(labels_by_source.items(), key=lambda item: item[0] != "human")
        ],
        "pseudo_labeled": rows["pseudo_labeled"],
        "learners": vote(model),
    }


def _source_in_words(label_source: str) -> str:
    if label_source == "human":
        return "by people"
    return f"by rules ({label_source[5:]})" if label_source.startswith("weak:") else f"by models ({label_source})"


def _unlearned_rows(validated: Path) -> int:
    """Number of test rows that were rejected because their class has too few training rows, or none."""
    rejected = read_rejected(validated, ["split", "reason"])
    is_unlearned = rejected["reason"].isin(["class_not_in_training", "class_too_small"])
    return int(((rejected["split"] == "test") & is_unlearned).sum())


def _label_noise(validated: Path) -> float:
    """Expected share of wrong labels; 0 if validate has no estimate, or repaired the labels."""
    label_issues = read_manifest(validated)["notes"].get("label_issues") or {}
    if label_issues.get("repaired"):
        return 0.0
    return float(label_issues.get("expected", 0.0) / max(1, label_issues.get("labels", 0)))


def merge_thresholds(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The operating points, consecutive ones with the same threshold merged.

    allowed: the maximum error rates that the threshold was chosen for, the lowest first.
    """
    merged: list[dict[str, Any]] = []
    for point in points:
        if merged and merged[-1]["threshold"] == point["threshold"]:
            merged[-1]["allowed"].append(point["max_error_rate"])
        else:
            merged.append({**point, "allowed": [point["max_error_rate"]]})
    return merged


def _headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    split = "test" if metrics["test"] else "cross_validation"
    estimates = metrics[split] or {"rows": 0, "accuracy": {"value": None}}
    return {"where": split, "rows": estimates["rows"], **estimates["accuracy"]}


def _corrected(metrics: Mapping[str, Any], n_models: int) -> Estimate | None:
    """The interval of the accuracy with Bonferroni's correction for the models evaluated on this test split.

    Its level is 1 - (1 - confidence) / n_models.
    """
    if n_models < 2 or not metrics["test"]:
        return None
    test = metrics["test"]
    return wilson_of(test["accuracy"]["value"], test["effective_rows"], 1 - (1 - metrics["confidence"]) / n_models)


def majority_baseline(validated: Path, predictions: Path) -> dict[str, Any] | None:
    """The class with most training labels, and the accuracy of always predicting it on the evaluation rows."""
    labels: dict[str, int] = {}
    for count in read_manifest(validated)["counts"]:
        if count["split"] == "train" and count["label"] is not None:
            labels[count["label"]] = labels.get(count["label"], 0) + count["rows"]
    truth = read_frame(predictions, columns=["label"])["label"]
    if not labels or truth.empty:
        return None
    name = min(labels, key=lambda label: (-labels[label], label))
    return {"class": name, "accuracy": float((truth == name).mean())}


def weakest(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The predicted classes with the lowest recall below 1, at most MAX_WEAKEST_CLASSES."""
    imperfect = [
        result for result in classes if result["precision"] and result["recall"] and result["recall"]["value"] < 1
    ]
    return sorted(imperfect, key=lambda result: (result["recall"]["value"], result["class"]))[:MAX_WEAKEST_CLASSES]


def _stages(generations: Path, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each generation: rows, reasons, meaning, and the seconds of the last run of its stage."""
    seconds: dict[str, float] = {}
    for run in runs:
        seconds |= {stage["stage"]: stage["seconds"] for stage in run["stages"] if stage["how"] == "done"}
    folders = [generations / name for name in row_stages()] + sorted((generations / "pseudo_label").glob("[0-9]*"))
    results = []
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest["notes"].get("skipped"):
            continue
        name = manifest["stage"]
        results.append(
            {
                "name": name,
                "words": STAGE_MEANINGS[name.partition("@")[0]],
                "rows": manifest["rows"],
                "reasons": sorted(manifest["reasons"].items(), key=lambda item: -item[1]),
                "notes": manifest["notes"],
                "counts": _by_split(manifest["counts"]),
                "seconds": seconds.get(name),
            }
        )
    return results


def _by_split(counts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Rows by split and source of the label, such as `train (weak:tag)`."""
    totals: dict[str, int] = {}
    for count in counts:
        source = "" if count["label_source"] in {None, "human"} else f" ({count['label_source']})"
        totals[count["split"] + source] = totals.get(count["split"] + source, 0) + count["rows"]
    return totals


def _notes(folder: Path) -> dict[str, Any]:
    notes: dict[str, Any] = read_manifest(folder)["notes"] if (folder / MANIFEST).is_file() else {}
    return notes


def _samples(generations: Path) -> list[dict[str, Any]]:
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
            {
                "stage": name.replace("/", "@"),
                "rows": [
                    {
                        "label": row.label or "unlabeled",
                        "weak": str(row.label_source or "").startswith("weak"),
                        **preview(content[row.id]),
                    }
                    for row in chosen.itertuples()
                ],
            }
        )
    return samples


def _rounds(models: Path, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    rounds = []
    for result in metrics["rounds"]:
        manifest = read_json(models / str(result["round"]) / MANIFEST)
        model = read_json(models / str(result["round"]) / MODEL)
        learners = ", ".join(member["learner"].replace("_", " ") for member in model["members"])
        note = decision_note(
            {**result, "accuracy": result["difference"]}, (result["accuracy"] or {"value": None})["value"]
        )
        rounds.append(
            {**result, "learners": learners, "pseudo_labeled": manifest["rows"]["pseudo_labeled"], "note": note}
        )
    return rounds


def _skipped_rounds(models: Path) -> str | None:
    """One sentence about all skipped rounds; None if there are none."""
    skipped = [decision for decision in read_decisions(models) if decision["decision"] == "skipped"]
    return skipped_rounds_note(skipped[0]["round"], skipped[0]["reason"]) if skipped else None


def _audits(generations: Path) -> list[dict[str, Any]]:
    """The audit of each round that labeled the pool, with its least reliable classes first."""
    audits = []
    for folder in sorted((generations / "pseudo_label").glob("[0-9]*")):
        audit = read_manifest(folder)["notes"].get("audit")
        if audit:
            predicted = [{"class": name, **result} for name, result in audit["classes"].items() if result["precision"]]
            imperfect = [result for result in predicted if result["precision"]["value"] < 1]
            worst = sorted(imperfect, key=lambda result: (result["precision"]["value"], result["class"]))[:MAX_WORST]
            never_predicted = sorted({*audit["classes"]} - {result["class"] for result in predicted})
            audits.append({**audit, "round": int(folder.name), "worst": worst, "never_predicted": never_predicted})
    return audits


def _candidates(model: Path, seconds: Path) -> list[dict[str, Any]]:
    """The candidates, the best first, with the seconds of each if it was trained on this machine."""
    candidates = read_json(model / CANDIDATES)["candidates"]
    seconds_by_name = read_json(seconds) if seconds.is_file() else {}
    for candidate in candidates:
        name = "-".join([candidate["learner"], *candidate["recipe"], candidate["loss"]])
        candidate["seconds"] = seconds_by_name.get(name)
    return sorted(
        candidates,
        key=lambda candidate: (candidate["log_loss"] is None, candidate["log_loss"], not candidate["chosen"]),
    )


def _gates(workspace: Path) -> list[dict[str, Any]]:
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
            failed = [{**check, "sentence": warning_sentence(check)} for check in checks if not check["passed"]]
            gates.append({"stage": name, "checks": len(checks), "failed": failed})
    return gates


def _change(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The last run compared with the previous one: the accuracy, and the rows kept per stage where they differ."""
    with_metrics = [run for run in runs if run["metrics"]]
    if len(with_metrics) < 2:
        return None
    old, new = with_metrics[-2], with_metrics[-1]
    split = "test" if new["metrics"]["test"] and old["metrics"]["test"] else "cross_validation"
    if not (old["metrics"][split] and new["metrics"][split]):
        return None
    before, after = old["metrics"]["rows"], new["metrics"]["rows"]
    rows = [
        {"stage": stage, "before": before.get(stage, {}).get("kept", 0), "after": after.get(stage, {}).get("kept", 0)}
        for stage in sorted({*before, *after})
    ]
    return {
        "against": old["name"],
        "before": old["metrics"][split]["accuracy"],
        "after": new["metrics"][split]["accuracy"],
        "same_test": old["metrics"]["test_digest"] == new["metrics"]["test_digest"],
        "rows": [stage for stage in rows if stage["before"] != stage["after"]],
    }
