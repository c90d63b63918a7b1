"""The dataset card and the model card, in the format of the Hugging Face Hub."""

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

from seedling.dataset.generation import SPLITS, payloads, read, read_manifest
from seedling.dataset.schema import HUMAN_SOURCES
from seedling.errors import InputError, MissingGeneration
from seedling.evaluate import read_decisions
from seedling.files.own_folders import check_own_folders
from seedling.records.evaluation import EvaluationRecord
from seedling.records.manifest import read_notes
from seedling.records.model import ModelRecord
from seedling.records.results import read_evaluation
from seedling.records.round_manifest import RoundManifestRecord
from seedling.records.stage_notes import ValidateNotes
from seedling.report.markdown_text import markdown_text
from seedling.report.pages import never_predicted, vote
from seedling.report.review_section import reviewed_test
from seedling.review.decisions import decide
from seedling.review.log import read_log
from seedling.workspace import DATASET_CARD, EVALUATION, MANIFEST, MODEL, MODEL_CARD, REPORTS, REVIEWS, Workspace

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
GENERATED_STAGES = ("augment", "synthesize", "pseudo_label")
CARD_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "top_3_accuracy", "log_loss", "calibration_error")


@dataclass(frozen=True)
class Dataset:
    """Rows, and the folders with their images or texts."""

    rows: pd.DataFrame
    sources: tuple[Path, ...]
    modality: str
    classes: list[str]
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # stage → reason → rows

    @classmethod
    def of(cls, workspace: Path, splits: Sequence[str], generated: Sequence[str]) -> Dataset:
        """The validated rows of these splits, and the rows that the stages in `generated` added.

        Raises InputError for an unknown split or stage.
        """
        for names, allowed in ((splits, SPLITS), (generated, GENERATED_STAGES)):
            for name in names:
                if name not in allowed:
                    raise InputError(f"'{name}' is not one of {', '.join(allowed)}.")
        check_own_folders(workspace)  # a linked generation would copy rows of another workspace
        root = Workspace(workspace).generations
        manifest = read_manifest(root / "validate")
        frames = [read(root / "validate", COLUMNS, splits=list(splits)).assign(stage="validate")]
        sources = [root / "scrape"]
        labeled = {*frames[0].loc[frames[0]["label"].notna(), "id"]}
        for stage in generated:
            folder = root / stage
            if stage == "pseudo_label":  # the rows that the accepted model was trained on
                folder /= str(read_decisions(Workspace(workspace).models)[-1].accepted_round)
            if (folder / MANIFEST).is_file():
                added = read(folder, COLUMNS).assign(stage=stage)
                frames.append(added[~added["id"].isin(labeled)])
                sources += [] if stage == "pseudo_label" else [folder]
        rows = pd.concat([frame.astype(object) for frame in frames], ignore_index=True)
        rows = rows.drop_duplicates("id", keep="last").reset_index(drop=True)  # prefer the pool row with a pseudo-label
        _check_names(rows)
        if rows.empty:
            raise InputError(f"There are no rows of {', '.join(splits)}: `seedling status` lists the rows by stage.")
        manifests = {"scrape": read_manifest(root / "scrape"), "validate": manifest}
        rejected = {stage: dict(sorted(of_stage.reasons.items())) for stage, of_stage in manifests.items()}
        return cls(rows, tuple(sources), manifest.modality, list(manifest.classes), rejected)

    def content(self, rows: pd.DataFrame) -> Iterator[tuple[str, bytes | str]]:
        """(id, encoded image or text) of these rows, in any order."""
        yield from payloads(self.sources, rows["id"])


def _check_names(rows: pd.DataFrame) -> None:
    """Raises InputError for an id or a split that cannot be a file name, as exported files have these names."""
    for column, pattern in (("id", r"(?!\.)[^/\\\0]{1,200}"), ("split", r"\w{1,30}")):
        for name in rows[column].unique():
            if re.fullmatch(pattern, str(name)) is None:
                raise InputError(
                    f"The {column} {str(name)[:200]!r} cannot be part of a file name, so Seedling did not write it: "
                    "delete generations/ and run `seedling run`."
                )


def write_cards(workspace: Path) -> None:
    """Writes reports/model_card.md and reports/dataset_card.md, of the accepted model and of the validated rows."""
    reports, name = Workspace(workspace).reports, workspace.resolve().name
    (reports / MODEL_CARD).write_text(model_card(workspace, name), encoding="utf-8")
    dataset = Dataset.of(workspace, SPLITS, ())
    (reports / DATASET_CARD).write_text(dataset_card(dataset, name, "unknown"), encoding="utf-8")


