"""Doubtful labels: found where they were planted, promised honestly, repaired where told, and not judged where nobody can."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import average_precision_score, f1_score

from seedling.config.params import ValidateParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, read, read_manifest, read_rejected
from seedling.features.classical import Inputs
from seedling.label_quality.label_issues import CannotJudge, Doubt, doubt, doubtful
from seedling.label_quality.noise_model import (
    ALL,
    SCALES,
    SHARES,
    SIMPLE,
    Explained,
    Mistakes,
    Pairs,
    Weights,
    would_show,
)
from seedling.label_quality.out_of_fold import Discriminant, Learners
from seedling.parallel import executor as parallel
from seedling.report.data_page import write_data_page
from seedling.stats.statistics import softmax
from seedling.validate import validate
from seedling.validate.checks import CheckedRow
from seedling.validate.label_checks import left_to_people, repair

DIGITS = load_digits()
TEXTS = WorkspaceConfig(modality="text")
MANY = 200  # sentences


def planted(share: float, seed: int = 0, rows: int = 900) -> tuple[Inputs, np.ndarray, np.ndarray, np.ndarray]:
    """Handwritten digits, some with another label at random: inputs, given labels, whether they are wrong, folds."""
    rng = np.random.default_rng(seed)
    features, right = (DIGITS.data[:rows] / 16).astype(np.float32), DIGITS.target[:rows].astype(np.int64)
    wrong = rng.random(rows) < share
    given = np.where(wrong, (right + rng.integers(1, 10, rows)) % 10, right)
    return Inputs(features - features.mean(axis=0)), given, wrong, rng.integers(0, 5, rows)


def test_planted_wrong_labels_are_found_and_the_right_ones_suggested() -> None:
    """A fifth of 900 labels: nearly all are ranked first, decided, counted, and nearly all suggestions are the truth."""
    inputs, given, wrong, fold = planted(0.2)
    found = doubt(inputs, given, fold, np.ones(900), 10)
    assert average_precision_score(wrong, found.p_label_error) > 0.97
    assert f1_score(wrong, found.flagged) > 0.93
    assert found.expected == pytest.approx(wrong.sum(), rel=0.1)
    assert (found.suggested == DIGITS.target[:900])[wrong].mean() > 0.95


def test_right_labels_are_left_in_peace() -> None:
    """Of 900 labels by the set's authors less than two in a hundred are doubted."""
    inputs, given, _, fold = planted(0.0)
    assert doubt(inputs, given, fold, np.ones(900), 10).flagged.mean() < 0.02


def test_the_same_rows_give_the_same_doubt_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one core and with eight, bit by bit."""
    inputs, given, _, fold = planted(0.1, rows=300)
    found = []
    for cores in (1, 8):
        monkeypatch.setattr(parallel, "usable_cores", lambda cores=cores: cores)
        found.append(doubt(inputs, given, fold, np.ones(300), 10).p_label_error.tobytes())
    assert found[0] == found[1]


def test_a_noise_model_explains_labels_by_hand() -> None:
    """One row surely of class 0 that is labeled 1, among ten thousand right ones of either: T(0, 1) is nearly the prior's
    0.05 × 20 / (n + 20), so that the row is wrong with odds of p / (1 - p) × T(0, 1) / T(1, 1).
    """
    many, sure = 10_000, 0.999
    truth = np.repeat([0, 1], many)
    logits = np.log(np.where(np.eye(2)[truth] == 1, sure, 1 - sure))
    logits = np.vstack([logits, np.log([[sure, 1 - sure]])])
    given = np.append(truth, 1)
    posterior = Explained.by(logits, given, np.ones(len(given), dtype=bool))
    opinion = softmax(posterior.logits / posterior.temperature)[-1]
    carried = (posterior.carries[0, 1], posterior.carries[1, 1])
    by_hand = opinion[1] * carried[1] / (opinion[0] * carried[0] + opinion[1] * carried[1])
    assert posterior.believed[-1] == pytest.approx(by_hand)
    assert carried[0] < 2e-3


def overlapping(share: float, seed: int) -> tuple[Inputs, np.ndarray, np.ndarray, np.ndarray]:
    """Four round clouds that overlap, so that the best rule there is errs on a good quarter: inputs, given labels, whether wrong, folds."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 4, 400)
    features = (1.6 * np.eye(4)[right] + rng.normal(size=(400, 4))).astype(np.float32)
    wrong = rng.random(400) < share
    given = np.where(wrong, (right + rng.integers(1, 4, 400)) % 4, right)
    return Inputs(features - features.mean(axis=0)), given, wrong, rng.integers(0, 5, 400)


