"""A tour of the pipeline in plain Python, without Prefect and DVC: 200 handwritten digits through all stages.

    python examples/tour.py [FOLDER]

Each stage is one call of `run_stage`, which runs the stage's function, counts its rows, checks its quality gate, and
puts the output into its folder. Between the stages the tour prints what became of one labeled image.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from seedling.dataset.generation import read, read_manifest
from seedling.pipeline import find_stage
from seedling.records.decision import DecisionRecord
from seedling.records.results import read_evaluation_summary
from seedling.records.summaries import headline
from seedling.runner import run_stage, write_page

LABELED_PER_CLASS, TEST_PER_CLASS, UNLABELED = 5, 5, 100
PARAMS = """\
pipeline_version: 18
modality: image
effort: quick  # normal and thorough try more
scrape: {sources: [{kind: folder, path: .}]}
train: {candidates: [logistic_regression, svm]}
pseudo_label: {rounds: 1}
evaluate: {robustness_rows: 0}
"""


def main(workspace: Path) -> None:
    """Runs the stages one by one and prints what each of them did."""
    write_workspace(workspace)
    print(f"Workspace: {workspace}. Input: data/labeled/<class>/, data/unlabeled/, data/test/<class>/.\n")

    run("scrape", workspace, "collects the rows of all sources into one Parquet table")
    first = read(workspace / "generations/scrape", ["id", "origin", "split", "label"], splits=["train"]).iloc[0]
    print(f"  One labeled image: id {first.id[:8]}, {first.origin}, label {first.label}")

    run("validate", workspace, "checks each row, assigns folds, and looks for likely label errors")
    checked = read(workspace / "generations/validate").set_index("id").loc[first.id]
    print(f"  It is in fold {int(checked.fold)}; its label is wrong with probability {checked.p_label_error:.3f}")

    run("augment", workspace, "makes changed copies of the labeled images")
    show_made_from(workspace / "generations/augment", first.id)
    run("synthesize", workspace, "makes new rows by mixing pairs of images")
    show_made_from(workspace / "generations/synthesize", first.id)

    run("train@0", workspace, "compares models by cross-validation")
    out_of_fold = pd.read_parquet(workspace / "models/0/out_of_fold.parquet").set_index("id").loc[first.id]
    classes = read_manifest(workspace / "generations/validate").classes
    likeliest = int(np.argmax(out_of_fold.probabilities))
    print(
        f"  A model trained without its fold predicts {classes[likeliest]} ({out_of_fold.probabilities[likeliest]:.0%})"
    )

    run("pseudo_label@1", workspace, "labels the unlabeled images with the model of round 0")
    run("train@1", workspace, "trains again with these pseudo-labels, and keeps the round only if it is clearly better")
    decision = DecisionRecord.read(workspace / "models/1/decision.json")
    print(f"  Round 1 is {decision.decision}: {decision.reason}")

    run("evaluate", workspace, "scores the accepted model on the test images")
    print(f"  {headline(read_evaluation_summary(workspace / 'reports'))}")
    write_page("validate", workspace)
    print(f"\nReport: {write_page('evaluate', workspace)}")


def run(name: str, workspace: Path, description: str) -> None:
    """Runs one stage and prints how many rows it kept and rejected."""
    stage = find_stage(name)
    run_stage(stage, workspace)
    print(f"{name} {description}.")
    if stage.output.startswith("generations/"):
        rows = read_manifest(workspace / stage.output).rows
        print(f"  {rows.rows_in} rows in, {rows.kept} kept, {rows.rejected} rejected -> {stage.output}/")


def show_made_from(generation: Path, row_id: str) -> None:
    """Prints the recipe of the first row that was made from the row of this id."""
    rows = read(generation, ["parent_ids", "label", "recipe"])
    for row in rows[[row_id in parent_ids for parent_ids in rows["parent_ids"]]].head(1).itertuples():
        print(f"  Made from it: label {row.label or 'mixed'}, recipe {row.recipe[:90]}")


def write_workspace(workspace: Path) -> None:
    """Writes params.yaml, gates.yaml and data/ with 200 digits of scikit-learn."""
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / "params.yaml").write_text(PARAMS)
    (workspace / "gates.yaml").write_text(
        (files("seedling.init") / "workspace_files" / "gates.yaml.template").read_text()
    )
    digits, labeled = load_digits(), LABELED_PER_CLASS
    for label in range(10):
        of_class = np.flatnonzero(digits.target == label)
        for count, row in enumerate(of_class[: labeled + TEST_PER_CLASS + UNLABELED // 10]):
            part = "labeled" if count < labeled else "test" if count < labeled + TEST_PER_CLASS else "unlabeled"
            folder = workspace / "data" / part / ("" if part == "unlabeled" else str(label))
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{row:04d}.png"), (digits.images[row] * 15).astype(np.uint8))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
