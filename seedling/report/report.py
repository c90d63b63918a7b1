"""reports/report.html: one self-contained page that a person likes to read. A view of what the stages wrote; made
again after every run, so it may also say what changed since the run before, and how long each stage took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.dataset.generation import digest, payloads, read, read_manifest, read_rejected, stage_of
from seedling.errors import MissingGeneration
from seedling.evaluate.plots import read_losses
from seedling.files.ignored_files import count_not_copied
from seedling.files.reading import read_frame, read_json
from seedling.gates.checking import read_checks
from seedling.pipeline import row_stages
from seedling.records.results import EVALUATION, read_evaluation
from seedling.records.run_records import read_run_records
from seedling.records.test_evaluations import read_test_evaluations
from seedling.report import charts
from seedling.report.contact_sheet import STAGES, sheet
from seedling.report.pages import environment, shown, vote
from seedling.report.row_stories import examples, stories
from seedling.stats.statistics import Estimate, confusion, wilson_of

SAMPLES = 12
MEASURES = (
    ("accuracy", "share of rows that are right"),
    ("balanced_accuracy", "the mean over classes of the share that is found: rare classes count as much"),
    ("macro_f1", "the mean over classes of F1: found and not mistaken"),
    ("top_3_accuracy", "share of rows whose class is among the three likeliest"),
    ("steps_off", "how many places of the classes' order the answer is away"),
    ("log_loss", "how surprised the model is by the truth; 0 is never"),
    ("brier", "squared distance of the probabilities from the truth, 0 to 2"),
    ("calibration_error", "how far confidence is from accuracy, without what chance adds"),
)
STEP_WORDS = {  # ingredients and losses of training, as the table of what each contributed has them
    "augment": "changed copies of training rows",
    "synthesize": "mixtures, pasted or translated images, filled templates",
    "consistency": "the network says the same of a pool image however it is changed",
    "mixin": "another dataset's rows under a head of their own",
    "label_weighted": "labels that other folds doubt count less",
    "label_weighted_twice": "labels that other folds doubt hardly count",
    "balanced": "rare classes weigh as much as common ones",
    "logit_adjusted": "rare classes are told from common ones by a margin",
}
GLOSSARY = (
    ("row", "one image or text with what is known of it"),
    ("pool", "rows without a label, which the model may label itself (pseudo-labels) and learn from in later rounds"),
    (
        "test split",
        "labeled rows that no stage but the last has read; where there is one, the number on top is of these",
    ),
    ("cross-validation", "each labeled row is judged by a model that was trained without it"),
    ("95 % interval", "of such intervals, each from other rows of the same kind, that share holds the truth"),
    ("weak label", "given by a rule on where a row stands, such as a tag of its page, not by a person"),
    ("mixup", "a mixture of two rows, with both labels in the same shares"),
    (
        "round",
        "training once; later rounds learn from the pool's pseudo-labels too, and are rolled back where that made them worse",
    ),
    (
        "log-loss",
        "how surprised the model is by the truth: 0 where it was sure and right; being sure and wrong costs most",
    ),
    ("DeepFool", "a search for the smallest change of an image that turns the answer"),
    ("gate", "checks of a stage's rows that must be met before the next stage may use them"),
    (
        "svm, boosted trees, logistic regression, network",
        "learners; the model in use is one of them, or a vote of several",
    ),
)
WORDS = {
    "scrape": "brought in from data/ and from sites",
    "validate": "checked, split and folded",
    "augment": "children of training rows, label kept",
    "synthesize": "new rows: mixtures, pasted or translated images, filled templates",
    "pseudo_label": "pool rows labeled by the model",
}


def write_report(workspace: Path) -> Path:
    """Writes the page from generations/, models/, reports/ and the runs' history; gives its path."""
    metrics = read_evaluation(workspace / "reports")
    if metrics is None:
        raise MissingGeneration(f"reports/{EVALUATION}", "evaluate")
    generations, plots = workspace / "generations", workspace / "reports" / "plots"
    runs, classes = read_run_records(workspace), read_manifest(generations / "validate")["classes"]
    evaluations = read_test_evaluations(
        workspace, metrics["test_digest"] or "", has_results=metrics["test"] is not None
    )
    sheets = {stage: sheet(generations, stage) for stage in STAGES}
    screening = _notes(generations / "augment").get("screening")
    page = (
        environment("report.html.jinja")
        .get_template("report.html.jinja")
        .render(
            name=workspace.resolve().name,
            subject=_subject(workspace, metrics["accepted_round"]),
            metrics=metrics,
            mislabeled=_mislabeled(generations / "validate"),
            unlearnt=_unlearnt(generations / "validate") if metrics["test"] else 0,
            limits=limits_together(metrics["operating_points"]),
            step_words=STEP_WORDS,
            glossary=GLOSSARY,
            headline=_headline(metrics),
            evaluations=evaluations,
            corrected=_corrected(metrics, len(evaluations.models)),
            measures=MEASURES,
            shown_where=[where for where in ("test", "cross_validation") if metrics[where]],
            weakest=_weakest(metrics["per_class"]),
            curve=charts.learning_curve(metrics["learning_curve"]),
            abstaining=charts.abstaining(pd.read_csv(plots / "risk_coverage.csv")),
            stages=_stages(generations, runs),
            not_copied=count_not_copied(workspace),
            samples=_samples(generations),
            sheets=sheets,
            made=bool(screening) or any(one["families"] for one in sheets.values()),
            screening=screening,
            class_shares=_notes(generations / "augment").get("class_shares"),
            rules=read_manifest(generations / "scrape")["notes"].get("rules", []),
            no_items=read_manifest(generations / "scrape")["notes"].get("no_items", {}),
            paces=_paces(workspace / ".seedling" / "web"),
            rounds=_rounds(workspace / "models", metrics),
            audits=_audits(generations),
            candidates=_candidates(workspace / "models" / "0", workspace / ".seedling" / "seconds" / "train@0.json"),
            left_out=_left_out(workspace / "models" / "0"),
            losses=charts.losses(read_losses(workspace / "models" / "0")),
            confusion=_confusion(workspace / "reports" / "predictions.parquet", classes),
            calibration=charts.calibration(pd.read_csv(plots / "calibration.csv").to_dict("records")),
            gates=_gates(workspace),
            change=_change(runs),
            ablation=_ablation(workspace, metrics["accepted_round"]),
            stories=stories(workspace),
            examples=examples(workspace, classes),
        )
    )
    path = workspace / "reports" / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _paces(remembered: Path) -> list[dict[str, Any]]:
    """How fast each source on the web was asked in its last visit, where it took long enough to be shown."""
    found = []
    for path in sorted(remembered.glob("*.pace.json")):
        told = read_json(path)
        chart = charts.pace(told["points"])
        if chart is not None:
            last = {one["host"]: one for one in told["points"]}
            found.append({**told, "chart": chart, "hosts": list(last.values())})
    return found


