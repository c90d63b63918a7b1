"""`seedling ablate`: measures what each step of the data work contributes, by running the pipeline without it.

Each variant is a separate workspace below .seedling/ablation. Outputs that the variant does not change are links to the
existing ones. All variants are evaluated on the same cross-validated rows, with paired differences. The test split is
not used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from seedling.augment import augmentations_per_row
from seedling.config.params import Params, load, set_value
from seedling.dataset.generation import Row, digest, read_manifest, rewrite
from seedling.dataset.schema import HUMAN_SOURCES
from seedling.errors import DamagedFile, InputError, SeedlingError
from seedling.evaluate import out_of_fold, read_decisions
from seedling.features.encoder_handle import encoder_of
from seedling.files.reading import read_frame
from seedling.lock import workspace_lock
from seedling.models.losses import MIXIN
from seedling.pipeline import AUGMENTED, VALIDATED, Stage, stages
from seedling.progress import Progress, terminal
from seedling.records.ablation import AblationRecord, BarKind, BarRecord
from seedling.records.candidates import CandidatesRecord
from seedling.records.decision import DecisionRecord
from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.manifest import read_notes
from seedling.records.results import read_evaluation_summary
from seedling.records.run_records import read_run_records
from seedling.records.stage_notes import AugmentNotes, ValidateNotes
from seedling.runner import run_without_gate, write_page
from seedling.stats.randomness import generator
from seedling.stats.statistics import log_loss_of_rows, paired_difference, share
from seedling.synthesize import IMAGE_METHODS
from seedling.terminal.console import PrintableConsole
from seedling.versioning.ledger import open_ledger
from seedling.workspace import CANDIDATES, DECISION, Workspace

REPAIRS = ("drop", "relabel", "down-weight")
NO_AUGMENTED_ROWS = ((("augment", "augmentations_per_row"), "0"), (("augment", "adversarial"), "0"))
NO_SYNTHETIC_ROWS = (
    *((("synthesize", param), "0") for param in IMAGE_METHODS),
    (("synthesize", "templates"), "[]"),
)


@dataclass(frozen=True)
class Step:
    """A step of the pipeline and how a variant changes it.

    params: keys and JSON values to set in params.yaml; weak: whether the variant drops the weak labels.
    """

    name: str
    section: str
    params: tuple[tuple[tuple[str, ...], str], ...] = ()
    weak: bool = False


@dataclass(frozen=True)
class Variant:
    """The pipeline with some steps changed. rounds: maximum number of pseudo-label rounds."""

    name: str
    changes: tuple[Step, ...]
    rounds: int

    @property
    def sections(self) -> set[str]:
        """The sections of params.yaml whose stages must be rerun."""
        return {step.section for step in self.changes}


@dataclass(frozen=True)
class Bar:
    """A variant and the one it is compared with.

    kind: `added` to the previous steps, `left_out` of the full pipeline, or `on_top` of it.
    """

    step: str
    kind: BarKind
    old: Variant
    new: Variant


def ablate(workspace: Path, minutes: float) -> None:
    """Runs the missing variants within the time limit, prints the bars, writes reports/ablation.json and the report.

    The cumulative variants are run first. Raises InputError if the pipeline is not up to date, or no labeled row can be
    held out.
    """
    paths = Workspace(workspace)
    params = load(workspace)
    if read_evaluation_summary(paths.reports) is None:
        raise InputError(f"{workspace} contains no report yet: run `seedling run` first.")
    if stale := open_ledger(workspace).states():
        raise InputError(
            f"{', '.join(sorted(stale))} changed since the last run: run `seedling run` first, so that the "
            "comparison is fair."
        )
    console, start = PrintableConsole(), time.monotonic()
    with workspace_lock(workspace):
        bars = plan_bars(workspace, params)
        if not bars:
            raise InputError("There is no step to leave out: this pipeline neither changes labels nor adds rows.")
        shutil.rmtree(paths.ablation_variant, ignore_errors=True)  # left by a call that was killed
        if _out_of_fold_rows(workspace, _accepted(workspace, 0)).empty:
            raise InputError(
                "No labeled row can be held out, so nothing can be compared: label a second row of some classes."
            )
        accepted_round = read_decisions(paths.models)[-1].accepted_round
        model_digest = digest(paths.model(accepted_round))
        record = _run_variants(workspace, params, bars, start + 60 * minutes, model_digest)
        record.write(paths.ablation_file)
        write_page("evaluate", workspace)
    _show(console, record, workspace)


def _run_variants(
    workspace: Path, params: Params, bars: Sequence[Bar], deadline: float, model_digest: str
) -> AblationRecord:
    """The comparison of all variants that finish before the deadline, a value of time.monotonic()."""
    rows_of_variant: dict[Variant, pd.DataFrame] = {}
    not_tried: list[str] = []
    failed: dict[str, str] = {}
    variants = list(dict.fromkeys(variant for bar in bars for variant in (bar.old, bar.new)))
    with terminal("ablate") as progress:
        for index, variant in enumerate(variants):
            progress(variant.name, index, len(variants))
            if not sys.stderr.isatty():  # no progress bar is drawn
                print(f"{index + 1} of {len(variants)}: {variant.name}", file=sys.stderr, flush=True)
            try:
                rows = _evaluation_rows(workspace, params, variant, deadline - time.monotonic(), progress)
            except SeedlingError as error:  # such as a template whose class has only weak labels
                failed[variant.name] = str(error)
                continue
            if rows is None:
                not_tried.append(variant.name)
            else:
                rows_of_variant[variant] = rows
    start = start_of(bars)
    return AblationRecord(
        start=start.name if start else None,
        accuracy_at_start=accuracy_of(rows_of_variant.get(start), params) if start else None,
        bars=compare_bars(bars, rows_of_variant, params),
        not_tried=tuple(not_tried),
        failed=failed,
        model=model_digest,
    )


def steps_of(workspace: Path, params: Params) -> list[Step]:
    """The steps of this pipeline that can be left out, in order, without the pseudo-label rounds."""
    manifest = read_manifest(workspace / VALIDATED)
    training_counts = [count for count in manifest.counts if count.split == "train" and count.label is not None]
    sources = {count.label_source for count in training_counts}
    steps = []
    if any(str(source).startswith("weak") for source in sources) and sources & HUMAN_SOURCES:
        steps.append(Step("weak labels", "scrape", weak=True))
    if params.validate_.label_issues in REPAIRS:
        steps.append(Step("repair", "validate", ((("validate", "label_issues"), '"report"'),)))
    labeled = sum(count.rows for count in training_counts)
    if augmentations_per_row(labeled, params.augment, params.config) or params.augment.adversarial:
        steps.append(Step("augment", "augment", NO_AUGMENTED_ROWS))
    if read_manifest(Workspace(workspace).generation("synthesize")).rows.kept:
        steps.append(Step("synthesize", "synthesize", NO_SYNTHETIC_ROWS))
    candidates = CandidatesRecord.read(Workspace(workspace).model(0) / CANDIDATES).candidates
    if any(candidate.loss == MIXIN for candidate in candidates):
        steps.append(Step("mix-in", "train", ((("train", "mixin"), "false"),)))
    return steps


def plan_bars(workspace: Path, params: Params) -> list[Bar]:
    """All bars, in this order.

    Each step added to the previous ones; each round; each step left out of the full pipeline; each augmentation
    operation left out; each repair of labels on top.
    """
    steps, round_decisions = steps_of(workspace, params), read_decisions(Workspace(workspace).models)
    rounds = sum(round_decision.decision != "skipped" for round_decision in round_decisions) - 1
    bars, full = _added_bars(steps, rounds)
    bars += [_left_out_bar(step, full, rounds) for step in steps]
    if rounds > 1:
        bars.append(Bar("all rounds", "left_out", Variant("all but pseudo-labels", (), 0), full))
    bars += [_left_out_bar(step, full, rounds) for step in _operations(workspace, steps)]
    label_issues = read_notes(workspace / VALIDATED, ValidateNotes).estimated_issues
    if params.validate_.label_issues == "report" and label_issues is not None and label_issues.flagged:
        for policy in REPAIRS:
            step = Step(f"repair: {policy}", "validate", ((("validate", "label_issues"), json.dumps(policy)),))
            bars.append(Bar(step.name, "on_top", full, Variant(f"with repair: {policy}", (step,), rounds)))
    return bars


def _added_bars(steps: Sequence[Step], rounds: int) -> tuple[list[Bar], Variant]:
    """The bars of the steps and rounds, each added to the previous ones, and the variant with all of them."""
    bars = []
    before = Variant("labels alone", tuple(steps), 0) if steps else Variant("all but pseudo-labels", (), 0)
    for index, step in enumerate(steps):
        missing = tuple(steps[index + 1 :])
        after = Variant(f"with {step.name}", missing, 0) if missing else Variant("all but pseudo-labels", (), 0)
        bars.append(Bar(step.name, "added", before, after))
        before = after
    for number in range(1, rounds + 1):
        after = Variant(f"with round {number}", (), number)
        bars.append(Bar(f"round {number}", "added", before, after))
        before = after
    return bars, before


def _left_out_bar(step: Step, full: Variant, rounds: int) -> Bar:
    return Bar(step.name, "left_out", Variant(f"without {step.name}", (step,), rounds), full)


def _operations(workspace: Path, steps: Sequence[Step]) -> list[Step]:
    """One step per operation of the augmentation policy that was applied, if there are several."""
    if not any(step.name == "augment" for step in steps):
        return []
    policy = read_notes(workspace / AUGMENTED, AugmentNotes).policy
    operations = []
    for index, entry in enumerate(policy):
        others = policy[:index] + policy[index + 1 :]
        (name,) = entry
        n_earlier = sum(name in earlier for earlier in policy[:index])
        unique_name = f"{name} {n_earlier + 1}" if n_earlier else name
        operations.append(Step(f"augment: {unique_name}", "augment", ((("augment", "policy"), json.dumps(others)),)))
    return operations if len(operations) > 1 else []


def _evaluation_rows(
    workspace: Path, params: Params, variant: Variant, seconds: float, progress: Progress
) -> pd.DataFrame | None:
    """The variant's out-of-fold results on the human-labeled rows.

    They are read from the workspace or from an earlier call, or the variant is run. None if a run is predicted to take
    more than `seconds`.
    """
    if not variant.changes:
        return _out_of_fold_rows(workspace, _accepted(workspace, variant.rounds))
    saved = Workspace(workspace).ablation_rows(_key(workspace, params, variant))
    if saved.is_file():
        with suppress(DamagedFile, OSError):  # a truncated file is ignored
            return read_frame(saved)
    if predicted_seconds(workspace, variant) > seconds:
        return None
    running = Workspace(workspace).ablation_variant
    shutil.rmtree(running, ignore_errors=True)
    try:
        _prepare(workspace, running, variant)
        for stage in _stages_to_run(variant):
            if stage.kind == "scrape":
                rewrite(workspace / stage.output, running / stage.output, _without_weak_label)
            else:
                run_without_gate(
                    stage,
                    running,
                    _with_prefix(progress, f"{variant.name}: {stage.name}"),
                    encoder=encoder_of(params, workspace),
                )
        rows = _out_of_fold_rows(running, _accepted(running, variant.rounds))
    finally:
        shutil.rmtree(running, ignore_errors=True)
    partial = saved.with_suffix(".new")
    rows.to_parquet(partial)
    partial.replace(saved)
    return rows


def _with_prefix(progress: Progress, prefix: str) -> Progress:
    return lambda what, done, total: progress(f"{prefix}: {what}", done, total)


def _stages_to_run(variant: Variant) -> list[Stage]:
    """The stages of the changed sections and all stages that read their outputs, in pipeline order.

    No site is visited: in scrape, only the weak labels change.
    """
    outputs: set[str] = set()
    stages_to_run = []
    for stage in stages(variant.rounds).values():
        if stage.kind != "evaluate" and (stage.kind in variant.sections or outputs & set(stage.inputs)):
            stages_to_run.append(stage)
            outputs.add(stage.output)
    return stages_to_run


def _prepare(workspace: Path, running: Path, variant: Variant) -> None:
    """Writes the variant's params.yaml and reviews, and links the outputs that it does not change."""
    running.mkdir(parents=True)
    shutil.copy(Workspace(workspace).params_file, Workspace(running).params_file)
    if Workspace(workspace).reviews.is_dir():
        shutil.copytree(Workspace(workspace).reviews, Workspace(running).reviews)
    for step in variant.changes:
        for keys, value in step.params:
            set_value(running, keys, json.loads(value))
    new_outputs = {stage.output for stage in _stages_to_run(variant)}
    for stage in stages(variant.rounds).values():
        if stage.output not in new_outputs and stage.kind != "evaluate" and (workspace / stage.output).is_dir():
            _link(running / stage.output, workspace / stage.output)


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target.resolve(), target_is_directory=True)


