"""`seedling ablate`: which stages run again, how differences are computed, and that a variant equals a run of the
pipeline without the step.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from in_process import seedling
from manifests import write_manifest
from round_records import candidate, candidates_record
from services import BIN
from short_runs import set_params
from text_workspaces import call

from seedling.ablation import (
    NO_AUGMENTED_ROWS,
    NO_SYNTHETIC_ROWS,
    Bar,
    Step,
    Variant,
    _stages_to_run,
    _table,
    accuracy_of,
    compare_bars,
    start_of,
    steps_of,
)
from seedling.augment import augment
from seedling.config.params import (
    AugmentParams,
    Params,
    SynthesizeParams,
    ValidateParams,
    WorkspaceConfig,
    load,
    set_value,
)
from seedling.dataset.generation import read, read_manifest
from seedling.pipeline import stages
from seedling.records.ablation import AblationRecord
from seedling.records.manifest import LabelCount
from seedling.runner import run_stage, write_page
from seedling.scrape import scrape
from seedling.synthesize import synthesize
from seedling.terminal.console import PrintableConsole
from seedling.validate import validate

AUGMENT = Step("augment", "augment", ((("augment", "augmentations_per_row"), "0"),))
REPAIR = Step("repair", "validate", ((("validate", "label_issues"), '"report"'),))
PARAMS = Params.model_validate({"modality": "text", "scrape": {"sources": [{"kind": "folder"}]}})


def right_rows(right: list[float]) -> pd.DataFrame:
    """Rows a, b, c … each in a group of its own; the log-loss is 1 - right."""
    ids = [chr(ord("a") + index) for index in range(len(right))]
    return pd.DataFrame(
        {"id": ids, "label": "x", "group": ids, "right": right, "log_loss": [1 - right_value for right_value in right]}
    )


def test_only_stages_that_a_step_affects_run_again() -> None:
    """Without augmentation all stages before train are kept; another repair policy changes all but scrape; later rounds
    are not run.
    """
    names = [stage.name for stage in _stages_to_run(Variant("", (AUGMENT,), 1))]
    assert names == ["augment", "train@0", "pseudo_label@1", "train@1"]
    assert [stage.name for stage in _stages_to_run(Variant("", (REPAIR,), 0))] == [
        "validate",
        "augment",
        "synthesize",
        "train@0",
    ]
    assert _stages_to_run(Variant("", (), 3)) == []


def test_variants_without_augment_and_synthesize_create_no_rows(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    """With params that request rows of every kind, changed as the steps define, both stages count 0 rows."""
    config = WorkspaceConfig(modality="image", effort="quick")
    data = make_images(labeled=4, pool=2, test=1)
    collected, validated = tmp_path / "scrape", tmp_path / "validate"
    scrape(PARAMS.scrape, config, data=data, output=collected)
    validate(ValidateParams(), config, collected=collected, output=validated)
    sections: dict[str, dict[str, Any]] = {
        "augment": {"augmentations_per_row": 2, "adversarial": 0.5, "hard": 0.5, "balance": 1.0},
        "synthesize": {"mixup": 1, "cutmix": 1, "cut_and_paste": 1, "negatives": 0.5, "generate": 1, "translate": 1},
    }
    for (section, key), value in (*NO_AUGMENTED_ROWS, *NO_SYNTHETIC_ROWS):
        sections[section][key] = json.loads(value)
    folders: dict[str, Any] = {"collected": collected, "validated": validated}
    augment(AugmentParams.model_validate(sections["augment"]), config, **folders, output=tmp_path / "augment")
    synthesize(
        SynthesizeParams.model_validate(sections["synthesize"]), config, **folders, output=tmp_path / "synthesize"
    )
    assert [read_manifest(tmp_path / section).rows.rows_in for section in sections] == [0, 0]


def test_the_mix_in_is_a_step_of_its_own(tmp_path: Path) -> None:
    """If train tried the additional dataset, leaving it out runs train again, and no earlier stage."""
    counts = [LabelCount(split="train", label="a", label_source="human", rows=0)]
    for stage in ("validate", "synthesize"):
        write_manifest(tmp_path / "generations" / stage, stage, counts=counts)
    names = []
    for losses in (["plain", "mixin"], ["plain"]):
        tried = [candidate("network", loss=loss) for loss in losses]
        candidates_record(*tried).write(tmp_path / "models/0/candidates.json")
        steps = steps_of(tmp_path, PARAMS)
        names.append([step.name for step in steps])
        if losses[-1] == "mixin":
            assert steps[-1].params == ((("train", "mixin"), "false"),)
            assert [stage.name for stage in _stages_to_run(Variant("", (steps[-1],), 0))] == ["train@0"]
    assert names == [["augment", "mix-in"], ["augment"]]


def test_a_bar_is_the_paired_difference_on_rows_that_both_runs_evaluated() -> None:
    """One of three common rows becomes correct: +1/3.

    Rows of one side alone do not count, and a variant that was not run has no bar.
    """
    old, new, other = Variant("old", (AUGMENT,), 0), Variant("new", (), 0), Variant("other", (REPAIR,), 0)
    bars = [Bar("augment", "added", old, new), Bar("repair", "left_out", other, new)]
    rows = {old: right_rows([1, 0, 0]), new: right_rows([1, 1, 0, 1])}
    (bar,) = compare_bars(bars, rows, PARAMS)
    assert (bar.rows, bar.before, bar.after) == (3, 0.333333, 0.666667)
    assert bar.accuracy.value == pytest.approx(1 / 3, abs=1e-6)
    assert bar.log_loss.value == pytest.approx(-1 / 3, abs=1e-6)
    assert bar.accuracy.low < 0 < bar.accuracy.high, "three rows prove nothing"
    assert start_of(bars) == old
    accuracy = accuracy_of(rows[old], PARAMS)
    assert accuracy is not None
    assert accuracy.value == 0.333333
    assert accuracy_of(rows.get(other), PARAMS) is None


def test_a_pipeline_that_was_not_run_is_reported(tmp_path: Path) -> None:
    """The error names the command that fixes it."""
    (tmp_path / "params.yaml").write_text("modality: text\nscrape: {sources: [{kind: folder}]}\n", encoding="utf-8")
    done = seedling("ablate", "-w", tmp_path)
    assert done.returncode == 2
    assert "`seedling run` first" in done.stderr


@pytest.fixture
def grown_intents(example: Callable[[str], Path], shared_prefect: str) -> Path:
    """The workspace of the intents example after `seedling run` with one learner, with the run time of each stage."""
    workspace = example("intents")
    set_params(
        workspace,
        {
            "effort": "quick",
            "train.candidates": ["logistic_regression"],
            "evaluate.bootstrap_draws": 200,
            "evaluate.robustness_rows": 0,
        },
    )
    call([BIN / "seedling", "run"], workspace)
    return workspace


def run_without_steps(workspace: Path) -> None:
    """Switch off the tags of the sites, augment, synthesize and the rounds in params.yaml, and run all stages again."""
    for name in (".seedling", "generations", "models", "reports"):
        shutil.rmtree(workspace / name)
    sources = [source.model_dump() for source in load(workspace).scrape.sources]
    for source in sources:
        source.pop("tag", None)
        source.pop("tags", None)
    set_params(
        workspace,
        {
            "scrape.sources": sources,
            "augment.augmentations_per_row": 0,
            "synthesize.mixup": 0,
            "synthesize.templates": [],
            "pseudo_label.rounds": 0,
        },
    )
    for stage in stages(0).values():
        run_stage(stage, workspace)


def ablate(workspace: Path, *options: str, expected: int = 0) -> str:
    """Run `seedling ablate`, check its exit code, and return its output."""
    done = seedling("ablate", *options, "-w", workspace)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.soak
def test_a_variant_equals_a_run_of_the_pipeline_without_the_steps(grown_intents: Path) -> None:
    """Labels alone, as ablate runs them, equal a run whose params switch each step off: the same rows and the same
    number of correct rows.

    A second call runs nothing, the test split is not evaluated, and without time nothing is run.
    """
    workspace = grown_intents
    alone = workspace.with_name("alone")
    shutil.copytree(workspace, alone, symlinks=True)
    run_without_steps(alone)
    test_evaluations = (workspace / "test_evaluations.jsonl").read_text(encoding="utf-8")

    assert "Not tried within the time limit: labels alone" in ablate(workspace, "--minutes", "0")
    ablate(workspace)
    ablation = json.loads((workspace / "reports/ablation.json").read_text(encoding="utf-8"))
    steps = {(bar["kind"], bar["step"]) for bar in ablation["bars"]}
    assert steps >= {("added", "weak labels"), ("added", "augment"), ("added", "synthesize"), ("added", "round 1")}
    assert steps >= {("left_out", "weak labels"), ("left_out", "augment"), ("left_out", "augment: typo")}
    trained = read(alone / "generations/validate", ["id", "split", "label"])
    assert trained.loc[trained["split"] == "train", "label"].notna().all()
    first = json.loads((alone / "reports/evaluation.json").read_text(encoding="utf-8"))["rounds"][0]
    assert ablation["accuracy_at_start"]["value"] == first["accuracy"]["value"]
    added = [bar for bar in ablation["bars"] if bar["kind"] == "added"]
    assert [bar["after"] for bar in added[:-1]] == [bar["before"] for bar in added[1:]], (
        "each bar begins where the last ended"
    )
    assert (workspace / "test_evaluations.jsonl").read_text(encoding="utf-8") == test_evaluations
    assert "Ablation of the pipeline" in (workspace / "reports/report.html").read_text(encoding="utf-8")
    cut = next((workspace / ".seedling/ablation").glob("*.parquet"))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    again = ablate(workspace, "--minutes", "0")
    assert "Not tried within the time limit" in again, "a file cut short counts for nothing"
    cut.write_bytes(whole)
    kept = sorted(path.stat().st_mtime_ns for path in (workspace / ".seedling/ablation").glob("*.parquet"))
    ablate(workspace, "--minutes", "0")
    assert json.loads((workspace / "reports/ablation.json").read_text(encoding="utf-8")) == ablation
    assert sorted(path.stat().st_mtime_ns for path in (workspace / ".seedling/ablation").glob("*.parquet")) == kept
    assert not (workspace / ".seedling/ablation/running").exists()
    (workspace / "reports/ablation.json").write_text(json.dumps({**ablation, "model": "another"}), encoding="utf-8")
    write_page("evaluate", workspace)
    page = (workspace / "reports/report.html").read_text(encoding="utf-8")
    assert "of an earlier model" in page
    assert "Ablation of the pipeline" not in page
    set_value(workspace, ["synthesize", "template_rows"], 3)
    assert "synthesize changed since the last run" in ablate(workspace, expected=2)


def test_the_table_prints_an_interval_in_unescaped_brackets() -> None:
    """No backslash before them, because the cell is text and not markup."""
    bar = Bar("augment", "added", Variant("none", (), 0), Variant("+ augment", (AUGMENT,), 0))
    rows = {bar.old: right_rows([0, 0, 1, 1]), bar.new: right_rows([1, 1, 1, 1])}
    bars = compare_bars([bar], rows, PARAMS)
    ablation = AblationRecord(
        start="none", accuracy_at_start=None, bars=bars, not_tried=(), failed={}, model="a digest"
    )
    output = io.StringIO()
    PrintableConsole(width=200, file=output).print(_table(ablation))
    printed = output.getvalue()
    difference = bars[0].accuracy
    assert f"+50.0 [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]" in printed
    assert "\\" not in printed
