"""`seedling ablate`: what each step of the data work contributed, by running the line without it.

Each variant is a workspace of its own below .seedling/ablation, in which whatever the change leaves alone is a link to what is
there already. All are judged on the same cross-validated rows, paired; the test split is not looked at.
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
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from seedling.augment import augmentations_per_row
from seedling.config.params import Params, load, set_value
from seedling.dataset.generation import Row, digest, read_manifest, rewritten, write_json
from seedling.errors import DamagedFile, InputError, SeedlingError
from seedling.evaluate import out_of_fold, read_decisions
from seedling.features.encoder_handle import encoder_of
from seedling.files.reading import read_frame, read_json
from seedling.lock import workspace_lock
from seedling.models.losses import MIXIN
from seedling.pipeline import AUGMENTED, VALIDATED, Stage, stages
from seedling.progress import Progress, terminal
from seedling.records.results import read_decision, read_evaluation
from seedling.records.run_history import runs
from seedling.runner import work_ungated, write_page
from seedling.stats.randomness import generator
from seedling.stats.statistics import log_loss_of_rows, paired_difference, share
from seedling.synthesize import IMAGE_METHODS
from seedling.terminal.console import PrintableConsole
from seedling.versioning.ledger import open_ledger

PLACE, RUNNING, RESULT = Path(".seedling", "ablation"), "running", Path("reports", "ablation.json")
REPAIRS = ("drop", "relabel", "down-weight")
NO_CHILDREN = ((("augment", "augmentations_per_row"), "0"), (("augment", "adversarial"), "0"))
NOTHING_NEW = (
    *((("synthesize", method), "0") for method in IMAGE_METHODS),
    (("synthesize", "templates"), "[]"),
)


@dataclass(frozen=True)
class Step:
    """A step of the line, and how it is left out, or another put in: what params.yaml then says (keys and JSON), or that weak labels are gone."""

    name: str
    section: str
    params: tuple[tuple[tuple[str, ...], str], ...] = ()
    weak: bool = False


@dataclass(frozen=True)
class Variant:
    """The line with some steps changed. rounds: of pseudo-labels, at most."""

    name: str
    changes: tuple[Step, ...]
    rounds: int

    @property
    def sections(self) -> set[str]:
        """Of params.yaml, whose stages and all behind them are run anew."""
        return {one.section for one in self.changes}


@dataclass(frozen=True)
class Bar:
    """A variant beside what it is compared with: `added` to the steps before it, `left out` of all, or `tried` on top of all."""

    step: str
    kind: str
    old: Variant
    new: Variant


def ablate(workspace: Path, minutes: float) -> None:
    """Runs what is not known yet, the cumulative variants first, as far as the minutes go; prints the bars, writes reports/ablation.json
    and the report. Raises InputError where the line is not up to date, or no labeled row can be held out.
    """
    params = load(workspace)
    if read_evaluation(workspace / "reports") is None:
        raise InputError(f"{workspace} holds no report yet: `seedling run` first.")
    if stale := open_ledger(workspace).states():
        raise InputError(
            f"{', '.join(sorted(stale))} changed since the last run: `seedling run` first, so that like is compared with like."
        )
    console, began = PrintableConsole(), time.monotonic()
    with workspace_lock(workspace):
        bars = planned(workspace, params)
        if not bars:
            raise InputError("There is no step to leave out: this line neither changes labels nor adds rows.")
        shutil.rmtree(workspace / PLACE / RUNNING, ignore_errors=True)  # of a call that was killed
        said: dict[Variant, pd.DataFrame] = {}
        not_tried: list[str] = []
        failed: dict[str, str] = {}
        if _said(workspace, _accepted(workspace, 0)).empty:
            raise InputError(
                "No labeled row can be held out, so nothing can be compared: label a second row of some classes."
            )
        wanted = list(dict.fromkeys(variant for bar in bars for variant in (bar.old, bar.new)))
        with terminal("ablate") as progress:
            for place, variant in enumerate(wanted):
                progress(variant.name, place, len(wanted))
                if not sys.stderr.isatty():  # where no bar is drawn
                    print(f"{place + 1} of {len(wanted)}: {variant.name}", file=sys.stderr, flush=True)
                left = 60 * minutes - (time.monotonic() - began)
                try:
                    found = _asked(workspace, params, variant, left, progress)
                except SeedlingError as error:  # such as a template whose class only weak labels have
                    failed[variant.name] = str(error)
                    continue
                if found is None:
                    not_tried.append(variant.name)
                else:
                    said[variant] = found
        result = {**compared(bars, said, params, not_tried), "failed": failed}
        accepted = str(read_decisions(workspace / "models")[-1]["accepted_round"])
        write_json(workspace / RESULT, {**result, "model": digest(workspace / "models" / accepted)})
        write_page("evaluate", workspace)
    _show(console, result, workspace)


def steps_of(workspace: Path, params: Params) -> list[Step]:
    """The steps that this line has, in its order, without the rounds."""
    manifest = read_manifest(workspace / VALIDATED)
    sources = {
        one["label_source"] for one in manifest["counts"] if one["split"] == "train" and one["label"] is not None
    }
    found = []
    if any(str(one).startswith("weak") for one in sources) and "human" in sources:
        found.append(Step("weak labels", "scrape", weak=True))
    if params.validate_.label_issues in REPAIRS:
        found.append(Step("repair", "validate", ((("validate", "label_issues"), '"report"'),)))
    labeled = sum(one["rows"] for one in manifest["counts"] if one["split"] == "train" and one["label"] is not None)
    if augmentations_per_row(labeled, params.augment, params.facts) or params.augment.adversarial:
        found.append(Step("augment", "augment", NO_CHILDREN))
    made = workspace / "generations" / "synthesize"
    if read_manifest(made)["rows"]["kept"]:
        found.append(Step("synthesize", "synthesize", NOTHING_NEW))
    tried = read_json(workspace / "models" / "0" / "candidates.json")["tried"]
    if any(one["loss"] == MIXIN for one in tried):
        found.append(Step("mix-in", "train", ((("train", "mixin"), "false"),)))
    return found


def planned(workspace: Path, params: Params) -> list[Bar]:
    """The bars: each step added to those before it; the rounds; each step left out of all; each augmentation left out; repairs on top."""
    steps, round_decisions = steps_of(workspace, params), read_decisions(workspace / "models")
    rounds = sum(one["decision"] != "skipped" for one in round_decisions) - 1
    bars = []
    before = Variant("labels alone", tuple(steps), 0) if steps else Variant("all but pseudo-labels", (), 0)
    for place, step in enumerate(steps):
        missing = tuple(steps[place + 1 :])
        after = Variant(f"with {step.name}", missing, 0) if missing else Variant("all but pseudo-labels", (), 0)
        bars.append(Bar(step.name, "added", before, after))
        before = after
    for number in range(1, rounds + 1):
        after = Variant(f"with round {number}", (), number)
        bars.append(Bar(f"round {number}", "added", before, after))
        before = after
    whole = before
    bars += [Bar(one.name, "left out", Variant(f"without {one.name}", (one,), rounds), whole) for one in steps]
    if rounds > 1:
        bars.append(Bar("all rounds", "left out", Variant("all but pseudo-labels", (), 0), whole))
    bars += [
        Bar(one.name, "left out", Variant(f"without {one.name}", (one,), rounds), whole)
        for one in _operations(workspace, steps)
    ]
    if params.validate_.label_issues == "report" and read_manifest(workspace / VALIDATED)["notes"].get("doubt", {}).get(
        "flagged"
    ):
        for policy in REPAIRS:
            step = Step(f"repair: {policy}", "validate", ((("validate", "label_issues"), json.dumps(policy)),))
            bars.append(Bar(step.name, "tried", whole, Variant(f"with repair: {policy}", (step,), rounds)))
    return bars


def _operations(workspace: Path, steps: Sequence[Step]) -> list[Step]:
    """Each operation of the augmentation, as it was carried out, where there are several."""
    if not any(one.name == "augment" for one in steps):
        return []
    policy = read_manifest(workspace / AUGMENTED)["notes"].get("policy", [])
    found = []
    for mine, entry in enumerate(policy):
        rest = [other for place, other in enumerate(policy) if place != mine]
        (name,) = entry
        alike = sum(name in other for other in policy[:mine])
        shown = f"{name} {alike + 1}" if alike else name
        found.append(Step(f"augment: {shown}", "augment", ((("augment", "policy"), json.dumps(rest)),)))
    return found if len(found) > 1 else []


def _asked(
    workspace: Path, params: Params, variant: Variant, seconds: float, progress: Progress
) -> pd.DataFrame | None:
    """What the variant's models say of the rows that people labeled: from the workspace, from an earlier call, or by a run; None where that
    would take longer than the seconds that are left.
    """
    if not variant.changes:
        return _said(workspace, _accepted(workspace, variant.rounds))
    kept = workspace / PLACE / f"{_key(workspace, params, variant)}.parquet"
    if kept.is_file():
        with suppress(DamagedFile, OSError):  # a file cut short counts for nothing
            return read_frame(kept)
    if predicted_seconds(workspace, variant) > seconds:
        return None
    place = workspace / PLACE / RUNNING
    shutil.rmtree(place, ignore_errors=True)
    try:
        _prepare(workspace, place, variant)
        for stage in _changed(variant):
            if stage.kind == "scrape":
                rewritten(workspace / stage.output, place / stage.output, _without_weak_label)
            else:
                work_ungated(
                    stage,
                    place,
                    _named(progress, f"{variant.name}: {stage.name}"),
                    encoder=encoder_of(params, workspace),
                )
        found = _said(place, _accepted(place, variant.rounds))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    beside = kept.with_suffix(".new")
    found.to_parquet(beside)
    beside.replace(kept)
    return found


def _named(progress: Progress, name: str) -> Progress:
    return lambda what, done, total: progress(f"{name}: {what}", done, total)


def _changed(variant: Variant) -> list[Stage]:
    """The stages to run, in the line's order: those of a changed section, and all that read what they write. No site is visited: of scrape the
    weak labels alone change.
    """
    outputs: set[str] = set()
    found = []
    for stage in stages(variant.rounds).values():
        if stage.kind != "evaluate" and (stage.kind in variant.sections or outputs & set(stage.inputs)):
            found.append(stage)
            outputs.add(stage.output)
    return found


def _prepare(workspace: Path, place: Path, variant: Variant) -> None:
    place.mkdir(parents=True)
    shutil.copy(workspace / "params.yaml", place / "params.yaml")
    for step in variant.changes:
        for keys, value in step.params:
            set_value(place, keys, json.loads(value))
    anew = {stage.output for stage in _changed(variant)}
    for stage in stages(variant.rounds).values():
        if stage.output not in anew and stage.kind != "evaluate" and (workspace / stage.output).is_dir():
            _link(place / stage.output, workspace / stage.output)


def _link(place: Path, to: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(to.resolve(), target_is_directory=True)


def _without_weak_label(row: Row) -> Row:
    """The row as it would have been collected had no rule spoken."""
    if row.split != "train" or not str(row.label_source).startswith("weak"):
        return row
    return replace(row, split="pool", label=None, label_probs=None, label_source=None, weight=1.0)


def _accepted(workspace: Path, rounds: int) -> Path:
    """The model that the loop holds after so many rounds."""
    round_decision = read_decision(workspace / "models" / str(rounds) / "decision.json")
    return workspace / "models" / str(round_decision["accepted_round"])


def _said(workspace: Path, model: Path) -> pd.DataFrame:
    scored = out_of_fold(model, workspace / VALIDATED, read_manifest(workspace / VALIDATED)["classes"])
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
    """What the variant's answer depends on: the collected rows, the encoder, params, and what is left out."""
    parts = [params.model_dump_json(exclude={"evaluate"}), repr((variant.changes, variant.rounds))]
    if (encoder := encoder_of(params, workspace)) is not None:
        parts.append(encoder.digest)
    parts.append(digest(workspace / "generations" / "scrape"))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()