def _without_weak_label(row: Row) -> Row:
    """The row as if no label rule had voted on it."""
    if row.split != "train" or not str(row.label_source).startswith("weak"):
        return row
    return replace(row, split="pool", label=None, label_probs=None, label_source=None, weight=1.0)


def _accepted(workspace: Path, rounds: int) -> Path:
    """The folder of the model that is accepted after this number of rounds."""
    round_decision = DecisionRecord.read(Workspace(workspace).model(rounds) / DECISION)
    return Workspace(workspace).model(round_decision.accepted_round)


def _out_of_fold_rows(workspace: Path, model: Path) -> pd.DataFrame:
    scored = out_of_fold(model, workspace / VALIDATED, list(read_manifest(workspace / VALIDATED).classes))
    return pd.DataFrame(
        {
            "id": scored.frame["id"],
            "label": scored.frame["label"],
            "group": scored.groups,
            "right": scored.right.astype(np.float64),
            "log_loss": log_loss_of_rows(scored.probabilities, scored.truth),
        }
    )


def _key(workspace: Path, params: Params, variant: Variant) -> str:
    """Hash of the inputs of a variant: the collected rows, the encoder, params, and the changes."""
    parts = [params.model_dump_json(exclude={"evaluate"}), repr((variant.changes, variant.rounds))]
    if (encoder := encoder_of(params, workspace)) is not None:
        parts.append(encoder.digest)
    parts.append(digest(Workspace(workspace).generation("scrape")))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()


