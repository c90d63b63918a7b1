"""`seedling ablate`: what is run anew, what the differences are, and that a variant is the line as a user would run it without the step."""

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


def said(right: list[float]) -> pd.DataFrame:
    """Rows a, b, c … of their own groups; the log-loss is 1 - right."""
    ids = [chr(ord("a") + place) for place in range(len(right))]
    return pd.DataFrame({"id": ids, "label": "x", "group": ids, "right": right, "log_loss": [1 - one for one in right]})


def test_only_what_a_step_reaches_is_run_anew() -> None:
    """Without augmentation nothing before train changes; another repair changes all but scrape; rounds beyond the variant's are left."""
    names = [stage.name for stage in _stages_to_run(Variant("", (AUGMENT,), 1))]
    assert names == ["augment", "train@0", "pseudo_label@1", "train@1"]
    assert [stage.name for stage in _stages_to_run(Variant("", (REPAIR,), 0))] == [
        "validate",
        "augment",
        "synthesize",
        "train@0",
    ]
    assert _stages_to_run(Variant("", (), 3)) == []


def test_without_augment_and_synthesize_no_row_is_made(make_images: Callable[..., Path], tmp_path: Path) -> None:
    """Params that ask for rows in every way that there is, changed as the steps say: both stages set out to make none."""
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
    told: dict[str, Any] = {"collected": collected, "validated": validated}
    augment(AugmentParams.model_validate(sections["augment"]), config, **told, output=tmp_path / "augment")
    synthesize(SynthesizeParams.model_validate(sections["synthesize"]), config, **told, output=tmp_path / "synthesize")
    assert [read_manifest(tmp_path / one).rows.rows_in for one in sections] == [0, 0]


def test_a_mix_in_is_a_step_of_its_own(tmp_path: Path) -> None:
    """Where train tried to learn from another dataset; leaving it out runs train anew, and nothing before."""
    counts = [LabelCount(split="train", label="a", label_source="human", rows=0)]
    for stage in ("validate", "synthesize"):
        write_manifest(tmp_path / "generations" / stage, stage, counts=counts)
    names = []
    for losses in (["plain", "mixin"], ["plain"]):
        tried = [candidate("network", loss=loss) for loss in losses]
        candidates_record(*tried).write(tmp_path / "models/0/candidates.json")
        steps = steps_of(tmp_path, PARAMS)
        names.append([one.name for one in steps])
        if losses[-1] == "mixin":
            assert steps[-1].params == ((("train", "mixin"), "false"),)
            assert [stage.name for stage in _stages_to_run(Variant("", (steps[-1],), 0))] == ["train@0"]
    assert names == [["augment", "mix-in"], ["augment"]]


def test_a_bar_is_the_paired_difference_on_the_rows_that_both_judged() -> None:
    """Of three common rows one turns right: +1/3; a row that one side lacks does not count; a variant that was not run has no bar."""
    old, new, other = Variant("old", (AUGMENT,), 0), Variant("new", (), 0), Variant("other", (REPAIR,), 0)
    bars = [Bar("augment", "added", old, new), Bar("repair", "left_out", other, new)]
    rows = {old: said([1, 0, 0]), new: said([1, 1, 0, 1])}
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


def test_a_line_that_was_not_run_is_said(tmp_path: Path) -> None:
    """With the command that mends it."""
    (tmp_path / "params.yaml").write_text("modality: text\nscrape: {sources: [{kind: folder}]}\n", encoding="utf-8")
    done = seedling("ablate", "-w", tmp_path)
    assert done.returncode == 2
    assert "`seedling run` first" in done.stderr


@pytest.fixture
def grown_intents(example: Callable[[str], Path], shared_prefect: str) -> Path:
    """The workspace of the intents example after `seedling run` with one learner, whose record has each stage's seconds."""
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
    """Switch off the tags of the sites, augment, synthesize and the rounds in params.yaml, and run all stages anew."""
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
    """What `seedling ablate` prints; its exit code is as expected."""
    done = seedling("ablate", *options, "-w", workspace)
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.soak
def test_a_variant_is_the_line_as_one_would_run_it(grown_intents: Path) -> None:
    """Labels alone, as ablate has them, and a run whose params switch each step off by hand: the same rows, the same number right. The
    second call runs nothing, the test split is not looked at, and without time nothing is tried.
    """
    place = grown_intents
    alone = place.with_name("alone")
    shutil.copytree(place, alone, symlinks=True)
    run_without_steps(alone)
    looks = (place / "test_evaluations.jsonl").read_text(encoding="utf-8")

    assert "Not tried within the time limit: labels alone" in ablate(place, "--minutes", "0")
    ablate(place)
    found = json.loads((place / "reports/ablation.json").read_text(encoding="utf-8"))
    steps = {(one["kind"], one["step"]) for one in found["bars"]}
    assert steps >= {("added", "weak labels"), ("added", "augment"), ("added", "synthesize"), ("added", "round 1")}
    assert steps >= {("left_out", "weak labels"), ("left_out", "augment"), ("left_out", "augment: typo")}
    trained = read(alone / "generations/validate", ["id", "split", "label"])
    assert trained.loc[trained["split"] == "train", "label"].notna().all()
    first = json.loads((alone / "reports/evaluation.json").read_text(encoding="utf-8"))["rounds"][0]
    assert found["accuracy_at_start"]["value"] == first["accuracy"]["value"]
    added = [one for one in found["bars"] if one["kind"] == "added"]
    assert [one["after"] for one in added[:-1]] == [one["before"] for one in added[1:]], (
        "each bar begins where the last ended"
    )
    assert (place / "test_evaluations.jsonl").read_text(encoding="utf-8") == looks
    assert "Ablation of the pipeline" in (place / "reports/report.html").read_text(encoding="utf-8")
    cut = next((place / ".seedling/ablation").glob("*.parquet"))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    again = ablate(place, "--minutes", "0")
    assert "Not tried within the time limit" in again, "a file cut short counts for nothing"
    cut.write_bytes(whole)
    kept = sorted(path.stat().st_mtime_ns for path in (place / ".seedling/ablation").glob("*.parquet"))
    ablate(place, "--minutes", "0")
    assert json.loads((place / "reports/ablation.json").read_text(encoding="utf-8")) == found
    assert sorted(path.stat().st_mtime_ns for path in (place / ".seedling/ablation").glob("*.parquet")) == kept
    assert not (place / ".seedling/ablation/running").exists()
    (place / "reports/ablation.json").write_text(json.dumps({**found, "model": "another"}), encoding="utf-8")
    write_page("evaluate", place)
    page = (place / "reports/report.html").read_text(encoding="utf-8")
    assert "of an earlier model" in page
    assert "Ablation of the pipeline" not in page
    set_value(place, ["synthesize", "template_rows"], 3)
    assert "synthesize changed since the last run" in ablate(place, expected=2)


def test_the_table_prints_an_interval_in_plain_brackets() -> None:
    """No backslash before them: the cell is text, not markup."""
    bar = Bar("augment", "added", Variant("none", (), 0), Variant("+ augment", (AUGMENT,), 0))
    rows = {bar.old: said([0, 0, 1, 1]), bar.new: said([1, 1, 1, 1])}
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