def dataset_card(dataset: Dataset, name: str, license_name: str, *, as_parquet: bool = False) -> str:
    """The dataset card of the Hub, a README.md."""
    rows = dataset.rows
    task = "image-classification" if dataset.modality == "image" else "text-classification"
    kind = "images" if dataset.modality == "image" else "texts"
    header: dict[str, Any] = {
        "license": license_name,
        "task_categories": [task],
        "pretty_name": name,
        "tags": ["seedling"],
    }
    if as_parquet:
        splits = list(dict.fromkeys(rows["split"]))
        files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
        header["configs"] = [{"config_name": "default", "data_files": files}]
    lines = [
        *("---", *_yaml(header), "---", "", f"# {markdown_text(name)}", ""),
        f"{len(rows):,} {kind} of {len(dataset.classes)} classes, collected and labeled with Seedling.",
        "",
        *_split_table(rows),
        "",
        *_class_table(dataset),
    ]
    if any(dataset.rejected.values()):
        lines += ["", "## Rejected rows", ""]
        for stage, reasons in dataset.rejected.items():
            counts = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in reasons.items())
            lines.append(f"- by {stage}: {counts or 'none'}")
    licenses = Counter(rows["license"].fillna("not stated"))
    lines += ["", "## Licenses", ""]
    lines += [
        f"- {markdown_text(license_of_rows)}: {count:,} rows"
        for license_of_rows, count in sorted(licenses.items(), key=lambda item: (-item[1], item[0]))
    ]
    lines += [
        "",
        "`license` and `attribution` contain the license and author that a page states; `origin` is the source of the "
        "row.",
        "",
    ]
    return "\n".join(lines)


def _split_table(rows: pd.DataFrame) -> Iterator[str]:
    """Rows by split and source of the label, as a Markdown table."""
    yield "| split | rows | labeled by people | labeled by rules or models | augmented or synthetic | unlabeled |"
    yield "|---|---|---|---|---|---|"
    for split, of_split in rows.groupby("split", sort=False):
        is_generated = of_split["stage"].isin(["augment", "synthesize"])
        is_human = of_split["label_source"].isin(HUMAN_SOURCES) & ~is_generated
        is_unlabeled = of_split["label"].isna() & ~is_generated
        is_automatic = ~is_human & ~is_unlabeled & ~is_generated
        counts = [len(of_split), *(mask.sum() for mask in (is_human, is_automatic, is_generated, is_unlabeled))]
        yield f"| {split} | " + " | ".join(f"{int(count):,}" for count in counts) + " |"


def _class_table(dataset: Dataset) -> Iterator[str]:
    """Rows by class and split, as a Markdown table."""
    rows = dataset.rows
    splits = list(dict.fromkeys(rows["split"]))
    yield "| class | " + " | ".join(splits) + " |"
    yield "|---|" + "---|" * len(splits)
    for name in dataset.classes:
        counts = [int(((rows["label"] == name) & (rows["split"] == split)).sum()) for split in splits]
        yield f"| {markdown_text(name)} | " + " | ".join(f"{count:,}" for count in counts) + " |"


def model_card(
    workspace: Path, name: str, license_name: str = "unknown", use: str = "", number: int | None = None
) -> str:
    """The model card of the Hub, a README.md: metrics, limits of use and training data.

    use: a section on how to use the model, as Markdown; number: a round other than the accepted one, whose only metric
    is the cross-validated accuracy. Raises MissingGeneration if nothing was evaluated.
    """
    paths = Workspace(workspace)
    evaluation = read_evaluation(paths.reports)
    if evaluation is None:
        raise MissingGeneration(f"{REPORTS}/{EVALUATION}", "evaluate")
    round_number = evaluation.accepted_round if number is None else number
    is_accepted = round_number == evaluation.accepted_round
    model = ModelRecord.read(paths.model(round_number) / MODEL)
    kind = "images" if model.modality == "image" else "texts"
    never = never_predicted(evaluation.per_class) if is_accepted else []
    classes = [markdown_text(label) for label in model.classes if label not in never]
    header = _model_header(evaluation, model, name, license_name, is_accepted=is_accepted)
    lines = ["---", *_yaml(header), "---", "", f"# {markdown_text(name)}", ""]
    lines += [f"Classifies {kind} into {len(classes)} classes: {', '.join(classes)}.", ""]
    if never:
        names = ", ".join(markdown_text(label) for label in never)
        lines += [f"**It predicted no evaluation row as {names}**: do not use it to find them.", ""]
    if is_accepted:
        lines += _metrics_section(evaluation)
        lines += ["## Intended use and limits", "", *_limits(evaluation), *limit_of_test_rows(workspace), ""]
    else:
        lines += [_sentence_of_other_round(evaluation, round_number), ""]
    lines += ["## Training data", "", _training_data_sentence(workspace, model, round_number)]
    lines += ["", use] if use else [""]
    return "\n".join(lines).rstrip() + "\n"


def _model_header(
    evaluation: EvaluationRecord, model: ModelRecord, name: str, license_name: str, *, is_accepted: bool
) -> dict[str, Any]:
    """The YAML header. is_accepted: whether the results are those of this model."""
    task = "image-classification" if model.modality == "image" else "text-classification"
    header: dict[str, Any] = {"license": license_name, "pipeline_tag": task, "tags": ["seedling"]}
    metrics = evaluation.metrics if is_accepted else None
    if metrics is None:
        return header
    results = [
        {"type": metric, "value": estimate.value, "name": metric.replace("_", " ")}
        for metric in CARD_METRICS
        if (estimate := metrics.estimate(metric))
    ]
    header["model-index"] = [
        {
            "name": name,
            "results": [
                {
                    "task": {"type": task},
                    "dataset": {"name": name, "type": name, "split": evaluation.split.replace("_", "-")},
                    "metrics": results,
                }
            ],
        }
    ]
    return header