@cache
def judged(share: float, seed: int) -> tuple[Doubt, np.ndarray]:
    """What is found in overlapping clouds, and which labels are wrong."""
    inputs, given, wrong, fold = overlapping(share, seed)
    return doubt(inputs, given, fold, np.ones(400), 4), wrong


def test_hard_rows_are_not_taken_for_wrong_labels() -> None:
    """Where a quarter of 400 rows looks like another class, none of 400 labels wrong: less than 24 are expected; a fifth wrong: about 80."""
    assert np.mean([judged(0.0, seed)[0].expected for seed in range(3)]) < 24
    assert np.mean([judged(0.2, seed)[0].expected for seed in range(3)]) == pytest.approx(80, rel=0.2)


def test_the_interval_of_how_many_are_wrong_holds_the_truth() -> None:
    """Of eight draws, overlapping clouds and digits, with 5 and 20 % wrong, the 95 % interval misses one at most."""
    held, widths = [], []
    for seed in range(2):
        for share in (0.05, 0.2):
            inputs, given, wrong, fold = planted(share, seed, rows=500)
            digits = doubt(inputs, given, fold, np.ones(500), 10), wrong
            for found, so in (judged(share, seed), digits):
                held.append(found.between[0] - 1 <= so.sum() <= found.between[1] + 1)
                widths.append((found.between[1] - found.between[0]) / len(so))
    assert sum(held) >= len(held) - 1
    assert np.mean(widths) < 0.15


def test_probabilities_of_being_wrong_are_true_in_the_mean() -> None:
    """Of rows that are said to be wrong with up to 30 %, 30 to 70 %, and more, about as many are, to within 15 points."""
    found = [judged(0.2, seed) for seed in range(4)]
    chances = np.concatenate([one.p_label_error for one, _ in found])
    wrong = np.concatenate([so for _, so in found])
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0)):
        mine = (chances >= low) & (chances < high)
        assert wrong[mine].mean() == pytest.approx(chances[mine].mean(), abs=0.15)


def test_wrong_labels_of_one_class_alone_are_found() -> None:
    """Of two clouds a third of the one's rows carry the other's label, and none the other way: most are found, and they are counted."""
    rng = np.random.default_rng(0)
    right = np.tile([0, 1], 3_000)  # in an order that a regular choice of rows would see one class of
    features = (3 * np.eye(4)[right] + rng.normal(size=(6_000, 4))).astype(np.float32)
    wrong = (right == 1) & (rng.random(6_000) < 1 / 3)
    found = doubt(
        Inputs(features - features.mean(axis=0)),
        np.where(wrong, 0, right),
        rng.integers(0, 5, 6_000),
        np.ones(6_000),
        2,
    )
    assert f1_score(wrong, found.flagged) > 0.9
    assert found.expected == pytest.approx(wrong.sum(), rel=0.25)


def test_with_two_classes_all_ways_to_err_are_one() -> None:
    """There is one other class to name, whatever it is named by: the weights are alike, at temperatures where opinions are sure, too."""
    rng = np.random.default_rng(0)
    logits, given = rng.normal(0, 12, size=(200, 2)), rng.integers(0, 2, 200)
    weights = Weights.of(logits, given, None, np.ones(2), SIMPLE[:3]).weight.sum(axis=(0, 1))
    assert weights == pytest.approx([1 / 3] * 3)


def test_what_a_row_would_show_under_each_label_by_hand() -> None:
    """The opinion .5, .3, .2, by one model: a share s of labels wrong, confusably. Label 1 stands on rows of class 0 with .5 × .3 / .5 and of
    class 2 with .2 × .3 / .8, times s; against .3 × (1 - s).
    """
    opinion, weight = np.array([[0.5, 0.3, 0.2]]), np.zeros((len(SCALES), len(SHARES), 1))
    weight[3, 10] = 1.0
    shown = would_show(
        SCALES[3] * np.log(opinion), Weights(weight, weight, (SIMPLE[2],), False), np.zeros((3, 3)), np.ones(3)
    )[0]
    mistaken = SHARES[10] * (0.5 * 0.3 / 0.5 + 0.2 * 0.3 / 0.8)
    assert shown[1] == pytest.approx(mistaken / (0.3 * (1 - SHARES[10]) + mistaken))


