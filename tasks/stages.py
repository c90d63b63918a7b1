"""The one table of stages, and what running one means, whoever runs it: work, count, gate, publish.

python -m tasks.augment        # one stage in the current workspace; what dvc.yaml calls
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks import faults
from tasks.busy import workspace_lock
from tasks.errors import GateFailed, InputError, MissingGeneration, SeedlingError
from tasks.learners.device import release_freed_memory
from tasks.params import Params, load
from tasks.printable import printable
from tasks.progress import Progress, silent, terminal
from tasks.reading import read_json

Work = Callable[[Params, Path, Path, Path, Progress], None]  # params, workspace, data, output, progress

COLLECTED, VALIDATED = "generations/scrape", "generations/validate"
AUGMENTED, SYNTHESIZED = "generations/augment", "generations/synthesize"


@dataclass(frozen=True)
class Stage:
    """A stage: `name` as in dvc.yaml, the folders that it reads and the one that it writes, relative to the workspace."""

    name: str
    work: Work
    inputs: tuple[str, ...]
    output: str

    @property
    def kind(self) -> str:
        """The name without the round: room, section of params.yaml, list of gates.yaml."""
        return self.name.partition("@")[0]


def scrape(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """tasks/scrape on this workspace."""
    from tasks.scrape import scrape as work

    remembered = workspace / ".seedling" / "web"
    work(params.scrape, params.facts, data=data, output=output, remembered=remembered, progress=progress)


def validate(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """tasks/validate on this workspace."""
    from tasks.learners.saving import make_features
    from tasks.validate import validate as work

    work(
        params.validate_,
        params.facts,
        features=make_features(params.train.encoder, None, params.facts, workspace),
        collected=workspace / COLLECTED,
        output=output,
        progress=progress,
    )


def augment(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """tasks/augment on this workspace."""
    from tasks.augment import augment as work
    from tasks.learners.saving import make_features

    work(
        params.augment,
        params.facts,
        **_rows(workspace),
        output=output,
        data=data,
        features=make_features(params.train.encoder, None, params.facts, workspace),
        progress=progress,
    )


def synthesize(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """tasks/synthesize on this workspace."""
    from tasks.synthesize import synthesize as work

    work(params.synthesize, params.facts, **_rows(workspace), output=output, data=data, progress=progress)


def train(round_number: int) -> Work:
    """tasks/train on this workspace, for one round."""

    def run(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
        from tasks.train import Sources
        from tasks.train import train as work

        later = round_number > 0
        sources = Sources(
            **_rows(workspace),
            augmented=workspace / AUGMENTED,
            synthesized=workspace / SYNTHESIZED,
            pseudo_labels=workspace / f"generations/pseudo_label/{round_number}" if later else None,
            teacher=workspace / f"models/{round_number - 1}" if later else None,
        )
        work(
            params.train,
            params.facts,
            round_number=round_number,
            rounds=params.rounds,
            sources=sources,
            workspace=workspace,
            inputs=data.parent,
            output=output,
            progress=progress,
        )

    return run


def pseudo_label(round_number: int) -> Work:
    """tasks/pseudo_label on this workspace, for one round."""

    def run(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
        from tasks.pseudo_label import pseudo_label as work

        work(
            params.pseudo_label,
            params.facts,
            round_number=round_number,
            rounds=params.rounds,
            **_rows(workspace),
            teacher=workspace / f"models/{round_number - 1}",
            output=output,
            progress=progress,
        )

    return run


def evaluate(params: Params, workspace: Path, data: Path, output: Path, progress: Progress) -> None:
    """tasks/evaluate on this workspace."""
    from tasks.evaluate import evaluate as work

    work(
        params.evaluate,
        params.facts,
        **_rows(workspace),
        generations=workspace / "generations",
        models=workspace / "models",
        workspace=workspace,
        output=output,
        progress=progress,
    )


def _rows(workspace: Path) -> dict[str, Path]:
    return {"collected": workspace / COLLECTED, "validated": workspace / VALIDATED}


OLD = ".old"
ROUNDS = 3  # as many as dvc.yaml lists; params and effort may ask for fewer


def stages(rounds: int = ROUNDS) -> dict[str, Stage]:
    """The line in its order, by name."""
    rows, made = (COLLECTED, VALIDATED), (AUGMENTED, SYNTHESIZED)
    line = [
        Stage("scrape", scrape, ("data",), COLLECTED),
        Stage("validate", validate, (COLLECTED,), VALIDATED),
        Stage("augment", augment, ("data", *rows), AUGMENTED),
        Stage("synthesize", synthesize, ("data", *rows), SYNTHESIZED),
        Stage("train@0", train(0), (*rows, *made), "models/0"),
    ]
    for one in range(1, rounds + 1):
        teacher, labels = f"models/{one - 1}", f"generations/pseudo_label/{one}"
        line.append(Stage(f"pseudo_label@{one}", pseudo_label(one), (*rows, teacher), labels))
        line.append(Stage(f"train@{one}", train(one), (*rows, *made, labels, teacher), f"models/{one}"))
    line.append(Stage("evaluate", evaluate, ("generations", "models"), "reports"))
    return {stage.name: stage for stage in line}


def find(name: str) -> Stage:
    """The stage of this name. Raises InputError with the names that there are."""
    line = stages()
    if name not in line:
        raise InputError(f"There is no stage '{name}': the stages are {', '.join(line)}.")
    return line[name]


def run_stage(
    stage: Stage,
    workspace: Path,
    progress: Progress = silent,
    *,
    inputs: Path | None = None,
    same_rows: Callable[[Path, Path], bool] | None = None,
) -> bool:
    """Runs the stage's function, checks rows in = kept + rejected, runs the gate, and only then replaces its output.

    All is written beside the workspace's folders first, so a kill at any moment leaves the last whole generation.
    inputs: the folder that holds params.yaml, gates.yaml and data/, the workspace if None; a run passes its snapshot.
    same_rows: called with the new folder and the output; where it says yes, the output stays as it is.

    Returns whether the output was replaced.
    Raises GateFailed where a critical expectation failed: the rows are then in quarantine/.
    """
    inputs = inputs or workspace
    params = load(inputs)
    check_inputs(stage, workspace)
    partial = workspace / ".seedling" / "partial" / stage.name
    try:
        _tidy_after_a_kill(partial, workspace / stage.output)
        partial.mkdir(parents=True)
        stage.work(params, workspace, inputs / "data", partial, progress)
        if same_rows is not None and same_rows(partial, workspace / stage.output):
            return False
        progress("gate", 0, None)
        _check_rows(stage, partial, workspace)
        write_down = _pass_gate(stage, partial, workspace, inputs, params.max_megapixels)
        _publish(partial, workspace / stage.output, whole=stage.kind != "evaluate")
        write_down()
    except SeedlingError:
        raise
    except Exception as error:
        known = faults.explain(error, stage.output)
        if known is None:
            raise
        raise known from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        release_freed_memory()  # the next stage may run in this process
    return True


def work_ungated(stage: Stage, workspace: Path, progress: Progress = silent) -> None:
    """The stage's work alone, into its folder, which must not be there: what is tried for comparison is nobody's next generation."""
    check_inputs(stage, workspace)
    output = workspace / stage.output
    output.mkdir(parents=True)
    stage.work(load(workspace), workspace, workspace / "data", output, progress)


def check_inputs(stage: Stage, workspace: Path) -> None:
    """Raises MissingGeneration, which names the stage to run first, where one of the stage's folders is not there."""
    for folder in stage.inputs:
        if not (workspace / folder).exists() and folder != "data":
            raise MissingGeneration(folder, _maker_of(folder))