def predicted_seconds(workspace: Path, variant: Variant) -> float:
    """Sum of the variant's stages' seconds in their last runs here; unknown ones count as 0."""
    seconds: dict[str, float] = {}
    for run in read_run_records(workspace):
        seconds |= {stage.stage: stage.seconds for stage in run.stages if stage.how == "done"}
    return sum(seconds.get(stage.name, 0.0) for stage in _stages_to_run(variant))


def compare_bars(
    bars: Sequence[Bar], rows_of_variant: Mapping[Variant, pd.DataFrame], params: Params
) -> tuple[BarRecord, ...]:
    """The bars whose variants were both run: paired differences of accuracy and log-loss, new minus old.

    Differences are on the rows that both variants were evaluated on.
    """
    return tuple(
        result
        for bar in bars
        if bar.old in rows_of_variant
        and bar.new in rows_of_variant
        and (result := _compare_bar(bar, rows_of_variant[bar.old], rows_of_variant[bar.new], params)) is not None
    )


def start_of(bars: Sequence[Bar]) -> Variant | None:
    """The variant that the first step is added to; None if no step is added."""
    return next((bar.old for bar in bars if bar.kind == "added"), None)


def accuracy_of(rows: pd.DataFrame | None, params: Params) -> EstimateRecord | None:
    """The accuracy of a variant; None if it was not run, or has no evaluation rows."""
    if rows is None or not len(rows):
        return None
    groups = rows["group"].to_numpy(dtype=str)
    return EstimateRecord.of(share(rows["right"].to_numpy() > 0, groups, params.evaluate.confidence))


