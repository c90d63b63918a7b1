"""Cards beside the report, as the Hugging Face Hub has them: what the dataset is, and what the model is."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from seedling.dataset.generation import MANIFEST, SPLITS, payloads, read, read_manifest
from seedling.errors import InputError, MissingGeneration
from seedling.evaluate import read_decisions
from seedling.files.own_folders import check_own_folders
from seedling.files.reading import read_json
from seedling.records.results import EVALUATION, read_evaluation
from seedling.report.markdown_text import markdown_text
from seedling.report.pages import vote

COLUMNS = [
    "id",
    "split",
    "label",
    "label_source",
    "weight",
    "confidence",
    "parent_ids",
    "origin",
    "license",
    "attribution",
]
MADE = ("augment", "synthesize", "pseudo_label")
REPORTED = ("accuracy", "balanced_accuracy", "macro_f1", "top_3_accuracy", "log_loss", "calibration_error")


@dataclass(frozen=True)
class Dataset:
    """Rows with where their images or texts lie."""

    rows: pd.DataFrame
    sources: tuple[Path, ...]
    modality: str
    classes: list[str]
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # stage → reason → rows

    @classmethod
    def of(cls, workspace: Path, splits: Sequence[str], made: Sequence[str]) -> Dataset:
        """The rows of these splits, as validate has them, and what the stages of `made` added. Raises InputError for a name that is none."""
        for given, known in ((splits, SPLITS), (made, MADE)):
            for one in given:
                if one not in known:
                    raise InputError(f"'{one}' is none of {', '.join(known)}.")
        check_own_folders(workspace)  # a linked generation would copy rows of another workspace
        root = workspace / "generations"
        manifest = read_manifest(root / "validate")
        frames = [read(root / "validate", COLUMNS, splits=list(splits)).assign(stage="validate")]
        sources = [root / "scrape"]
        labeled = {*frames[0].loc[frames[0]["label"].notna(), "id"]}
        for stage in made:
            folder = root / stage
            if stage == "pseudo_label":  # what the accepted model learnt from
                folder /= str(read_decisions(workspace / "models")[-1]["accepted_round"])
            if (folder / MANIFEST).is_file():
                found = read(folder, COLUMNS).assign(stage=stage)
                frames.append(found[~found["id"].isin(labeled)])
                sources += [] if stage == "pseudo_label" else [folder]
        rows = pd.concat([one.astype(object) for one in frames], ignore_index=True)
        rows = rows.drop_duplicates("id", keep="last").reset_index(
            drop=True
        )  # a pool row that was labeled counts with its label
        _check_names(rows)
        if rows.empty:
            raise InputError(f"There is no row of {', '.join(splits)}: `seedling status` shows what there is.")
        manifests = {"scrape": read_manifest(root / "scrape"), "validate": manifest}
        rejected = {stage: dict(sorted(of_stage["reasons"].items())) for stage, of_stage in manifests.items()}
        return cls(rows, tuple(sources), manifest["modality"], manifest["classes"], rejected)

    def content(self, rows: pd.DataFrame) -> Iterator[tuple[str, bytes | str]]:
        """(id, encoded image or text) of these rows, in any order."""
        yield from payloads(self.sources, rows["id"])


def _check_names(rows: pd.DataFrame) -> None:
    """Raises InputError for an id or a split that cannot be the name of a file: an export has files of these names."""
    for column, pattern in (("id", r"(?!\.)[^/\\\0]{1,200}"), ("split", r"\w{1,30}")):
        for name in rows[column].unique():
            if re.fullmatch(pattern, str(name)) is None:
                raise InputError(
                    f"The {column} {str(name)[:200]!r} cannot be part of a file's name, so Seedling did not write it: delete generations/ and run `seedling run`."
                )


def write_cards(workspace: Path) -> None:
    """Writes model_card.md and dataset_card.md to reports/, which speak of the accepted model and of the rows that people or sites gave."""
    reports, name = workspace / "reports", workspace.resolve().name
    (reports / "model_card.md").write_text(model_card(workspace, name), encoding="utf-8")
    dataset = Dataset.of(workspace, SPLITS, ())
    (reports / "dataset_card.md").write_text(dataset_card(dataset, name, "unknown"), encoding="utf-8")


def dataset_card(dataset: Dataset, name: str, license_name: str, *, as_parquet: bool = False) -> str:
    """README.md: the dataset card of the Hub, with what is known of the rows."""
    rows = dataset.rows
    task = "image-classification" if dataset.modality == "image" else "text-classification"
    header: dict[str, Any] = {
        "license": license_name,
        "task_categories": [task],
        "pretty_name": name,
        "tags": ["seedling"],
    }
    if as_parquet:
        splits = list(dict.fromkeys(rows["split"]))
        files = [{"split": one, "path": f"data/{one}-*.parquet"} for one in splits]
        header["configs"] = [{"config_name": "default", "data_files": files}]
    lines = ["---", *_yaml(header), "---", "", f"# {markdown_text(name)}", ""]
    lines += [
        f"{len(rows):,} {'images' if dataset.modality == 'image' else 'texts'} of {len(dataset.classes)} classes, grown with Seedling.",
        "",
    ]
    lines += [
        "| split | rows | labeled by people | by rules or models | made from others | unlabeled |",
        "|---|---|---|---|---|---|",
    ]
    for split, mine in rows.groupby("split", sort=False):
        made = mine["stage"].isin(["augment", "synthesize"])
        human = (mine["label_source"] == "human") & ~made
        none = mine["label"].isna() & ~made
        counts = [len(mine), human.sum(), (~human & ~none & ~made).sum(), made.sum(), none.sum()]
        lines.append(f"| {split} | " + " | ".join(f"{int(one):,}" for one in counts) + " |")
    lines += [
        "",
        "| class | " + " | ".join(dict.fromkeys(rows["split"])) + " |",
        "|---|" + "---|" * rows["split"].nunique(),
    ]
    for one in dataset.classes:
        counts = [
            int(((rows["label"] == one) & (rows["split"] == split)).sum()) for split in dict.fromkeys(rows["split"])
        ]
        lines.append(f"| {markdown_text(one)} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    if any(dataset.rejected.values()):
        lines += ["", "## Rows that were rejected", ""]
        for stage, reasons in dataset.rejected.items():
            listed = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.items())
            lines.append(f"- by {stage}: {listed or 'none'}")
    known = Counter(rows["license"].fillna("not stated"))
    lines += [
        "",
        "## Licenses",
        "",
        *(
            f"- {markdown_text(what)}: {count:,} rows"
            for what, count in sorted(known.items(), key=lambda pair: (-pair[1], pair[0]))
        ),
    ]
    lines += [
        "",
        "Where a page stated a license or an author, `license` and `attribution` of each row say so; `origin` says where it comes from.",
        "",
    ]
    return "\n".join(lines)


def model_card(
    workspace: Path, name: str, license_name: str = "unknown", use: str = "", number: int | None = None
) -> str:
    """README.md of the accepted model, as the Hub has them: how good, where it may be used and where not, what it learnt from.

    use: a section on how to ask it, as Markdown; number: a round, of which no more is known than its cross-validation where it is not the accepted
    one. Raises MissingGeneration where nothing was evaluated.
    """
    reports = workspace / "reports"
    metrics = read_evaluation(reports)
    if metrics is None:
        raise MissingGeneration(f"reports/{EVALUATION}", "evaluate")
    accepted = metrics["accepted_round"]
    shown = accepted if number is None else number
    model = read_json(workspace / "models" / str(shown) / "model.json")
    where = "test" if metrics["test"] else "cross_validation"
    task = "image-classification" if model["modality"] == "image" else "text-classification"
    header: dict[str, Any] = {"license": license_name, "pipeline_tag": task, "tags": ["seedling"]}
    results = [
        {"type": one, "value": metrics[where][one]["value"], "name": one.replace("_", " ")}
        for one in REPORTED
        if metrics[where] and metrics[where].get(one)
    ]
    if results and shown == accepted:
        measured = {
            "task": {"type": task},
            "dataset": {"name": name, "type": name, "split": where.replace("_", "-")},
            "metrics": results,
        }
        header["model-index"] = [{"name": name, "results": [measured]}]
    kind, classes = (
        "images" if model["modality"] == "image" else "texts",
        [markdown_text(one) for one in model["classes"]],
    )
    lines = ["---", *_yaml(header), "---", "", f"# {markdown_text(name)}", ""]
    lines += [f"Puts {kind} into one of {len(classes)} classes: {', '.join(classes)}.", ""]
    if shown == accepted:
        lines += _how_good(metrics, where)
        lines += ["## Where it may be used, and where not", "", *_where(metrics), ""]
    else:
        lines += [_of_another_round(metrics, shown), ""]
    learnt = read_manifest(workspace / "models" / str(shown))["rows"]
    labeled = sum(
        one["rows"]
        for one in read_manifest(workspace / "generations" / "validate")["counts"]
        if one["split"] == "train"
    )
    lines += ["## What it learnt from", "", f"{labeled:,} labeled rows"]
    if learnt["pseudo_labeled"]:
        lines[-1] += f", and {learnt['pseudo_labeled']:,} rows of the pool with labels of its own"
    recipes = " + ".join(dict.fromkeys(part for one in model["members"] for part in one["recipe"]))
    lines[-1] += f". The model is {vote(model)}, of round {shown}, taught with: {recipes}."
    lines += ["", use] if use else [""]
    return "\n".join(lines).rstrip() + "\n"


def _of_another_round(metrics: Mapping[str, Any], number: int) -> str:
    found = next((one["accuracy"] for one in metrics["rounds"] if one["round"] == number and one["accuracy"]), None)
    said = f"**This is round {number}; the accepted one is round {metrics['accepted_round']}.** "
    if found is None:
        return said + "How good it is was not judged."
    interval = f"{found['value']:.3f}, between {found['low']:.3f} and {found['high']:.3f}"
    return said + f"Cross-validated it is right in {interval} of the rows; no test row was shown to it."


def _how_good(metrics: Mapping[str, Any], where: str) -> list[str]:
    found = metrics[where]
    if not found:
        return ["**How good it is, nobody can say yet:** no row was held out.", ""]
    rows = f"{found['rows']:,} " + (
        "test rows that took no part in training"
        if where == "test"
        else "labeled rows, by cross-validation, which also chose the model and so flatters"
    )
    lines = [
        f"On {rows}, with {metrics['confidence']:.0%} intervals:",
        "",
        "| measure | value | interval |",
        "|---|---|---|",
    ]
    lines += [
        f"| {one.replace('_', ' ')} | {found[one]['value']:.3f} | {found[one]['low']:.3f} to {found[one]['high']:.3f} |"
        for one in REPORTED
        if found.get(one)
    ]
    return [*lines, ""]


def _where(metrics: Mapping[str, Any]) -> list[str]:
    """A bullet for each thing that is known, and for each that is not."""
    abstain, outside, lines = metrics["selective_prediction"], metrics["out_of_scope"], []
    if abstain["accuracy"] and abstain["threshold"] > 0:
        lines.append(
            f"- Abstaining under a confidence of {abstain['threshold']:.3f}, it answers {abstain['coverage']['value']:.1%} of the rows, and {abstain['accuracy']['value']:.1%} of those rightly (between {abstain['accuracy']['low']:.1%} and {abstain['accuracy']['high']:.1%})."
        )
    if outside:
        lines.append(
            f"- Of {outside['rows']:,} rows of no class it would answer {outside['coverage']['value']:.1%} all the same."
        )
    else:
        lines.append("- What it does with rows of no class was not tried.")
        if away := metrics["unknown_classes"]:
            lines[-1] += (
                f" A quick model that never saw a class tells its rows from the others with an AUROC of {away['auroc']['value']:.2f} in the mean."
            )
    if away := metrics["unseen_sources"]:
        lines.append(
            f"- From a source that it never saw a quick model is right of {away['accuracy']['value']:.1%}, "
            f"{100 * away['difference']['value']:+.1f} points from where it saw it."
        )
    lines += [
        f"- The class {markdown_text(one['class'])} was never tested."
        for one in metrics["per_class"]
        if one["rows"] == 0
    ]
    lines += [
        f"- Surely worse where {one['column'].replace('_', ' ')} is {markdown_text(str(one['value']))}: {one['accuracy']['value']:.1%} right."
        for one in metrics["slices"]
        if one["worse"]
    ]
    changes = (metrics["robustness"] or {}).get("changes", [])
    lines += [
        f"- {one['change'].capitalize()}: {100 * one['difference']['value']:+.1f} points of accuracy."
        for one in changes
        if one["difference"]["high"] < 0
    ]
    return lines


def _yaml(header: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    YAML().dump(header, out)
    return out.getvalue().rstrip().splitlines()