def _check_rows(stage: Stage, folder: Path, workspace: Path) -> None:
    from tasks.generation import check_counts, read_manifest, rows_on_disk

    if not stage.output.startswith("generations/"):
        return
    manifest = read_manifest(folder)
    check_counts(manifest, rows_on_disk(folder))
    given: int = manifest["rows"]["in"]  # for two stages it is known apart from what they say themselves
    if stage.kind == "validate":
        given = read_manifest(workspace / COLLECTED)["rows"]["kept"]
    elif stage.kind == "pseudo_label" and not manifest["notes"].get("skipped"):
        counts = read_manifest(workspace / VALIDATED)["counts"]
        given = sum(one["rows"] for one in counts if one["split"] == "pool")
    check_counts({**manifest, "rows": {**manifest["rows"], "in": given}})


def _pass_gate(stage: Stage, folder: Path, workspace: Path, inputs: Path, max_megapixels: float) -> Callable[[], None]:
    """Asks the gate; gives what is to be written down once the generation stands. Raises GateFailed where it says no."""
    from tasks.gates.asking import check, explain, load_gates, load_own, wanted_columns, write_checks, write_comparisons
    from tasks.gates.columns import gated_rows, offered, remember
    from tasks.gates.history import record_gate

    gates, memory = load_gates(inputs), workspace / ".seedling" / "gates" / f"{stage.name}.parquet"
    if _skipped(stage, folder):
        write_checks([], folder)  # the loop has stopped: there is nothing to judge
        return lambda: write_comparisons([], workspace, stage.name)
    wanted = wanted_columns(stage.name, gates)
    validated = None if stage.kind in {"scrape", "validate"} else workspace / VALIDATED
    rows = gated_rows(
        stage.name,
        folder,
        validated=validated,
        collected=workspace / COLLECTED,
        last=workspace / stage.output,
        memory=memory,
        wanted=wanted,
        max_megapixels=max_megapixels,
    )
    own, columns = load_own(inputs, gates), offered(stage.name, folder, validated)
    checks = check(stage.name, rows, gates, workspace / ".seedling", own, columns)
    write_checks(checks, folder)
    record_gate(workspace, stage.name, [asdict(one) for one in checks], own.meanings)
    page = _gates_page(workspace)
    if any(one.stops for one in checks):
        from tasks.generation import digest

        quarantine = workspace / "quarantine" / f"{stage.name}-{digest(folder)}"
        shutil.rmtree(quarantine, ignore_errors=True)
        quarantine.parent.mkdir(exist_ok=True)
        shutil.move(folder, quarantine)
        message = explain(stage.name, checks, quarantine.relative_to(workspace), page, _rejected(quarantine))
        raise GateFailed(message, [asdict(one) for one in checks])

    to_remember = folder.with_name(f"{folder.name}.memory")  # beside it until the generation stands
    to_remember.unlink(missing_ok=True)
    remember(rows, wanted, to_remember)

    def write_down() -> None:
        write_comparisons(checks, workspace, stage.name)
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.unlink(missing_ok=True)  # of a generation that no longer stands
        if to_remember.is_file():
            to_remember.replace(memory)

    return write_down