def test_what_the_wrong_labels_of_a_class_name_is_learnt_where_they_agree() -> None:
    """Of digits a fifth has the next digit's label, or any other's: that each class has its own few is believed of the first alone."""
    inputs, _, wrong, fold = planted(0.2)
    right, rng = DIGITS.target[:900].astype(np.int64), np.random.default_rng(2)
    known, pairs = np.ones(900, dtype=bool), [way.pairs > 0 for way in ALL]
    for step, agree in ((np.ones(900, dtype=np.int64), True), (rng.integers(1, 10, 900), False)):
        given = np.where(wrong, (right + step) % 10, right)
        opinion = Explained.by(Learners.of(inputs, fold).say(given, np.ones(900), 10)["neighbors"], given, known)
        first = Mistakes.behind(opinion, known).posterior
        learnt = Pairs.of(first, given).without(first, given, np.arange(900))
        weight = Weights.of(opinion.logits, given, learnt, np.ones(10), ALL).weight.sum(axis=(0, 1))
        assert (weight[pairs].sum() > 0.5) == agree


def test_the_discriminant_is_the_one_of_each_fold_s_other_rows() -> None:
    """Against scikit-learn's, taught on the other folds with the same shrinkage, differences of logits agree; its own fold's labels change nothing."""
    rng = np.random.default_rng(0)
    features, given, fold = rng.normal(size=(120, 5)), rng.integers(0, 3, 120), rng.integers(0, 3, 120)
    discriminant = Discriminant.of(features, fold)
    assert discriminant is not None
    said = discriminant.say(given, np.ones(120), 3)
    for one in range(3):
        mine = fold == one
        peer = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=_Halfway()).fit(
            features[~mine], given[~mine]
        )
        theirs = peer.decision_function(features[mine])
        assert said[mine] - said[mine][:, :1] == pytest.approx(theirs - theirs[:, :1], abs=1e-8)
    other = np.where(fold == 0, (given + 1) % 3, given)
    assert discriminant.say(other, np.ones(120), 3)[fold == 0] == pytest.approx(said[fold == 0], abs=1e-8)


class _Halfway:
    """What scikit-learn takes for a class's covariance, before it sums those by the classes' shares: halfway to one alike in all directions."""

    def fit(self, rows: np.ndarray) -> None:
        covariance = np.cov(rows.T, bias=True)
        self.covariance_ = 0.5 * covariance + 0.5 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))


def test_a_row_does_not_speak_for_its_own_mistake() -> None:
    """Three rows of class 0, surely: two labeled 1, one labeled 2. Without itself a row sees the two others: (1 + 1/2) / (2 + 1) name 1 beside
    one of those, (0 + 1/2) / (2 + 1) name 2 beside the third, the half being one more, shared out over two classes.
    """
    posterior, given = np.array([[1.0, 0, 0]] * 3), np.array([1, 1, 2])
    share = Pairs.of(posterior, given).without(posterior, given, np.arange(3))
    assert share[:, 0] == pytest.approx([1.5 / 3, 1.5 / 3, 0.5 / 3])
    assert Pairs.of(posterior, given).share[0] == pytest.approx([0.0, 2.5 / 4, 1.5 / 4])


def test_the_decision_makes_the_expected_f1_largest() -> None:
    """Four probabilities by hand: the first two give 2 × 1.7 / (2 + 2.1) = 0.83, one 0.58, three 0.78."""
    assert doubtful(np.array([0.1, 0.9, 0.8, 0.3])).tolist() == [False, True, True, False]
    assert not doubtful(np.array([0.2, 0.1, np.nan])).any()


@pytest.mark.slow
def test_the_promise_covers_what_is_found() -> None:
    """Twenty seeds, budgets of 30 and 90 rows: at least nine in ten intervals hold the true share."""
    kept = []
    for seed in range(20):
        inputs, given, wrong, fold = planted(0.05 + 0.01 * seed, seed, rows=500)
        found = doubt(inputs, given, fold, np.ones(500), 10)
        order = np.argsort(-found.p_label_error, kind="stable")
        for rows in (30, 90):
            promise = found.share_found(rows)
            kept.append(promise.low <= wrong[order[:rows]].sum() / wrong.sum() <= promise.high)
    assert np.mean(kept) >= 0.9