def predicted_seconds(workspace: Path, variant: Variant) -> float:
    """What the variant's stages took when they last ran here; 0 where nobody knows."""
    took: dict[str, float] = {}
    for run in runs(workspace):
        took |= {one["stage"]: one["seconds"] for one in run.record["stages"] if one["how"] == "done"}
    return sum(took.get(stage.name, 0.0) for stage in _changed(variant))


def compared(
    bars: Sequence[Bar], said: Mapping[Variant, pd.DataFrame], params: Params, not_tried: Sequence[str]
) -> dict[str, Any]:
    """Each bar that both sides are known of: paired differences of accuracy and log-loss, new less old, on the rows that both judged."""
    found = []
    for bar in bars:
        if bar.old not in said or bar.new not in said:
            continue
        both = said[bar.old].merge(said[bar.new], on=["id", "label"], suffixes=("_old", "_new")).sort_values("id")
        if both.empty:
            continue
        differences = {}
        for metric, larger in (("right", True), ("log_loss", False)):
            differences[metric] = paired_difference(
                both[f"{metric}_old"].to_numpy(),
                both[f"{metric}_new"].to_numpy(),
                both["group_old"].to_numpy(dtype=str),
                larger_is_better=larger,
                draws=params.evaluate.bootstrap_draws,
                confidence=params.evaluate.confidence,
                rng=generator(params.seed, "ablate"),  # the same draws for each
                wrong=1.0 if metric == "right" else 0.0,
            ).rounded()
        found.append(
            {
                "step": bar.step,
                "kind": bar.kind,
                "rows": len(both),
                "before": round(float(both["right_old"].mean()), 6),
                "after": round(float(both["right_new"].mean()), 6),
                "accuracy": differences["right"],
                "log_loss": differences["log_loss"],
            }
        )
    start = next((bar.old for bar in bars if bar.kind == "added"), None)
    first = said.get(start) if start is not None else None
    base = None
    if first is not None and len(first):
        groups = first["group"].to_numpy(dtype=str)
        base = share(first["right"].to_numpy() > 0, groups, params.evaluate.confidence).rounded()
    return {
        "start": None if start is None else start.name,
        "accuracy_at_start": base,
        "bars": found,
        "not_tried": list(not_tried),
    }


