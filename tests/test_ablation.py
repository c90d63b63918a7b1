"""`seedling ablate`: what is run anew, what the differences are, and that a variant is the line as a user would run it without the step."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from in_process import seedling

from seedling.ablation import (
    NO_AUGMENTED_ROWS,
    NO_SYNTHETIC_ROWS,
    Bar,
    Step,
    Variant,
    _stages_to_run,
    _table,
    compare_bars,
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
from seedling.dataset.generation import read, read_manifest, write_json
from seedling.runner import write_page
from seedling.scrape import scrape
from seedling.synthesize import synthesize
from seedling.terminal.console import PrintableConsole
from seedling.validate import validate

SEEDLING = [sys.executable, "-m", "seedling.cli.main"]
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
    sections = {
        "augment": {"augmentations_per_row": 2, "adversarial": 0.5, "hard": 0.5, "balance": 1.0},
        "synthesize": {"mixup": 1, "cutmix": 1, "cut_and_paste": 1, "negatives": 0.5, "generate": 1, "translate": 1},
    }
    for (section, key), value in (*NO_AUGMENTED_ROWS, *NO_SYNTHETIC_ROWS):
        sections[section][key] = json.loads(value)
    told = {"collected": collected, "validated": validated}
    augment(AugmentParams.model_validate(sections["augment"]), config, **told, output=tmp_path / "augment")
    synthesize(SynthesizeParams.model_validate(sections["synthesize"]), config, **told, output=tmp_path / "synthesize")
    assert [read_manifest(tmp_path / one)["rows"]["in"] for one in sections] == [0, 0]


def test_a_mix_in_is_a_step_of_its_own(tmp_path: Path) -> None:
    """Where train tried to learn from another dataset; leaving it out runs train anew, and nothing before."""
    manifest = {
        "counts": [{"split": "train", "label": "a", "label_source": "human", "rows": 0}],
        "rows": {"in": 0, "kept": 0, "rejected": 0},
    }
    for stage in ("validate", "synthesize"):
        write_json(tmp_path / "generations" / stage / "manifest.json", manifest)
    names = []
    for losses in (["plain", "mixin"], ["plain"]):
        tried = [{"learner": "network", "loss": loss} for loss in losses]
        write_json(tmp_path / "models/0/candidates.json", {"candidates": tried})
        steps = steps_of(tmp_path, PARAMS)
        names.append([one.name for one in steps])
        if losses[-1] == "mixin":
            assert steps[-1].params == ((("train", "mixin"), "false"),)
            assert [stage.name for stage in _stages_to_run(Variant("", (steps[-1],), 0))] == ["train@0"]
    assert names == [["augment", "mix-in"], ["augment"]]


def test_a_bar_is_the_paired_difference_on_the_rows_that_both_judged() -> None:
    """Of three common rows one turns right: +1/3; a row that one side lacks does not count; a variant that was not run has no bar."""
    old, new, other = Variant("old", (AUGMENT,), 0), Variant("new", (), 0), Variant("other", (REPAIR,), 0)
    bars = [Bar("augment", "added", old, new), Bar("repair", "left out", other, new)]
    found = compare_bars(bars, {old: said([1, 0, 0]), new: said([1, 1, 0, 1])}, PARAMS, ["other"])
    (bar,) = found["bars"]
    assert (bar["rows"], bar["before"], bar["after"]) == (3, 0.333333, 0.666667)
    assert bar["accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert bar["log_loss"]["value"] == pytest.approx(-1 / 3, abs=1e-6)
    assert bar["accuracy"]["low"] < 0 < bar["accuracy"]["high"], "three rows prove nothing"
    assert (found["start"], found["accuracy_at_start"]["value"]) == ("old", 0.333333)
    assert found["not_tried"] == ["other"]


def test_a_line_that_was_not_run_is_said(tmp_path: Path) -> None:
    """With the command that mends it."""
    (tmp_path / "params.yaml").write_text("modality: text\nscrape: {sources: [{kind: folder}]}\n", encoding="utf-8")
    done = seedling("ablate", "-w", tmp_path)
    assert done.returncode == 2
    assert "`seedling run` first" in done.stderr


@pytest.mark.slow
def test_a_variant_is_the_line_as_one_would_run_it(example: Callable[[str], Path]) -> None:
    """Labels alone, as ablate has them, and a run whose params switch each step off by hand: the same rows, the same number right. The
    second call runs nothing, the test split is not looked at, and without time nothing is tried.
    """
    place = example("intents")
    set_value(place, ["effort"], "quick")
    alone = place.with_name("alone")
    shutil.copytree(place, alone)
    sources = [one.model_dump() for one in load(alone).scrape.sources]
    for one in sources:
        one.pop("tag", None)
        one.pop("tags", None)
    for keys, value in {
        ("scrape", "sources"): sources,
        ("augment", "augmentations_per_row"): 0,
        ("synthesize", "mixup"): 0,
    }.items():
        set_value(alone, list(keys), value)
    set_value(alone, ["synthesize", "templates"], [])
    for one in (place, alone):
        subprocess.run([*SEEDLING, "run", "-w", one], check=True, capture_output=True)
    looks = (place / "test_evaluations.jsonl").read_text(encoding="utf-8")

    none = subprocess.run(
        [*SEEDLING, "ablate", "--minutes", "0", "-w", place], check=True, capture_output=True, text=True
    )
    assert "Not tried within the time limit: labels alone" in none.stdout
    subprocess.run([*SEEDLING, "ablate", "-w", place], check=True, capture_output=True)
    found = json.loads((place / "reports/ablation.json").read_text(encoding="utf-8"))
    steps = {(one["kind"], one["step"]) for one in found["bars"]}
    assert steps >= {("added", "weak labels"), ("added", "augment"), ("added", "synthesize"), ("added", "round 1")}
    assert steps >= {("left out", "weak labels"), ("left out", "augment"), ("left out", "augment: typo")}
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
    again = subprocess.run(
        [*SEEDLING, "ablate", "--minutes", "0", "-w", place], check=True, capture_output=True, text=True
    )
    assert "Not tried within the time limit" in again.stdout, "a file cut short counts for nothing"
    cut.write_bytes(whole)
    kept = sorted(path.stat().st_mtime_ns for path in (place / ".seedling/ablation").glob("*.parquet"))
    subprocess.run([*SEEDLING, "ablate", "--minutes", "0", "-w", place], check=True, capture_output=True)
    assert json.loads((place / "reports/ablation.json").read_text(encoding="utf-8")) == found
    assert sorted(path.stat().st_mtime_ns for path in (place / ".seedling/ablation").glob("*.parquet")) == kept
    assert not (place / ".seedling/ablation/running").exists()
    (place / "reports/ablation.json").write_text(json.dumps({**found, "model": "another"}), encoding="utf-8")
    write_page("evaluate", place)
    page = (place / "reports/report.html").read_text(encoding="utf-8")
    assert "of an earlier model" in page
    assert "Ablation of the pipeline" not in page
    set_value(place, ["synthesize", "template_rows"], 3)
    stale = subprocess.run([*SEEDLING, "ablate", "-w", place], check=False, capture_output=True, text=True)
    assert stale.returncode == 2
    assert "synthesize changed since the last run" in stale.stderr


def test_the_table_prints_an_interval_in_plain_brackets() -> None:
    """No backslash before them: the cell is text, not markup."""
    bar = Bar("augment", "added", Variant("none", (), 0), Variant("+ augment", (AUGMENT,), 0))
    rows = {bar.old: said([0, 0, 1, 1]), bar.new: said([1, 1, 1, 1])}
    results = compare_bars([bar], rows, PARAMS, [])
    console = PrintableConsole(width=200, file=io.StringIO())
    console.print(_table(results))
    printed = console.file.getvalue()
    difference = results["bars"][0]["accuracy"]
    assert f"+50.0 [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]" in printed
    assert "\\" not in printed