def test_who_looks_at_all_rows_finds_all() -> None:
    """And who looks at none finds none."""
    known = Doubt(
        np.array([0.5, 0.1]),
        np.array([1, 0]),
        np.array([True, False]),
        np.ones(2),
        np.ones((2, 2)),
        np.ones(2),
        (0.6, 0.6),
    )
    assert (known.share_found(2).low, known.share_found(0).value) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fold": np.zeros(300, dtype=np.int64)}, "no two folds"),
        ({"original_label": np.zeros(300, dtype=np.int64)}, "fewer than two classes"),
        ({"features": np.full((300, 4), np.nan, np.float32)}, "no numbers"),
        ({"features": np.ones((300, 4), np.float32)}, "same features"),
        ({"features": np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)}, "no more of a row"),
        (
            {"original_label": np.repeat(np.arange(10), 30), "fold": np.repeat(np.arange(10), 30)},
            "all its rows in one fold",
        ),
    ],
)
def test_what_cannot_be_judged_is_said(change: dict[str, np.ndarray], said: str) -> None:
    """One fold, one class, features that are no numbers, all alike or meaningless, classes that fill a fold alone."""
    inputs, given, _, fold = planted(0.1, rows=300)
    inputs = replace(inputs, features=change.get("features", inputs.features))
    with pytest.raises(CannotJudge, match=said):
        doubt(inputs, change.get("original_label", given), change.get("fold", fold), np.ones(300), 10)


def sentences(wrong: int) -> list[Row]:
    """Sentences of two kinds, the first of which have the other's label."""
    words = {"fruit": ["apple", "pear", "plum", "cherry"], "road": ["bus", "tram", "lorry", "bike"]}
    rng = np.random.default_rng(1)
    rows = []
    for number in range(MANY):
        kind, other = ("fruit", "road") if number % 2 else ("road", "fruit")
        text = " ".join(rng.choice(words[kind], 5)) + f" {number}"
        label = other if number < wrong else kind
        rows.append(
            Row(identify(text.encode()), "train", label=label, label_source="human", payload=text, origin=f"o{number}")
        )
    return rows


def checked(folder: Path, wrong: int = 6, **params: object) -> Path:
    """Validate's output on the sentences."""
    with GenerationWriter(folder / "generations/scrape", stage="scrape", modality="text") as writer:
        for row in sentences(wrong):
            writer.keep(row)
        writer.close(rows_in=MANY)
    output = folder / "generations/validate"
    settled = ValidateParams.model_validate({"test_share": 0, **params})
    validate(settled, TEXTS, collected=folder / "generations/scrape", output=output)
    (output / "gate.json").write_text("[]", encoding="utf-8")
    return output


PLANTED = {f"o{number}" for number in range(6)}


def test_report_changes_nothing_and_names_the_rows(tmp_path: Path) -> None:
    """The six planted labels are the doubtful ones; all other rows keep label and weight."""
    kept = read(checked(tmp_path))
    assert set(kept.loc[kept["is_label_issue"] == True, "origin"]) == PLANTED  # noqa: E712  (null for rows that are not judged)
    assert (kept["weight"] == 1).all() and kept["original_label"].isna().all() and len(kept) == MANY


def test_drop_rejects_the_doubtful_rows_with_a_reason(tmp_path: Path) -> None:
    """Their labels stay readable beside the reason, so it can be taken back."""
    gone = read_rejected(checked(tmp_path, label_issues="drop"))
    assert set(gone["origin"]) == PLANTED and set(gone["reason"]) == {"label_issue"}
    assert (gone["original_label"] == gone["label"]).all()


def test_relabel_takes_the_suggestion_and_no_longer_counts_as_a_persons(tmp_path: Path) -> None:
    """The label becomes the other one, `given` keeps the old one, and the row judges no model any more."""
    kept = read(checked(tmp_path, label_issues="relabel")).set_index("origin")
    changed = kept.loc[sorted(PLANTED)]
    assert (changed["label"] == changed["suggested_label"]).all() and (
        changed["label"] != changed["original_label"]
    ).all()
    assert set(changed["label_source"]) == {"repaired"}
    assert (kept.drop(index=sorted(PLANTED))["label_source"] == "human").all()