def _ablation(workspace: Path, accepted: int) -> dict[str, Any] | None:
    """What `seedling ablate` found; of an earlier model than the accepted one no more than that it did."""
    path = workspace / "reports" / "ablation.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path)
    if found["model"] != digest(workspace / "models" / str(accepted)):
        return {"earlier": True}
    return found if found["bars"] else None


def _subject(workspace: Path, accepted: int) -> dict[str, Any]:
    """What the model in use tells apart, and from which rows it learnt that. unchecked: labels that no person gave."""
    manifest = read_manifest(workspace / "generations" / "validate")
    model = read_json(workspace / "models" / str(accepted) / "model.json")
    rows = read_json(workspace / "models" / str(accepted) / "manifest.json")["rows"]
    sources: dict[str, int] = {}
    for one in manifest["counts"]:
        if one["split"] == "train":
            source = one["label_source"] or "human"
            sources[source] = sources.get(source, 0) + one["rows"]
    said = {
        source: "by people"
        if source == "human"
        else f"by rules ({source[5:]})"
        if source.startswith("weak:")
        else f"by models ({source})"
        for source in sources
    }
    return {
        "modality": manifest["modality"],
        "classes": manifest["classes"],
        "labeled": sum(sources.values()),
        "unchecked": sum(many for source, many in sources.items() if source != "human"),
        "sources": [
            (said[source], many) for source, many in sorted(sources.items(), key=lambda one: one[0] != "human")
        ],
        "pseudo_labeled": rows["pseudo_labeled"],
        "learners": vote(model),
    }


