"""Renders dvc.yaml from the stage table."""

from __future__ import annotations

from seedling.config.params import MAX_ROUNDS
from seedling.pipeline import AUGMENTED, SYNTHESIZED, Stage, row_stages, stages
from seedling.workspace import MODELS

RUNNER = "python -P -m seedling.runner"  # -P: Python imports no module from the workspace
HEADER = """\
# The pipeline as DVC stages. `dvc repro` runs it without Prefect, `seedling run` within Prefect, with the same bytes.
# python -P: Python imports modules from where they are installed, and not from this folder.
"""
ROUND_0 = """\
      # Round 0 has no pseudo-labels and no teacher. DVC needs a path, so these are manifests that round 0 reads anyway.
      "0": {{pseudo_labels: {synthesized}/manifest.json, teacher: {augmented}/manifest.json}}
"""
EVALUATION_OUTPUTS = """\
    outs: [reports/evaluation.json, reports/predictions.parquet, reports/gate.json]
    metrics: [reports/metrics.json]
    plots:
      - reports/plots/confusion.csv: {template: confusion_normalized, x: predicted, y: label, title: Confusion}
      - reports/plots/calibration.csv: {template: scatter, x: confidence, y: accuracy, title: Calibration}
      - reports/plots/rounds.csv: {template: linear, x: round, y: accuracy, title: Cross-validated accuracy by round}
      - reports/plots/recall.csv: {template: bar_horizontal, x: recall, y: class, title: Recall by class}
      - reports/plots/losses.csv: {template: linear, x: step, y: loss, title: "Training loss, mean of the fits"}
      - reports/plots/risk_coverage.csv: {template: linear, x: coverage, y: error, title: Error rate by coverage}
      - reports/plots/learning_curve.csv: {template: linear, x: labels, y: accuracy, title: Accuracy by labels}
"""


def render_dvc_yaml() -> str:
    """Render dvc.yaml, which is the same in every workspace."""
    table = stages()
    rounds = range(1, MAX_ROUNDS + 1)
    items = "".join(
        f'      "{number}": {{pseudo_labels: {table[f"pseudo_label@{number}"].output}, teacher: models/{number - 1}}}\n'
        for number in rounds
    )
    teachers = ", ".join(f'"{number}": {{teacher: "{number - 1}"}}' for number in rounds)
    return "".join(
        [
            HEADER,
            "vars:\n  - rounds:\n",
            ROUND_0.format(synthesized=SYNTHESIZED, augmented=AUGMENTED),
            items,
            "\nstages:\n",
            *(_render(table[name]) for name in row_stages()),
            _render_rounds(
                table["train@1"],
                "${rounds}",
                {table["pseudo_label@1"].output: "${item.pseudo_labels}", table["train@0"].output: "${item.teacher}"},
            ),
            _render_rounds(
                table["pseudo_label@1"], f"{{{teachers}}}", {table["train@0"].output: f"{MODELS}/${{item.teacher}}"}
            ),
            _render(table["evaluate"], EVALUATION_OUTPUTS),
        ]
    )


def _render(stage: Stage, outputs: str | None = None) -> str:
    return (
        f"  {stage.name}:\n"
        f"    cmd: {RUNNER} {stage.name}\n"
        f"    deps: [{', '.join(stage.inputs)}]\n"
        f"    params: [{_params(stage)}]\n"
        f"{outputs or _outputs(stage)}"
    )


def _outputs(stage: Stage) -> str:
    return f"    outs: [{stage.output}]\n"


def _render_rounds(stage: Stage, items: str, variables: dict[str, str]) -> str:
    """Render the stages of all rounds from the stage of round 1. variables: input of round 1 → template variable."""
    inputs = [f'"{variables[name]}"' if name in variables else name for name in stage.inputs]
    return (
        f"  {stage.kind}:\n"
        f"    foreach: {items}\n"
        "    do:\n"
        f"      cmd: {RUNNER} {stage.kind}@${{key}}\n"
        f"      deps: [{', '.join(inputs)}]\n"
        f"      params: [{_params(stage)}]\n"
        f'      outs: ["{stage.output.removesuffix("1")}${{key}}"]\n'
    )


def _params(stage: Stage) -> str:
    return ", ".join((*stage.params, f"{{gates.yaml: [{stage.kind}]}}"))
