"""The paths of a workspace, compared with the files that a run writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from seedling import workspace as layout
from seedling.pipeline import row_stages, stages
from seedling.versioning.dvc_yaml import render_dvc_yaml
from seedling.workspace import Workspace

GENERATION = {layout.MANIFEST, layout.GATE, layout.REJECTED, layout.PARTS}
GENERATION_FILES = {
    "scrape": GENERATION | {layout.IGNORED},
    "pseudo_label": GENERATION | {layout.QUEUE, layout.FOLD_PROBABILITIES},
}
ROUND_FILES = {
    *(layout.MANIFEST, layout.GATE, layout.MODEL, layout.CANDIDATES, layout.DECISION, layout.LOSSES),
    *(layout.VALIDATION_PREDICTIONS, layout.OUT_OF_FOLD, layout.POOL_PREDICTIONS),
    *(layout.FEATURES, layout.FEATURE_ARRAYS),
}
LEARNER_FILES = {f"*{layout.ARRAYS_SUFFIX}", f"*{layout.LOG_SHARES_SUFFIX}"}
REPORT_FILES = {
    *(layout.EVALUATION, layout.METRICS, layout.PREDICTIONS, layout.GATE, layout.ABLATION),
    *(layout.REPORT_PAGE, layout.DATA_PAGE, layout.HISTORY_PAGE, layout.GATES_PAGE),
    *(layout.LABEL_ISSUES, layout.DUPLICATES, layout.QUALITY, layout.MODEL_CARD, layout.DATASET_CARD),
}
PLOT_FILES = {
    *(layout.CONFUSION, layout.CALIBRATION, layout.RISK_COVERAGE, layout.ROUNDS, layout.RECALL),
    *(layout.LEARNING_CURVE, layout.LOSSES),
}
NOT_IN_EACH_RUN = {  # these depend on the data, the encoder, the learners, and on other commands
    *(layout.IGNORED, layout.QUEUE, layout.FOLD_PROBABILITIES, layout.LOSSES, layout.FEATURE_ARRAYS),
    *(f"*{layout.LOG_SHARES_SUFFIX}", layout.ABLATION, "contact_sheet_*.html", "compare-*-*.html"),
}


def named_patterns() -> set[str]:
    """Every file that a stage or a page writes, as a pattern relative to the workspace."""
    paths, names_by_folder = Workspace(Path()), dict[Path, set[str]]()
    for stage in row_stages():
        names_by_folder[paths.generation(stage)] = GENERATION_FILES.get(stage, GENERATION)
    names_by_folder[paths.pseudo_labels / "*"] = GENERATION_FILES["pseudo_label"]
    names_by_folder[paths.model("*")] = ROUND_FILES
    names_by_folder[paths.model("*") / layout.half_folder("*")] = LEARNER_FILES
    names_by_folder[paths.reports] = {
        *REPORT_FILES,
        paths.contact_sheet("*").name,
        paths.comparison_page("*", "*").name,
    }
    names_by_folder[paths.plots] = PLOT_FILES
    return {(folder / name).as_posix() for folder, names in names_by_folder.items() for name in names}


def unnamed(workspace: Path) -> list[str]:
    """The files of the stages' outputs that seedling/workspace.py does not name, relative to the workspace."""
    named = {path for pattern in named_patterns() for path in workspace.glob(pattern)}
    return sorted(
        path.relative_to(workspace).as_posix()
        for folder in layout.STAGE_OUTPUTS
        for path in (workspace / folder).rglob("*")
        if path.is_file() and path not in named
    )


@pytest.mark.slow
def test_every_file_that_a_run_writes_is_named(finished_workspace: Path) -> None:
    """A new file of a stage or a page needs a name in seedling/workspace.py."""
    assert unnamed(finished_workspace) == []


def test_an_unnamed_file_is_noticed(tmp_path: Path) -> None:
    """The search of the test above covers all output folders, at any depth."""
    names = ["generations/scrape/part-0.csv", "models/0/half-0/svm.pickle", "models/0/x.json", "reports/plots/x.csv"]
    for name in [*names, "reports/report.html", "models/0/half-0/svm.safetensors"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert unnamed(tmp_path) == names


@pytest.mark.slow
def test_a_run_writes_every_named_file(finished_workspace: Path) -> None:
    """A name in seedling/workspace.py that no file has any more is noticed, apart from what few runs write."""
    patterns = {pattern for pattern in named_patterns() if Path(pattern).name not in NOT_IN_EACH_RUN}
    assert {pattern for pattern in patterns if not any(finished_workspace.glob(pattern))} == set()


@pytest.mark.slow
def test_the_state_of_a_run_is_named(finished_workspace: Path) -> None:
    """What a run leaves in .seedling/ is where Workspace says, and in no other file or folder."""
    paths = Workspace(finished_workspace)
    expected = {
        paths.run_lock,
        paths.run_pid,
        paths.test_evaluations_copy,
        paths.run_records,
        paths.snapshot,
        paths.feature_cache,
        paths.gate_records,
        paths.logs,
        paths.state / layout.VALIDATION_RESULTS,
        paths.training_seconds("train@0").parent,
    }
    folders_of_stopped_runs = {paths.partials, paths.unfinished}
    assert expected <= set(paths.state.iterdir()) <= expected | folders_of_stopped_runs
    stage_records = {path for stage in stages() for path in (paths.gate_comparisons(stage), paths.compared_rows(stage))}
    assert paths.gate_history in set(paths.gate_records.iterdir()) <= {paths.gate_history, *stage_records}
    assert {paths.run_record(path.stem) for path in paths.run_records.iterdir()} == set(paths.run_records.iterdir())
    assert paths.training_seconds("train@0").is_file()
    assert Workspace(paths.snapshot).params_file.read_bytes() == paths.params_file.read_bytes()
    assert Workspace(paths.snapshot).data_pointer.is_file()


def test_a_new_workspace_has_the_named_files(new_workspace: Path) -> None:
    """The files that `seedling init` writes are those that Workspace names."""
    paths = Workspace(new_workspace)
    named = {paths.params_file, paths.gates_file, paths.dvc_file, paths.data, paths.test_evaluations_file}
    named |= {paths.reviews}
    named |= {new_workspace / name for name in (layout.PREFECT_FILE, layout.README_FILE)}
    visible = {path for path in new_workspace.iterdir() if not path.name.startswith(".")}
    assert named <= visible <= named | {paths.data_pointer}


def test_the_outputs_in_dvc_yaml_are_the_named_folders() -> None:
    """dvc.yaml, the stage table and Workspace name the same folders."""
    paths = Workspace(Path())
    outputs = {name: Path(stage.output) for name, stage in stages().items()}
    assert {name: outputs[name] for name in row_stages()} == {name: paths.generation(name) for name in row_stages()}
    assert outputs["train@2"] == paths.model(2)
    assert outputs["pseudo_label@2"] == paths.pseudo_labels / "2"
    assert outputs["evaluate"] == paths.reports
    text = render_dvc_yaml()
    for path in (paths.evaluation_file, paths.metrics_file, paths.predictions_file, paths.plots / layout.CONFUSION):
        assert path.as_posix() in text, path