def _unlearnt(validated: Path) -> int:
    """How many test rows were left out, as too few training rows, or none, are of their class."""
    rejected = read_rejected(validated, ["split", "reason"])
    return int(
        ((rejected["split"] == "test") & rejected["reason"].isin(["class_not_in_training", "class_too_small"])).sum()
    )


def _mislabeled(validated: Path) -> float:
    """The share of labels that validate expects to be wrong; 0 where it could not judge, or repaired them."""
    doubt = read_manifest(validated)["notes"].get("doubt") or {}
    return doubt.get("expected", 0.0) / max(1, doubt.get("judged", 0)) if not doubt.get("repaired") else 0.0


def limits_together(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The operating points, those of one limit together. allowed: the errors that it was chosen for, the fewest first."""
    found: list[dict[str, Any]] = []
    for one in points:
        if found and found[-1]["threshold"] == one["threshold"]:
            found[-1]["allowed"].append(one["max_error_rate"])
        else:
            found.append({**one, "allowed": [one["max_error_rate"]]})
    return found


def _headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    where = "test" if metrics["test"] else "cross_validation"
    found = metrics[where] or {"rows": 0, "accuracy": {"value": None}}
    return {"where": where, "rows": found["rows"], **found["accuracy"]}


def _corrected(metrics: Mapping[str, Any], looks: int) -> Estimate | None:
    """The accuracy's interval after so many models were judged by one test split: each at its share of the errors that are allowed (Bonferroni)."""
    if looks < 2 or not metrics["test"]:
        return None
    found = metrics["test"]
    return wilson_of(found["accuracy"]["value"], found["effective_rows"], 1 - (1 - metrics["confidence"]) / looks)


def _weakest(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The classes of which least is found, three at most, where anything is missed."""
    missed = [one for one in classes if one["recall"] and one["recall"]["value"] < 1]
    return sorted(missed, key=lambda one: (one["recall"]["value"], one["class"]))[:3]


def _stages(generations: Path, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each generation: rows, reasons, what it does in words, and the seconds of the last run that worked on it."""
    seconds: dict[str, float] = {}
    for run in runs:
        seconds |= {one["stage"]: one["seconds"] for one in run["stages"] if one["how"] == "done"}
    folders = [generations / name for name in row_stages()] + sorted((generations / "pseudo_label").glob("[0-9]*"))
    found = []
    for folder in folders:
        manifest = read_manifest(folder)
        if manifest["notes"].get("skipped"):
            continue
        name = manifest["stage"]
        found.append(
            {
                "name": name,
                "words": WORDS[name.partition("@")[0]],
                "rows": manifest["rows"],
                "reasons": sorted(manifest["reasons"].items(), key=lambda one: -one[1]),
                "notes": manifest["notes"],
                "counts": _by_split(manifest["counts"]),
                "seconds": seconds.get(name),
            }
        )
    return found


def _by_split(counts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        source = "" if one["label_source"] in {None, "human"} else f" ({one['label_source']})"
        total[one["split"] + source] = total.get(one["split"] + source, 0) + one["rows"]
    return total


def _notes(folder: Path) -> dict[str, Any]:
    notes: dict[str, Any] = read_manifest(folder)["notes"] if (folder / "manifest.json").is_file() else {}
    return notes


def _samples(generations: Path) -> list[dict[str, Any]]:
    """Some rows of each stage that holds any: a few of each label, by the ids' order, so the same each time."""
    samples = []
    for name in ("scrape", "pseudo_label/1"):
        folder = generations / name
        if not (folder / "manifest.json").is_file():
            continue
        rows = read(folder).sort_values("id")
        if rows.empty:
            continue
        labeled = rows[rows["label"].notna()]
        shown_rows = labeled if len(labeled) else rows
        of_each = max(1, SAMPLES // max(1, shown_rows["label"].nunique()))
        chosen = shown_rows.groupby("label", dropna=False).head(of_each).sort_values(["label", "id"]).head(SAMPLES)
        source = [folder] if name != "pseudo_label/1" else [generations / "scrape"]
        content = dict(payloads(source, chosen["id"]))
        samples.append(
            {
                "stage": name.replace("/", "@"),
                "rows": [
                    {
                        "label": row.label or "unlabeled",
                        "weak": str(row.label_source or "").startswith("weak"),
                        **shown(content[row.id]),
                    }
                    for row in chosen.itertuples()
                ],
            }
        )
    return samples


def _rounds(models: Path, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for one in metrics["rounds"]:
        manifest = read_json(models / str(one["round"]) / "manifest.json")
        model = read_json(models / str(one["round"]) / "model.json")
        learners = ", ".join(member["learner"].replace("_", " ") for member in model["members"])
        found.append({**one, "learners": learners, "pseudo_labeled": manifest["rows"]["pseudo_labeled"]})
    return found


def _audits(generations: Path) -> list[dict[str, Any]]:
    """The audit of each round that labeled the pool, its least right classes first."""
    found = []
    for folder in sorted((generations / "pseudo_label").glob("[0-9]*")):
        audit = read_manifest(folder)["notes"].get("audit")
        if audit:
            known = [{"class": name, **one} for name, one in audit["classes"].items() if one["precision"]]
            wrong = [one for one in known if one["precision"]["value"] < 1]
            worst = sorted(wrong, key=lambda one: (one["precision"]["value"], one["class"]))[:8]
            unjudged = sorted({*audit["classes"]} - {one["class"] for one in known})
            found.append({**audit, "round": int(folder.name), "worst": worst, "unjudged": unjudged})
    return found


def _candidates(model: Path, seconds: Path) -> list[dict[str, Any]]:
    """The table of candidates, the best first, with the seconds that each took where this machine trained them."""
    table = read_json(model / "candidates.json")["tried"]
    took = read_json(seconds) if seconds.is_file() else {}
    for one in table:
        one["seconds"] = took.get("-".join([one["learner"], *one["recipe"], one["loss"]]))
    return sorted(table, key=lambda one: (one["log_loss"] is None, one["log_loss"], not one["chosen"]))


def _left_out(model: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(model / "candidates.json")["left_out"]
    return found


def _confusion(predictions: Path, classes: Sequence[str]) -> dict[str, Any]:
    """The table as shares of each true class; left out where there are more classes than a page can show."""
    frame = read_frame(predictions, columns=["label", "predicted"])
    number = {label: place for place, label in enumerate(classes)}
    truth = np.array([number[one] for one in frame["label"]], dtype=np.int64)
    said = np.array([number[one] for one in frame["predicted"]], dtype=np.int64)
    counts = confusion(said, truth, len(classes))
    pairs = [
        {
            "truth": classes[row],
            "said": classes[column],
            "rows": int(counts[row, column]),
            "cell": f"{row}-{column}",
        }
        for row, column in np.argwhere(counts * (1 - np.eye(len(classes), dtype=int)))
    ]
    return {
        "classes": list(classes),
        "counts": counts.tolist() if len(classes) <= 20 else None,
        "totals": counts.sum(axis=1).tolist(),
        "worst": sorted(pairs, key=lambda one: (-one["rows"], one["truth"], one["said"]))[:8],
    }


def _gates(workspace: Path) -> list[dict[str, Any]]:
    found = []
    for path in [
        *sorted(workspace.glob("generations/**/gate.json")),
        *sorted(workspace.glob("models/*/gate.json")),
        workspace / "reports" / "gate.json",
    ]:
        name = "evaluate" if path.parent.name == "reports" else stage_of(path.parent)
        checks = read_checks(workspace, name, path.parent)
        if checks:
            missed = [one for one in checks if not one["passed"]]
            found.append({"stage": name, "checks": len(checks), "missed": missed})
    return found


def _change(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The last run against the one before: the accuracy, and the rows kept a stage where they differ."""
    with_metrics = [run for run in runs if run["metrics"]]
    if len(with_metrics) < 2:
        return None
    old, new = with_metrics[-2], with_metrics[-1]
    where = "test" if new["metrics"]["test"] and old["metrics"]["test"] else "cross_validation"
    if not (old["metrics"][where] and new["metrics"][where]):
        return None
    before, after = old["metrics"]["rows"], new["metrics"]["rows"]
    rows = [
        {"stage": stage, "before": before.get(stage, {}).get("kept", 0), "after": after.get(stage, {}).get("kept", 0)}
        for stage in sorted({*before, *after})
    ]
    return {
        "against": old["name"],
        "before": old["metrics"][where]["accuracy"],
        "after": new["metrics"][where]["accuracy"],
        "same_test": old["metrics"]["test_digest"] == new["metrics"]["test_digest"],
        "rows": [one for one in rows if one["before"] != one["after"]],
    }