def _training_data_sentence(workspace: Path, model: ModelRecord, round_number: int) -> str:
    labeled = read_manifest(Workspace(workspace).generation("validate")).rows_of("train")
    pseudo_labeled = RoundManifestRecord.read(Workspace(workspace).model(round_number) / MANIFEST).pseudo_labeled
    rows = f"{labeled:,} labeled rows"
    if pseudo_labeled:
        rows += f", and {pseudo_labeled:,} rows of the pool with pseudo-labels"
    training_data = " + ".join(dict.fromkeys(step for member in model.members for step in member.recipe))
    return f"{rows}. The model is {vote(model)}, of round {round_number}, trained on: {training_data}."


def _sentence_of_other_round(evaluation: EvaluationRecord, round_number: int) -> str:
    accuracy = next((result.accuracy for result in evaluation.rounds if result.round == round_number), None)
    notice = f"**This is round {round_number}; the accepted one is round {evaluation.accepted_round}.** "
    if accuracy is None:
        return notice + "Its accuracy is unknown."
    interval = f"{accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]"
    return notice + f"Its cross-validated accuracy is {interval}; it was not evaluated on the test split."


def _metrics_section(evaluation: EvaluationRecord) -> list[str]:
    metrics = evaluation.metrics
    if metrics is None:
        return ["**The accuracy is unknown:** no labeled row was held out.", ""]
    rows = f"{metrics.rows:,} " + (
        "test rows that were not used in training"
        if evaluation.split == "test"
        else "labeled rows, by cross-validation, which also selected the model and is therefore optimistic"
    )
    lines = [
        f"On {rows}, with {evaluation.confidence:.0%} intervals:",
        "",
        "| metric | value | interval |",
        "|---|---|---|",
    ]
    for metric in CARD_METRICS:
        if estimate := metrics.estimate(metric):
            interval = f"{estimate.low:.3f} to {estimate.high:.3f}"
            lines.append(f"| {metric.replace('_', ' ')} | {estimate.value:.3f} | {interval} |")
    return [*lines, ""]


def _limits(evaluation: EvaluationRecord) -> Iterator[str]:
    """One bullet per known limit of use, and per unknown one."""
    selective = evaluation.selective_prediction
    if selective.coverage and selective.accuracy and selective.threshold > 0:
        accuracy = selective.accuracy
        yield (
            f"- Above a confidence of {selective.threshold:.3f}, it covers {selective.coverage.value:.1%} of the rows "
            f"with an accuracy of {accuracy.value:.1%} [{accuracy.low:.1%}, {accuracy.high:.1%}]; below, it abstains."
        )
    yield _out_of_scope_limit(evaluation)
    if unseen := evaluation.unseen_sources:
        yield (
            f"- On a source that it was not trained on, a quick model has an accuracy of {unseen.accuracy.value:.1%}, "
            f"{100 * unseen.difference.value:+.1f} points from its accuracy on a source that it was trained on."
        )
    for result in evaluation.per_class:
        if result.rows == 0:
            yield f"- The class {markdown_text(result.name)} has no evaluation rows."
    for part in evaluation.slices:
        if part.worse:
            column, value = part.column.replace("_", " "), markdown_text(part.value)
            yield f"- Significantly worse if {column} is {value}: accuracy {part.accuracy.value:.1%}."
    for corruption in evaluation.robustness.changes if evaluation.robustness else ():
        if corruption.difference.high < 0:
            points = f"{100 * corruption.difference.value:+.1f} points of accuracy"
            yield f"- {corruption.change.capitalize()}: {points}."


def limit_of_test_rows(workspace: Path) -> Iterator[str]:
    """A bullet if the test rows come from reviews, so that they are not a random sample."""
    validated = Workspace(workspace).generation("validate")
    reviews = read_notes(validated, ValidateNotes).reviews
    if not reviews or not reviews.test_rows:
        return
    test_ids = set(read(validated, ["id"], splits=["test"])["id"])
    test = reviewed_test(test_ids, decide(read_log(validated / REVIEWS)))
    if test and not test.is_random:
        yield (
            f"- The {test.rows:,} test rows are not a random sample of the data: they come from the rows that "
            "reviewers labeled, and the order of a review selects hard ones."
        )


def _out_of_scope_limit(evaluation: EvaluationRecord) -> str:
    if outside := evaluation.out_of_scope:
        coverage = f"{outside.coverage.value:.1%}"
        return f"- It does not abstain on {coverage} of {outside.rows:,} rows that belong to none of the classes."
    limit = "- Rows that belong to none of the classes were not evaluated."
    if unknown := evaluation.unknown_classes:
        limit += (
            " As a stand-in, each class was left out of training in turn: confidence separates its rows from known "
            f"ones with an AUROC of {unknown.auroc.value:.2f}."
        )
    return limit


def _yaml(header: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    YAML().dump(header, out)
    return out.getvalue().rstrip().splitlines()
