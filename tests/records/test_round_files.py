"""The files of a round and of an ablation: their exact content, and what a reader says of other content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_process import seedling
from round_records import candidate, candidates_record, difference, estimate, member, model_record
from small_models import grown

from seedling.errors import DamagedFile
from seedling.models.model import load_model
from seedling.records.ablation import AblationRecord, BarRecord
from seedling.records.candidates import (
    CandidatesRecord,
    FoldAccuraciesRecord,
    HardestClassRecord,
    HardestSourceRecord,
    LearnerAccuracyRecord,
    LearningCurvePointRecord,
    LearningCurveRecord,
    LeftOutRecord,
    RepeatedRecord,
    StepContributionRecord,
    UnknownClassesRecord,
    UnseenSourcesRecord,
)
from seedling.records.decision import DecisionRecord
from seedling.records.model import ModelRecord
from seedling.records.record import Record
from seedling.records.round_manifest import RoundManifestRecord, RoundRowsRecord
from seedling.stats.statistics import Difference, Estimate
from seedling.train.round_decision import ClassChange, RoundDecision

DECISION = """{
  "accepted_round": 1,
  "accuracy": {
    "high": 0.083333,
    "low": -0.02,
    "probability_worse": 0.25,
    "value": 0.03
  },
  "classes": [
    {
      "harmed": false,
      "high": 0.2,
      "label": 0,
      "low": 0.0,
      "probability_worse": 0.1,
      "rows": 5,
      "value": 0.1
    }
  ],
  "decision": "accepted",
  "log_loss": null,
  "reason": "R",
  "round": 1,
  "rows": 40,
  "stop": false,
  "version": 1,
  "worth_in_labels": {
    "high": 30.3,
    "low": -11.7,
    "value": 12.1
  }
}
"""
MODEL = """{
  "classes": [
    "rain",
    "sun"
  ],
  "members": [
    {
      "file": "lr",
      "learner": "logistic_regression",
      "loss": "plain",
      "pool_halves": 1,
      "recipe": [
        "collected"
      ],
      "temperature": 1.0,
      "votes": 1.0
    }
  ],
  "modality": "text",
  "round": 0,
  "selective_prediction": {
    "accuracy": null,
    "coverage": null,
    "out_of_scope": 0,
    "target_accuracy": 0.95,
    "threshold": 0.25
  },
  "temperature": 1.0,
  "version": 1
}
"""
ROUND_MANIFEST = """{
  "rows": {
    "augment": 2,
    "collected": 1,
    "never_held_out": 0,
    "pool": 4,
    "pseudo_labeled": 5,
    "synthesize": 3
  },
  "stage": "train@1",
  "trained_on": "abc",
  "version": 1
}
"""
SKIPPED_MANIFEST = """{
  "skipped": "no pseudo-label was kept",
  "stage": "train@2",
  "version": 1
}
"""


def candidates_with_all_parts() -> CandidatesRecord:
    """Each part of candidates.json once."""
    return CandidatesRecord(
        candidates=(candidate("svm", accuracy=estimate(0.5, 0.25), log_loss=0.7, choice_loss=0.75, chosen=True),),
        left_out=(LeftOutRecord(learner="network", recipe=("collected",), loss="plain", reason="it diverged"),),
        step_contributions=(
            StepContributionRecord(
                kind="recipe", step="augment", learners=("svm",), difference=difference(0.25, 0.0, 0.5)
            ),
        ),
        learning_curve=LearningCurveRecord(
            labels=40, rows=40, points=(LearningCurvePointRecord(labels=8.0, accuracy=estimate(0.5)),)
        ),
        repeated=RepeatedRecord(
            repeats=2,
            folds=5,
            rows=40,
            splits=FoldAccuraciesRecord(learner="svm", accuracy=(0.0, 0.25, 0.5, 0.75, 1.0)),
            learners=(LearnerAccuracyRecord(learner="svm", accuracy=estimate(0.5)),),
            difference=estimate(0.0),
            agreement=1.0,
        ),
        unknown_classes=UnknownClassesRecord(
            classes=3, auroc=estimate(0.75), hardest=HardestClassRecord(name="sun", auroc=0.5)
        ),
        unseen_sources=UnseenSourcesRecord(
            sources=2,
            rows=40,
            accuracy=estimate(0.5),
            difference=difference(-0.25, -0.5, 0.0),
            hardest=HardestSourceRecord(source="a.example", accuracy=estimate(0.25), rows=20),
        ),
    )


ESTIMATE, HALF = {"high": 0.5, "low": 0.5, "value": 0.5}, {"high": 0.75, "low": 0.25, "value": 0.5}
CANDIDATES = {
    "candidates": [
        {
            "accuracy": HALF,
            "choice_loss": 0.75,
            "chosen": True,
            "learner": "svm",
            "log_loss": 0.7,
            "loss": "plain",
            "recipe": ["collected"],
            "vote": 0.0,
        }
    ],
    "learning_curve": {"labels": 40, "points": [{"accuracy": ESTIMATE, "labels": 8.0}], "rows": 40},
    "left_out": [{"learner": "network", "loss": "plain", "reason": "it diverged", "recipe": ["collected"]}],
    "repeated": {
        "agreement": 1.0,
        "difference": {"high": 0.0, "low": 0.0, "value": 0.0},
        "folds": 5,
        "learners": [{"accuracy": ESTIMATE, "learner": "svm"}],
        "repeats": 2,
        "rows": 40,
        "splits": {"accuracy": [0.0, 0.25, 0.5, 0.75, 1.0], "learner": "svm"},
    },
    "step_contributions": [
        {
            "difference": {"high": 0.5, "low": 0.0, "probability_worse": 0.5, "value": 0.25},
            "kind": "recipe",
            "learners": ["svm"],
            "step": "augment",
        }
    ],
    "unknown_classes": {
        "auroc": {"high": 0.75, "low": 0.75, "value": 0.75},
        "classes": 3,
        "hardest": {"auroc": 0.5, "class": "sun"},
    },
    "unseen_sources": {
        "accuracy": ESTIMATE,
        "difference": {"high": 0.0, "low": -0.5, "probability_worse": 0.5, "value": -0.25},
        "hardest": {"accuracy": {"high": 0.25, "low": 0.25, "value": 0.25}, "rows": 20, "source": "a.example"},
        "rows": 40,
        "sources": 2,
    },
    "version": 1,
}
ABLATION: dict[str, Any] = {
    "accuracy_at_start": ESTIMATE,
    "bars": [
        {
            "accuracy": {"high": 0.5, "low": 0.0, "probability_worse": 0.5, "value": 0.25},
            "after": 0.75,
            "before": 0.5,
            "kind": "left_out",
            "log_loss": {"high": 0.0, "low": -0.5, "probability_worse": 0.5, "value": -0.25},
            "rows": 40,
            "step": "augment",
        }
    ],
    "failed": {"with repair": "a template has no class"},
    "model": "abc",
    "not_tried": ["with round 1"],
    "start": "labels alone",
    "version": 1,
}


def decision_record() -> DecisionRecord:
    """The record of a decision with more digits than the file has."""
    return RoundDecision(
        round=1,
        decision="accepted",
        stop=False,
        reason="R",
        accepted_round=1,
        rows=40,
        accuracy=Difference(0.03, -0.02, 0.08333333, 0.25),
        classes=(ClassChange(0, 5, Difference(0.1, 0.0, 0.2, 0.1), harmed=False),),
        worth_in_labels=Estimate(12.12, -11.71, 30.26),
    ).record


def ablation_record() -> AblationRecord:
    """An ablation with one bar, a variant that failed and one that was not run."""
    bar = BarRecord(
        step="augment",
        kind="left_out",
        rows=40,
        before=0.5,
        after=0.75,
        accuracy=difference(0.25, 0.0, 0.5),
        log_loss=difference(-0.25, -0.5, 0.0),
    )
    return AblationRecord(
        start="labels alone",
        accuracy_at_start=estimate(0.5),
        bars=(bar,),
        not_tried=("with round 1",),
        failed={"with repair": "a template has no class"},
        model="abc",
    )


@pytest.mark.parametrize(
    ("record", "content"),
    [
        (decision_record(), DECISION),
        (model_record(member(), threshold=0.25), MODEL),
        (
            RoundManifestRecord(
                stage="train@1",
                rows=RoundRowsRecord(collected=1, augment=2, synthesize=3, pool=4, pseudo_labeled=5, never_held_out=0),
                trained_on="abc",
            ),
            ROUND_MANIFEST,
        ),
        (RoundManifestRecord(stage="train@2", skipped="no pseudo-label was kept"), SKIPPED_MANIFEST),
        (candidates_with_all_parts(), json.dumps(CANDIDATES, indent=2) + "\n"),
        (ablation_record(), json.dumps(ABLATION, indent=2) + "\n"),
    ],
    ids=["decision", "model", "manifest", "skipped", "candidates", "ablation"],
)
def test_a_record_is_written_and_read_without_loss(record: Record, content: str, tmp_path: Path) -> None:
    """The file has exactly these bytes, the record that is read from them is equal, and it is written as the same."""
    path = tmp_path / "record.json"
    record.write(path)
    assert path.read_text(encoding="utf-8") == content
    again = type(record).read(path)
    assert again == record
    again.write(path)
    assert path.read_text(encoding="utf-8") == content


def test_the_vote_has_no_choice_loss_and_later_rounds_no_analyses() -> None:
    """A key that does not apply to a candidate is left out; an analysis that was not made is null."""
    content = candidates_record(candidate("ensemble")).as_json()
    assert "choice_loss" not in content["candidates"][0]
    assert content["repeated"] is None


def test_the_best_candidate_has_the_smallest_log_loss() -> None:
    """The vote counts as a candidate; without evaluation rows, no candidate has a log loss and none is best."""
    svm, forest, vote = (
        candidate(learner, log_loss=loss)
        for learner, loss in (("svm", 0.5), ("random_forest", 0.75), ("ensemble", 0.25))
    )
    record = candidates_record(forest, svm, vote)
    assert record.best == vote
    assert record.tried == (forest, svm)
    assert candidates_record(forest, svm).best == svm
    assert candidates_record(candidate("svm")).best is None


def test_a_skipped_round_has_no_pseudo_labels() -> None:
    """Its manifest has no rows."""
    assert RoundManifestRecord(stage="train@2", skipped="R").pseudo_labeled == 0
    assert RoundManifestRecord.parse(ROUND_MANIFEST).pseudo_labeled == 5


def test_a_decision_of_an_earlier_version_is_read() -> None:
    """Files without `version` have the same keys; the five that every version wrote are enough."""
    earlier = {key: value for key, value in json.loads(DECISION).items() if key != "version"} | {"seeds": 3}
    assert DecisionRecord.parse(json.dumps(earlier)) == decision_record().model_copy(update={"seeds": 3})
    required = {key: earlier[key] for key in ("round", "decision", "reason", "stop", "accepted_round")}
    assert DecisionRecord.parse(json.dumps(required)).accepted_round == 1


def test_an_ablation_of_an_earlier_version_is_read() -> None:
    """Its steps that were left out have the kind `left out`."""
    (bar,) = ABLATION["bars"]
    earlier = {**ABLATION, "bars": [{**bar, "kind": "left out"}]}
    del earlier["version"]
    assert AblationRecord.parse(json.dumps(earlier)) == ablation_record()


@pytest.mark.parametrize(
    ("record_class", "name"),
    [
        (DecisionRecord, "models/1/decision.json"),
        (ModelRecord, "models/1/model.json"),
        (RoundManifestRecord, "models/1/manifest.json"),
        (CandidatesRecord, "models/1/candidates.json"),
        (AblationRecord, "reports/ablation.json"),
    ],
)
def test_a_file_of_a_later_version_is_named(record_class: type[Record], name: str, tmp_path: Path) -> None:
    """The error says which version it is and what to do, whatever the other keys are."""
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text('{"version": 2, "new": true}', encoding="utf-8")
    with pytest.raises(DamagedFile, match=rf"{path.name}.*version 2 .*later Seedling.*: upgrade Seedling"):
        record_class.read(path)


def test_a_model_of_a_later_version_is_not_loaded(tmp_path: Path) -> None:
    """Neither by the library nor by `seedling predict`, which names the file and the version."""
    workspace = grown(tmp_path, "text")
    path = workspace / "models" / "0" / "model.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "version": 2}), encoding="utf-8")
    with pytest.raises(DamagedFile, match="version 2"):
        load_model(path.parent, workspace)
    (tmp_path / "rows.txt").write_text("rain over the hills\n", encoding="utf-8")
    predicted = seedling("predict", tmp_path / "rows.txt", "-w", workspace)
    assert predicted.returncode == 2
    assert "model.json" in predicted.stderr
    assert "version 2 is of a later Seedling" in " ".join(predicted.stderr.split())


@pytest.mark.parametrize(("key", "value"), [("round", -1), ("unknown", 1), ("classes", []), ("temperature", "NaN")])
def test_a_model_file_with_another_value_is_damaged(key: str, value: object, tmp_path: Path) -> None:
    """The error names the first invalid key."""
    path = tmp_path / "models" / "0" / "model.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**model_record(member()).as_json(), key: value}), encoding="utf-8")
    with pytest.raises(DamagedFile, match=f"model.json.*{key}"):
        ModelRecord.read(path)