def _show(console: PrintableConsole, result: Mapping[str, Any], workspace: Path) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("step", "how", "without", "with", "points", "log-loss", "rows"):
        table.add_column(
            name, header_style="dim", overflow="fold", justify="left" if name in {"step", "how"} else "right"
        )
    if result["accuracy_at_start"]:
        table.add_row(result["start"], "", "", f"{result['accuracy_at_start']['value']:.3f}")
    how = {"added": "added", "left out": "taken from the whole", "tried": "on top of the whole"}
    for one in result["bars"]:
        points = one["accuracy"]
        style = "green" if points["low"] > 0 else "red" if points["high"] < 0 else ""
        said = f"{100 * points['value']:+.1f} \\[{100 * points['low']:+.1f}, {100 * points['high']:+.1f}]"
        table.add_row(
            one["step"],
            how[one["kind"]],
            f"{one['before']:.3f}",
            f"{one['after']:.3f}",
            Text(said, style=style or ""),
            f"{one['log_loss']['value']:+.3f}",
            f"{one['rows']:,}",
        )
    console.print(table)
    for name, why in result["failed"].items():
        console.print(f"Could not be run: {name}: {why}", style="yellow", markup=False, soft_wrap=True)
    console.print(
        "Accuracy without the step and with it, on the cross-validated rows that both judged (a repair takes some away); points is with less without, and\n"
        "less log-loss is better. Each variant chose its own model on these rows. The test split was not looked at.",
        style="dim",
    )
    if result["not_tried"]:
        console.print(
            f"Not tried for want of time: {', '.join(result['not_tried'])} (--minutes; what was run is kept).",
            style="yellow",
        )
    console.print(f"Report: {workspace / 'reports' / 'report.html'}", highlight=False, soft_wrap=True)