def _rejected(folder: Path) -> dict[str, int]:
    """Rows that the stage did not keep, by reason; none of a model."""
    found: dict[str, int] = _json(folder / "manifest.json", {}).get("reasons", {})
    return found


def _gates_page(workspace: Path) -> Path | None:
    """The page of all gates, written anew; None where it cannot be written, which must not hide a failed gate."""
    from tasks.evaluate.gates_page import write_gates_page

    try:
        return write_gates_page(workspace).relative_to(workspace)
    except Exception as error:  # noqa: BLE001  (the page is of older results too, and those may be damaged)
        print(printable(f"The page of the gates could not be written: {error}", keep="\n"), file=sys.stderr)
        return None


def gate_changed(stage: Stage, workspace: Path, inputs: Path | None = None) -> bool:
    """Whether the stage's gate would now be asked with other expectations of the user's own than when it was asked."""
    from tasks.gates.asking import asked_with_others

    return asked_with_others(inputs or workspace, workspace / stage.output)


def _skipped(stage: Stage, folder: Path) -> bool:
    if stage.kind == "train":
        return not (folder / "model.json").exists()
    return stage.kind == "pseudo_label" and bool(_json(folder / "manifest.json", {})["notes"].get("skipped"))


def _publish(partial: Path, output: Path, *, whole: bool) -> None:
    """Puts what was made in its place; a whole folder in one rename, the reports file by file."""
    if not whole:
        output.mkdir(parents=True, exist_ok=True)
        for made in sorted(partial.iterdir()):
            _publish(made, output / made.name, whole=True)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if not output.is_dir():
        partial.replace(output)
        return
    old = partial.with_name(f"{partial.name}{OLD}")  # aside first: two renames, and a kill between them is mended
    shutil.rmtree(old, ignore_errors=True)
    output.replace(old)
    partial.replace(output)
    shutil.rmtree(old)


def _tidy_after_a_kill(partial: Path, output: Path) -> None:
    """What a killed run left: half a stage goes; a whole generation that stood aside goes back to its place."""
    shutil.rmtree(partial, ignore_errors=True)
    old = partial.with_name(f"{partial.name}{OLD}")
    if old.is_dir() and not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        old.replace(output)
    shutil.rmtree(old, ignore_errors=True)


def _maker_of(folder: str) -> str:
    made = {stage.output: stage.name for stage in stages().values()}
    return made.get(folder, "train@0")


def write_page(kind: str, workspace: Path) -> Path | None:
    """The page that shows what the stage found, made anew: of validate the data page, of evaluate the report, with its cards; else None."""
    from tasks.personal_data import personal_data_shown

    with personal_data_shown(load(workspace).reports.show_personal_data):
        return _write_page(kind, workspace)


def _write_page(kind: str, workspace: Path) -> Path | None:
    if kind == "validate":
        from tasks.evaluate.data_page import write_data_page

        return write_data_page(workspace)
    if kind == "evaluate":
        from tasks.evaluate.cards import write_cards
        from tasks.evaluate.report import write_report

        write_cards(workspace)
        return write_report(workspace)
    return None


def _json(path: Path, default: Any) -> Any:
    return read_json(path) if path.is_file() else default


def main(kind: str) -> None:
    """Runs one stage in the current folder; exit code 0 done, 1 a gate failed, 2 bad input, 70 an unknown error."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tasks.{kind}", description=f"Runs the stage '{kind}' in this workspace."
    )
    if kind in {"train", "pseudo_label"}:
        parser.add_argument(
            "--round", type=int, required=True, help="the round, from 0 for train, from 1 for pseudo_label"
        )
    given = parser.parse_args()
    stage = find(f"{kind}@{given.round}" if "round" in given else kind)
    try:
        with workspace_lock(Path.cwd()), terminal(stage.name) as progress:
            run_stage(stage, Path.cwd(), progress)
            write_page(stage.kind, Path.cwd())
    except Exception as error:  # noqa: BLE001  (an exit code of 1 would mean that a gate failed)
        known = faults.as_seedling_error(error, f"python -m tasks.{kind}", Path.cwd())
        print(printable(str(known), keep="\n\t"), file=sys.stderr)
        sys.exit(known.exit_code)
