"""The manifest of a generation: its exact content, and manifests of earlier and later versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from manifests import audit, label_issues, manifest

from seedling.dataset.generation import GenerationWriter, Row, identify, read_manifest
from seedling.errors import DamagedFile
from seedling.records.intervals import DifferenceRecord, EstimateRecord
from seedling.records.manifest import Manifest, read_manifest_if_any, read_notes
from seedling.records.stage_notes import (
    AugmentNotes,
    ClassLabelIssues,
    ClassPrecision,
    ClassShares,
    FilesRecord,
    FilterTrial,
    LabelPair,
    NotEstimated,
    NotScreened,
    PolicyTrial,
    PseudoLabelNotes,
    ReviewTime,
    RuleRecord,
    ScrapeNotes,
    ScreeningRecord,
    StageNotes,
    SynthesizeNotes,
    TemplateRecord,
    ValidateNotes,
)

HALF = EstimateRecord(value=0.5, low=0.25, high=0.75)
BETTER = DifferenceRecord(value=0.1, low=-0.1, high=0.3, probability_worse=0.2)
HALF_JSON = {"value": 0.5, "low": 0.25, "high": 0.75}
BETTER_JSON = {"value": 0.1, "low": -0.1, "high": 0.3, "probability_worse": 0.2}
TRIAL = PolicyTrial(
    name="rotate", augmentations_per_row=2, accuracy=BETTER, log_loss=BETTER, label_changes=0.125, kept=True
)
TRIAL_JSON = {
    "name": "rotate",
    "augmentations_per_row": 2,
    "accuracy": BETTER_JSON,
    "log_loss": BETTER_JSON,
    "label_changes": 0.125,
    "kept": True,
}
ISSUES = label_issues(
    expected=1.5,
    between=(1.0, 2.0),
    unrepaired_classes=("b",),
    by_class=(ClassLabelIssues(label="a", rows=60, expected=1.5, flagged=1),),
    pairs=(LabelPair(original_label="a", suggested_label="b", rows=1),),
    budget=(ReviewTime(minutes=5, rows=100, share=HALF),),
)
NOTES: list[tuple[str, StageNotes, dict[str, Any]]] = [
    ("scrape", ScrapeNotes(sources=("folder",)), {"sources": ["folder"]}),
    (
        "scrape",
        ScrapeNotes(
            sources=("folder", "crawl"),
            rules=(
                RuleRecord(rule="tag", votes=3, coverage=0.75, overlap=0.5, conflict=0.25, evaluated=2, precision=HALF),
                RuleRecord(rule="alt", votes=1, coverage=0.25, overlap=0.0, conflict=0.0, evaluated=0, precision=None),
            ),
            no_items={"site": {"absent": 4}},
            empty_classes=("snow",),
            files=FilesRecord(files_in=3, read=2, ignored={"hidden": 1}),
        ),
        {
            "sources": ["folder", "crawl"],
            "rules": [
                {
                    "rule": "tag",
                    "votes": 3,
                    "coverage": 0.75,
                    "overlap": 0.5,
                    "conflict": 0.25,
                    "evaluated": 2,
                    "precision": HALF_JSON,
                },
                {
                    "rule": "alt",
                    "votes": 1,
                    "coverage": 0.25,
                    "overlap": 0.0,
                    "conflict": 0.0,
                    "evaluated": 0,
                    "precision": None,
                },
            ],
            "no_items": {"site": {"absent": 4}},
            "empty_classes": ["snow"],
            "files": {"in": 3, "read": 2, "ignored": {"hidden": 1}},
        },
    ),
    (
        "validate",
        ValidateNotes(label_issues=NotEstimated(not_estimated="too few rows")),
        {
            "merged_spellings": {},
            "carved_test_rows": 0,
            "quality": {},
            "usual_quality_codes": {},
            "label_issues": {"not_estimated": "too few rows"},
        },
    ),
    (
        "validate",
        ValidateNotes(
            merged_spellings={"X": "x"},
            carved_test_rows=16,
            quality={"dark": 2},
            usual_quality_codes={"blurred": 50},
            label_issues=ISSUES,
            fixed_camera=40,
        ),
        {
            "merged_spellings": {"X": "x"},
            "carved_test_rows": 16,
            "quality": {"dark": 2},
            "usual_quality_codes": {"blurred": 50},
            "label_issues": {
                "labels": 100,
                "expected": 1.5,
                "between": [1.0, 2.0],
                "flagged": 0,
                "policy": "report",
                "repaired": 0,
                "unrepaired_classes": ["b"],
                "by_class": [{"class": "a", "rows": 60, "expected": 1.5, "flagged": 1}],
                "pairs": [{"original_label": "a", "suggested_label": "b", "rows": 1}],
                "items_per_minute": 20.0,
                "budget": [{"minutes": 5, "rows": 100, "share": HALF_JSON}],
            },
            "fixed_camera": 40,
        },
    ),
    ("augment", AugmentNotes(augmentations_per_row=0), {"augmentations_per_row": 0}),
    (
        "augment",
        AugmentNotes(augmentations_per_row=1, screening=NotScreened(not_screened="too few rows")),
        {"augmentations_per_row": 1, "screening": {"not_screened": "too few rows"}},
    ),
    (
        "augment",
        AugmentNotes(
            augmentations_per_row=2,
            policy=({"Affine": {"rotate": [-10, 10], "p": 0.5}},),
            screening=ScreeningRecord(rows=60, policy=["rotate", {"scale": 0.4}], confirmed=TRIAL, trials=(TRIAL,)),
            class_shares=ClassShares(before={"a": 1.0}, after={"a": 0.5}),
            hard="unknown",
        ),
        {
            "augmentations_per_row": 2,
            "policy": [{"Affine": {"rotate": [-10, 10], "p": 0.5}}],
            "screening": {
                "rows": 60,
                "policy": ["rotate", {"scale": 0.4}],
                "confirmed": TRIAL_JSON,
                "trials": [TRIAL_JSON],
            },
            "class_shares": {"before": {"a": 1.0}, "after": {"a": 0.5}},
            "hard": "unknown",
        },
    ),
    ("synthesize", SynthesizeNotes(), {}),
    (
        "synthesize",
        SynthesizeNotes(templates=(TemplateRecord(label="a", text="{n:1-2} rows", possible=2),)),
        {"templates": [{"class": "a", "text": "{n:1-2} rows", "possible": 2}]},
    ),
    ("pseudo_label@3", PseudoLabelNotes(skipped=True), {"skipped": True}),
    (
        "pseudo_label@1",
        PseudoLabelNotes(
            audit=audit(
                teacher_weight=None,
                precision=None,
                classes={"a": ClassPrecision(rows=0, precision=None)},
                filters=(FilterTrial(filter="all", kept=20, precision=HALF, gain=0.5, probability_better=0.0),),
            )
        ),
        {
            "audit": {
                "temperature": 1.0,
                "teacher_weight": None,
                "rows": 20,
                "filter": "all",
                "kept": 20,
                "precision": None,
                "classes": {"a": {"rows": 0, "precision": None}},
                "filters": [
                    {"filter": "all", "kept": 20, "precision": HALF_JSON, "gain": 0.5, "probability_better": 0.0}
                ],
            }
        },
    ),
]


@pytest.mark.parametrize(("stage", "notes", "content"), NOTES)
def test_the_notes_of_each_stage_are_written_and_read(
    tmp_path: Path, stage: str, notes: StageNotes, content: dict[str, Any]
) -> None:
    """Keys without a note are left out; what is read is equal, and is written with equal bytes."""
    record = manifest(stage, notes)
    record.write(tmp_path / "manifest.json")
    written = (tmp_path / "manifest.json").read_bytes()
    assert json.loads(written)["notes"] == content
    again = Manifest.read(tmp_path / "manifest.json")
    assert again == record
    again.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == written


def test_a_generation_has_this_manifest(tmp_path: Path) -> None:
    """The whole file of three rows, of which one is rejected."""
    with GenerationWriter(tmp_path, stage="validate", modality="text", images=False) as writer:
        writer.keep(Row(identify(b"1"), "train", label="a", label_source="human", payload="1"))
        writer.keep(Row(identify(b"2"), payload="2"))
        writer.reject(Row(identify(b"3"), payload=""), "empty")
        writer.close(rows_in=3, classes=["a", "b"], notes=ValidateNotes(quality={"short": 1}))
    assert (
        (tmp_path / "manifest.json").read_text(encoding="utf-8")
        == """{
  "classes": [
    "a",
    "b"
  ],
  "counts": [
    {
      "label": null,
      "label_source": null,
      "rows": 1,
      "split": "pool"
    },
    {
      "label": "a",
      "label_source": "human",
      "rows": 1,
      "split": "train"
    }
  ],
  "format": 1,
  "modality": "text",
  "notes": {
    "carved_test_rows": 0,
    "merged_spellings": {},
    "quality": {
      "short": 1
    },
    "usual_quality_codes": {}
  },
  "parts": [
    {
      "file": "part-00000.parquet",
      "rows": 2
    }
  ],
  "reasons": {
    "empty": 1
  },
  "rows": {
    "in": 3,
    "kept": 2,
    "rejected": 1
  },
  "stage": "validate",
  "version": 1
}
"""
    )


def test_a_manifest_without_a_version_is_read(tmp_path: Path) -> None:
    """Manifests had no version at first. Notes whose keys had other names are left out, the others are read."""
    content = manifest("pseudo_label@1", PseudoLabelNotes(audit=audit())).as_json()
    del content["version"]
    assert Manifest.of_json(content) == manifest("pseudo_label@1", PseudoLabelNotes(audit=audit()))
    content["notes"]["audit"]["bake_off"] = content["notes"]["audit"].pop("filters")
    assert Manifest.of_json(content) == manifest("pseudo_label@1")
    content["notes"] = {"skipped": True, "doubt": 3}
    assert Manifest.of_json(content).is_skipped


def test_a_manifest_with_a_version_has_no_other_notes(tmp_path: Path) -> None:
    """An unknown key, a value of another type, and a missing key are named."""
    content = manifest("validate").as_json()
    for notes, message in (
        ({"doubt": {}}, "notes.doubt|doubt"),
        ({"carved_test_rows": "many"}, "carved_test_rows"),
        ({"label_issues": {"labels": 3}}, "label_issues"),
    ):
        with pytest.raises(ValueError, match=message):
            Manifest.of_json({**content, "notes": notes})
    del content["counts"]
    with pytest.raises(ValueError, match="counts: Field required"):
        Manifest.of_json(content)


def test_a_manifest_of_a_later_version_is_named(tmp_path: Path) -> None:
    """Every reader of generations stops at it."""
    with GenerationWriter(tmp_path / "scrape", stage="scrape", modality="text") as writer:
        writer.close(rows_in=0)
    path = tmp_path / "scrape" / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"version": 1', '"version": 2'), encoding="utf-8")
    with pytest.raises(DamagedFile, match=r"manifest\.json.*version 2 is of a later Seedling"):
        read_manifest(tmp_path / "scrape")


def test_notes_of_another_stage_or_of_none(tmp_path: Path) -> None:
    """A manifest in the wrong folder is an error; without a manifest there are no notes."""
    assert read_notes(tmp_path, AugmentNotes) == AugmentNotes()
    assert read_manifest_if_any(tmp_path) is None
    manifest("scrape").write(tmp_path / "manifest.json")
    assert read_notes(tmp_path, ScrapeNotes) == ScrapeNotes()
    with pytest.raises(DamagedFile, match="it is of another stage"):
        read_notes(tmp_path, AugmentNotes)