def test_down_weight_lets_a_label_count_as_far_as_it_is_believed(tmp_path: Path) -> None:
    """The weight is 1 - p_label_error, at least a hundredth; the others keep theirs."""
    kept = read(checked(tmp_path, **{"label_issues": "down-weight"})).set_index("origin")
    changed = kept.loc[sorted(PLANTED)]
    assert changed["weight"].to_numpy() == pytest.approx(
        np.maximum(1 - changed["p_label_error"].to_numpy(), 0.01), abs=1e-6
    )
    assert (kept.drop(index=sorted(PLANTED))["weight"] == 1).all()


def test_a_class_is_left_to_people_where_more_than_half_of_it_is_doubtful() -> None:
    """Two of four labels of a are, three of four of b, none of c, and d has no row: b alone."""
    flagged = np.array([True, True, False, False, True, True, True, False, False])
    assert left_to_people(flagged, np.array([0] * 4 + [1] * 4 + [2]), ["a", "b", "c", "d"]) == ["b"]


def test_a_class_that_is_left_to_people_is_not_repaired() -> None:
    """Of two doubtful rows the one whose class most of the doubt falls on stays as it is."""
    judged = [CheckedRow(Row(name, "train", label=name), None) for name in ("a", "b")]
    every = np.ones(2, dtype=bool)
    found = Doubt(np.full(2, 0.9), np.array([1, 0]), every, np.ones(2), np.ones((2, 2)), np.ones(2), (2.0,))
    assert repair(judged, found, "drop", {"a"}) == 1
    assert [one.reason for one in judged] == [None, "label_issue"]


def test_few_labels_are_not_judged_and_it_is_said(tmp_path: Path) -> None:
    """Four a class: wrong labels and weak models cannot be told apart."""
    with GenerationWriter(tmp_path / "generations/scrape", stage="scrape", modality="text") as writer:
        for row in sentences(0)[:8]:
            writer.keep(row)
        writer.close(rows_in=8)
    validate(ValidateParams(test_share=0), TEXTS, collected=tmp_path / "generations/scrape", output=tmp_path / "out")
    assert "fewer than 5 labeled rows a class" in read_manifest(tmp_path / "out")["notes"]["doubt"]["cannot_judge"]


@pytest.mark.parametrize("params", [{"label_issues": "ignore"}, {"test_share": 0.2, "min_test_rows": 2}])
def test_the_page_is_there_whether_labels_are_judged_or_not(tmp_path: Path, params: dict[str, object]) -> None:
    """Ignored, it says that nobody can say; with a carved test split it has its numbers."""
    checked(tmp_path, **params)
    page = write_data_page(tmp_path).read_text(encoding="utf-8")
    assert ("Nobody can say how many labels are wrong" in page) is ("label_issues" in params)
    assert (
        (tmp_path / "reports/label_issues.csv")
        .read_text(encoding="utf-8")
        .startswith("id,origin,original_label,suggested_label")
    )


def test_the_lists_and_the_page_show_the_doubtful_rows_first(tmp_path: Path) -> None:
    """label_issues.csv ranks the planted rows first; the page shows them with both labels."""
    checked(tmp_path)
    page = write_data_page(tmp_path).read_text(encoding="utf-8")
    ranked = pd.read_csv(tmp_path / "reports/label_issues.csv")
    assert list(ranked.columns[:6]) == ["id", "origin", "original_label", "suggested_label", "p_label_error", "rank"]
    assert set(ranked["origin"].head(6)) == PLANTED and ranked["p_label_error"].is_monotonic_decreasing
    assert "<del>fruit</del> → <ins>road</ins>" in page
    assert json.dumps(read_manifest(tmp_path / "generations/validate")["notes"]["doubt"]["flagged"]) == "6"


def test_a_text_that_is_markup_is_shown_and_never_run(tmp_path: Path) -> None:
    """What is in the data is escaped on the page."""
    rows = sentences(0)
    text = "<script>alert(1)</script> apple pear plum"
    rows[1] = replace(rows[1], id=identify(text.encode()), payload=text)
    with GenerationWriter(tmp_path / "generations/scrape", stage="scrape", modality="text") as writer:
        for row in rows:
            writer.keep(row)
        writer.close(rows_in=MANY)
    output = tmp_path / "generations/validate"
    validate(ValidateParams(test_share=0), TEXTS, collected=tmp_path / "generations/scrape", output=output)
    (output / "gate.json").write_text("[]", encoding="utf-8")
    page = write_data_page(tmp_path).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page and "<script>" not in page
