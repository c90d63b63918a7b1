"""Runs one stage: its function, the check of its row counts, its gate, and the publication of its output.

python -m seedling.runner augment        # one stage in the current workspace, as in dvc.yaml
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from seedling import faults
from seedling.config.params import load
from seedling.errors import GateFailed, MissingGeneration, SeedlingError
from seedling.features.encoder_handle import EncoderHandle, encoder_of
from seedling.lock import workspace_lock
from seedling.models.device import release_freed_memory
from seedling.pipeline import COLLECTED, VALIDATED, Stage, StageContext, find_stage, stages
from seedling.progress import Progress, silent, terminal
from seedling.records.manifest import read_manifest_if_any
from seedling.terminal.printable import printable
from seedling.workspace import DATA, GENERATIONS, MODEL, REVIEWS, Workspace

OLD = ".old"


def run_stage(
    stage: Stage,
    workspace: Path,
    progress: Progress = silent,
    *,
    inputs: Path | None = None,
    same_rows: Callable[[Path, Path], bool] | None = None,
) -> bool:
    """Runs the stage's function, checks rows in = kept + rejected, runs the gate, and then replaces the stage's output.

    Everything is first written to another folder, so a kill at any time leaves the last complete generation.
    inputs: the folder with params.yaml, gates.yaml and data/, None for the workspace; a run passes its snapshot.
    same_rows: called with the new folder and the output; if it returns True, the output is not replaced.

    Returns whether the output was replaced.
    Raises GateFailed if a critical expectation failed; the rows are then in quarantine/.
    """
    inputs = inputs or workspace
    params = load(inputs)
    check_inputs(stage, workspace)
    partial = Workspace(workspace).partial(stage.name)
    try:
        _recover_from_kill(partial, workspace / stage.output)
        partial.mkdir(parents=True)
        encoder = encoder_of(params, workspace)
        stage.function(StageContext(params, workspace, Workspace(inputs).data, partial, progress, encoder))
        if same_rows is not None and same_rows(partial, workspace / stage.output):
            return False
        progress("gate", 0, None)
        _check_rows(stage, partial, workspace)
        record_comparisons = _run_gate(stage, partial, workspace, inputs, params.max_megapixels)
        _publish(partial, workspace / stage.output, whole=stage.kind != "evaluate")
        record_comparisons()
    except SeedlingError:
        raise
    except Exception as error:
        seedling_error = faults.explain(error, stage.output)
        if seedling_error is None:
            raise
        raise seedling_error from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        release_freed_memory()  # the next stage may run in this process
    return True


def run_without_gate(
    stage: Stage, workspace: Path, progress: Progress = silent, *, encoder: EncoderHandle | None = None
) -> None:
    """Runs only the stage's function, without its gate. The output folder must not exist.

    encoder: that of the workspace that this one is a variant of.
    """
    check_inputs(stage, workspace)
    output = workspace / stage.output
    output.mkdir(parents=True)
    stage.function(StageContext(load(workspace), workspace, Workspace(workspace).data, output, progress, encoder))


def check_inputs(stage: Stage, workspace: Path) -> None:
    """Raises MissingGeneration, which names the stage to run first, if an input folder of the stage is missing."""
    for folder in stage.inputs:
        if not (workspace / folder).exists() and folder not in {DATA, REVIEWS}:
            raise MissingGeneration(folder, _stage_with_output(folder))


def _check_rows(stage: Stage, folder: Path, workspace: Path) -> None:
    from seedling.dataset.generation import check_counts, read_manifest, rows_on_disk

    if not stage.output.startswith(f"{GENERATIONS}/"):
        return
    manifest = read_manifest(folder)
    check_counts(manifest, rows_on_disk(folder))
    if stage.kind == "validate":  # for two stages, the number of rows in is also known from their input
        check_counts(manifest, rows_in=read_manifest(workspace / COLLECTED).rows.kept)
    elif stage.kind == "pseudo_label" and not manifest.is_skipped:
        check_counts(manifest, rows_in=read_manifest(workspace / VALIDATED).rows_of("pool"))


def _run_gate(stage: Stage, folder: Path, workspace: Path, inputs: Path, max_megapixels: float) -> Callable[[], None]:
    """Runs the stage's gate. Returns a function to call after the generation is published, which stores comparisons.

    Raises GateFailed if a critical expectation failed.
    """
    from seedling.gates import checking
    from seedling.gates.columns import GateInput, available_columns, gated_rows, save_for_comparison
    from seedling.gates.history import record_gate

    gates, comparison_file = checking.load_gates(inputs), Workspace(workspace).compared_rows(stage.name)
    if _skipped(stage, folder):
        checking.write_checks([], folder)  # the loop has stopped: there are no rows to check
        return lambda: checking.write_comparisons([], workspace, stage.name)
    gate_columns = checking.columns_in_gate(stage.name, gates)
    validated = None if stage.kind in {"scrape", "validate"} else workspace / VALIDATED
    gate_input = GateInput(
        folder,
        validated=validated,
        collected=workspace / COLLECTED,
        last=workspace / stage.output,
        memory=comparison_file,
        max_megapixels=max_megapixels,
        feature_cache=Workspace(workspace).feature_cache,
    )
    rows = gated_rows(stage.name, gate_input, gate_columns)
    user_expectations = checking.load_user_expectations(inputs, gates)
    columns = available_columns(stage.name, folder, validated)
    checks = checking.check(stage.name, rows, gates, Workspace(workspace).state, user_expectations, columns)
    checking.write_checks(checks, folder)
    record_gate(workspace, stage.name, checks, user_expectations.meanings)
    page = _gates_page(workspace)
    if any(check.stops for check in checks):
        quarantine = _move_to_quarantine(stage, folder, workspace)
        message = checking.explain(stage.name, checks, quarantine.relative_to(workspace), page, _rejected(quarantine))
        raise GateFailed(message, checks)

    new_comparison_file = folder.with_name(f"{folder.name}.memory")  # until the generation is published
    new_comparison_file.unlink(missing_ok=True)
    save_for_comparison(rows, gate_columns, new_comparison_file)

    def record_comparisons() -> None:
        checking.write_comparisons(checks, workspace, stage.name)
        comparison_file.parent.mkdir(parents=True, exist_ok=True)
        comparison_file.unlink(missing_ok=True)  # of the replaced generation
        if new_comparison_file.is_file():
            new_comparison_file.replace(comparison_file)

    return record_comparisons


def _move_to_quarantine(stage: Stage, folder: Path, workspace: Path) -> Path:
    """Moves the output of a stage whose gate failed to quarantine/. Returns its new folder."""
    from seedling.dataset.generation import digest

    quarantine = Workspace(workspace).quarantine / f"{stage.name}-{digest(folder)}"
    shutil.rmtree(quarantine, ignore_errors=True)
    quarantine.parent.mkdir(exist_ok=True)
    shutil.move(folder, quarantine)
    return quarantine


def _rejected(folder: Path) -> dict[str, int]:
    """The number of rows that the stage rejected, by reason; empty for a model."""
    manifest = read_manifest_if_any(folder)
    return {} if manifest is None else manifest.reasons


def _gates_page(workspace: Path) -> Path | None:
    """Writes the page of all gates. Returns its path, or None on an error, which must not hide a failed gate."""
    from seedling.report.gates_page import write_gates_page

    try:
        return write_gates_page(workspace).relative_to(workspace)
    except Exception as error:  # noqa: BLE001  (the page also shows older results, which may be damaged)
        print(printable(f"The page of the gates could not be written: {error}", keep="\n"), file=sys.stderr)
        return None


def gate_changed(stage: Stage, workspace: Path, inputs: Path | None = None) -> bool:
    """Whether the user's own expectations in the stage's gate have changed since the gate ran."""
    from seedling.gates.checking import user_expectations_changed

    return user_expectations_changed(inputs or workspace, workspace / stage.output)


def _skipped(stage: Stage, folder: Path) -> bool:
    if stage.kind == "train":
        return not (folder / MODEL).exists()
    manifest = read_manifest_if_any(folder) if stage.kind == "pseudo_label" else None
    return manifest is not None and manifest.is_skipped


def _publish(partial: Path, output: Path, *, whole: bool) -> None:
    """Moves the output to its place: as a whole folder by a rename, or, for the reports, file by file."""
    if not whole:
        output.mkdir(parents=True, exist_ok=True)
        for item in sorted(partial.iterdir()):
            _publish(item, output / item.name, whole=True)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.is_dir():
        partial.replace(output)
        return
    old = partial.with_name(f"{partial.name}{OLD}")  # _recover_from_kill handles a kill between the two renames
    shutil.rmtree(old, ignore_errors=True)
    output.replace(old)
    partial.replace(output)
    shutil.rmtree(old)


def _recover_from_kill(partial: Path, output: Path) -> None:
    """Cleans up after a killed run: removes the partial output, and restores a generation that was moved aside."""
    shutil.rmtree(partial, ignore_errors=True)
    old = partial.with_name(f"{partial.name}{OLD}")
    if old.is_dir() and not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        old.replace(output)
    shutil.rmtree(old, ignore_errors=True)


def _stage_with_output(folder: str) -> str:
    stage_of_output = {stage.output: stage.name for stage in stages().values()}
    return stage_of_output.get(folder, "train@0")


def write_page(kind: str, workspace: Path) -> Path | None:
    """Writes the page of a stage: the data page for validate, the report and its cards for evaluate, else None."""
    from seedling.media.personal_data import personal_data_shown

    with personal_data_shown(load(workspace).reports.show_personal_data):
        return _write_page(kind, workspace)


def _write_page(kind: str, workspace: Path) -> Path | None:
    if kind == "validate":
        from seedling.report.data_page import write_data_page

        return write_data_page(workspace)
    if kind == "evaluate":
        from seedling.report.cards import write_cards
        from seedling.report.report import write_report

        write_cards(workspace)
        return write_report(workspace)
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one stage in the current folder. Exit code 0: done, 1: a gate failed, 2: bad input, 70: unexpected error."""
    parser = argparse.ArgumentParser(
        prog="python -m seedling.runner", description="Run one stage in the current workspace, without recording it."
    )
    parser.add_argument("stage", help=f"name of the stage: {', '.join(stages())}")
    name = parser.parse_args(arguments).stage
    try:
        stage = find_stage(name)
        with workspace_lock(Path.cwd()), terminal(stage.name) as progress:
            run_stage(stage, Path.cwd(), progress)
            write_page(stage.kind, Path.cwd())
    except Exception as error:  # noqa: BLE001  (an exit code of 1 would mean that a gate failed)
        seedling_error = faults.as_seedling_error(error, f"python -m seedling.runner {name}", Path.cwd())
        print(printable(str(seedling_error), keep="\n\t"), file=sys.stderr)
        sys.exit(seedling_error.exit_code)


if __name__ == "__main__":
    main()