def _compare_bar(bar: Bar, old: pd.DataFrame, new: pd.DataFrame, params: Params) -> BarRecord | None:
    both = old.merge(new, on=["id", "label"], suffixes=("_old", "_new")).sort_values("id")
    if both.empty:
        return None

    def difference(metric: str, *, larger_is_better: bool, wrong: float) -> DifferenceRecord:
        paired = paired_difference(
            both[f"{metric}_old"].to_numpy(),
            both[f"{metric}_new"].to_numpy(),
            both["group_old"].to_numpy(dtype=str),
            larger_is_better=larger_is_better,
            draws=params.evaluate.bootstrap_draws,
            confidence=params.evaluate.confidence,
            rng=generator(params.seed, "ablate"),  # the same draws for each bar
            wrong=wrong,
        )
        return DifferenceRecord.of(paired)

    return BarRecord(
        step=bar.step,
        kind=bar.kind,
        rows=len(both),
        before=round(float(both["right_old"].mean()), 6),
        after=round(float(both["right_new"].mean()), 6),
        accuracy=difference("right", larger_is_better=True, wrong=1.0),
        log_loss=difference("log_loss", larger_is_better=False, wrong=0.0),
    )


def _show(console: PrintableConsole, ablation: AblationRecord, workspace: Path) -> None:
    console.print(_table(ablation))
    for name, error in ablation.failed.items():
        console.print(f"Failed: {name}: {error}", style="yellow", markup=False, soft_wrap=True)
    console.print(
        "Accuracy without and with the step, on the cross-validated rows of both variants (a repair removes some).\n"
        "Points: accuracy with the step minus accuracy without it; a negative log-loss is better. Each variant\n"
        "selects its own model on these rows. The test split is not used.",
        style="dim",
    )
    if ablation.not_tried:
        console.print(
            f"Not tried within the time limit: {', '.join(ablation.not_tried)} "
            "(--minutes; finished variants are kept).",
            style="yellow",
        )
    console.print(f"Report: {Workspace(workspace).report_page}", highlight=False, soft_wrap=True)


def _table(ablation: AblationRecord) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("step", "how", "without", "with", "points", "log-loss", "rows"):
        table.add_column(
            name, header_style="dim", overflow="fold", justify="left" if name in {"step", "how"} else "right"
        )
    if ablation.accuracy_at_start:
        table.add_row(ablation.start, "", "", f"{ablation.accuracy_at_start.value:.3f}")
    how = {"added": "added", "left_out": "left out of all", "on_top": "on top of all"}
    for bar in ablation.bars:
        points = bar.accuracy
        style = "green" if points.low > 0 else "red" if points.high < 0 else ""
        difference = f"{100 * points.value:+.1f} [{100 * points.low:+.1f}, {100 * points.high:+.1f}]"
        table.add_row(
            bar.step,
            how[bar.kind],
            f"{bar.before:.3f}",
            f"{bar.after:.3f}",
            Text(difference, style=style),
            f"{bar.log_loss.value:+.3f}",
            f"{bar.rows:,}",
        )
    return table
