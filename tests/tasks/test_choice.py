"""train: what is tried, what is chosen, when to abstain, and what a round is worth in labels."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import Diverged, InputError
from tasks.generation import GenerationWriter, Row, identify
from tasks.learners.features import Inputs
from tasks.learners.saving import Learner
from tasks.learners.training import Setting
from tasks.parallel import spread_by
from tasks.params import EncoderParams, Facts, TrainParams
from tasks.statistics import softmax
from tasks.train import cross_validation
from tasks.train.bought import bought
from tasks.train.candidates import first_candidates, further_candidates, later_candidates, within_budget
from tasks.train.choice import Judged, abstention, choose, greedy
from tasks.train.cross_validation import Candidate, Predictions, Workbench, cross_validate, out_of_fold_anew
from tasks.train.learning_curve import learning_curve, worth_in_labels
from tasks.train.rows import NO_FOLD, TrainingRows, drawn_pool
from tasks.train.trust import TRUSTED
from tasks.train.verdict import judge, scores_of_rows, unjudged

TEXTS, PICTURES = Facts(modality="text"), Facts(modality="image")


def labelled(many: int, classes: int = 2, wrong: tuple[int, ...] = ()) -> tuple[TrainingRows, Inputs, np.ndarray]:
    """Rows around as many far corners as there are classes, in five folds; those in `wrong` carry the next class's label."""
    rng = np.random.default_rng(1)
    truth = np.arange(many) % classes
    given = truth.copy()
    given[list(wrong)] = (given[list(wrong)] + 1) % classes
    features = (12 * np.eye(classes)[truth] + rng.normal(size=(many, classes))).astype(np.float32)
    rows = TrainingRows(
        ids=np.arange(many).astype(str),
        ingredient=np.array(["collected"] * many),
        fold=np.arange(many) // classes % 5,
        targets=np.eye(classes)[given],
        weights=np.ones(many),
        parents=np.stack([np.arange(many), np.full(many, -1)], axis=1),
        group=np.arange(many).astype(str),
        half=np.zeros(many, dtype=np.int64),
        lineage_labels=np.full((many, 6), -1),
        lineage_weights=np.zeros((many, 6)),
    )
    return rows, Inputs(features), truth


def bench_of(rows: TrainingRows, inputs: Inputs, scratch: Path | None = None) -> Workbench:
    none = inputs.take(np.arange(0))
    return Workbench(rows, inputs, none, Setting(rows.targets.shape[1], steps=20), scratch=scratch)


def test_a_wrong_label_is_trusted_less_by_models_that_did_not_see_it() -> None:
    """Three of sixty labels are wrong, far from their class: trusted a fifth at most, the right ones more than half; and
    where trust is strict, a twenty-fifth at most and more than a quarter.
    """
    wrong = (4, 17, 33)
    rows, inputs, _ = labelled(60, wrong=wrong)
    for loss, power in (("trusted", 1), ("strictly_trusted", 2)):
        trust = bench_of(rows, inputs).trust(5, loss)
        assert trust[list(wrong)].max() < 0.2**power
        assert np.delete(trust, wrong).min() > 0.5**power
    bench = bench_of(rows, inputs)
    once, twice = bench.trust(5, "trusted") ** 2, bench.trust(5, "strictly_trusted")
    right = np.delete(np.arange(60), wrong)
    assert twice[right].mean() > once[right].mean(), "models that learnt with trust believe the right labels more"


def test_a_lineages_trust_does_not_hang_on_the_labels_that_it_never_sees() -> None:
    """With every label of fold 0 turned round, lineage 0 trusts the other folds' rows as before, to the bit."""
    rows, inputs, _ = labelled(60)
    turned = rows.targets.copy()
    turned[rows.fold == 0] = turned[rows.fold == 0][:, ::-1]
    for loss in TRUSTED:
        first, second = (
            bench_of(one, inputs).trust(0, loss) for one in (rows, dataclasses.replace(rows, targets=turned))
        )
        assert (first == second).all()
        assert (first[rows.fold == 0] == 1).all()


def test_a_rows_trust_weighs_on_what_was_made_from_it() -> None:
    """A child counts as its parent is trusted, a mixture as the less trusted of two; other rows keep their weight."""
    rows, _, _ = labelled(4)
    made = TrainingRows(
        ids=np.arange(7).astype(str),
        ingredient=np.array(["collected"] * 4 + ["augment", "synthesize", "synthesize"]),
        fold=np.array([0, 1, 2, 3, 0, 1, NO_FOLD]),
        targets=np.eye(2)[[0, 1, 0, 1, 0, 1, 0]],
        weights=np.full(7, 0.5),
        parents=np.array([[0, -1], [1, -1], [2, -1], [3, -1], [0, -1], [1, 2], [-1, -1]]),
        group=np.arange(7).astype(str),
        half=np.zeros(7, dtype=np.int64),
        lineage_labels=np.full((7, 5), -1),
        lineage_weights=np.zeros((7, 5)),
    )
    everything = ("collected", "augment", "synthesize")
    _, _, weights = made.of_lineage(None, 4, 0, everything, np.array([0.2, 0.6, 0.4, 1.0]))
    assert weights == pytest.approx([0.1, 0.3, 0.2, 0.5, 0.1, 0.2, 0.5])
    assert rows.folds == [0, 1]


class Exploding:
    """A learner that cannot be trained."""

    name, classes = "svm", 2

    def fit(self, inputs: Inputs, targets: np.ndarray, weights: np.ndarray) -> None:
        """Diverges."""
        raise Diverged("no number at step 1")

    def logits(self, inputs: Inputs) -> np.ndarray:
        """Is never asked."""
        raise AssertionError


def test_a_learner_whose_loss_is_no_number_is_left_out_where_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' predictions are there; why it is missing is said."""
    real = cross_validation.make_learner

    def make(name: str, setting: Setting) -> Learner:
        return Exploding() if name == "svm" else real(name, setting)

    monkeypatch.setattr(cross_validation, "make_learner", make)
    rows, inputs, truth = labelled(40)
    sound, broken = Candidate("logistic_regression", ("collected",)), Candidate("svm", ("collected",))
    trained, failed = cross_validate(bench_of(rows, inputs), [sound, broken])
    assert list(trained) == [sound]
    assert (trained[sound].labelled.argmax(axis=1) == truth).mean() == 1.0
    assert failed == {broken: "no number at step 1"}
    assert cross_validate(bench_of(rows, inputs), [broken]) == ({}, {broken: "no number at step 1"})


def test_what_a_killed_run_had_finished_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fold that took long is kept; the next run takes it over, and half a file is computed anew."""
    monkeypatch.setattr(cross_validation, "WORTH_KEEPING", -1.0)
    rows, inputs, _ = labelled(40)
    one = Candidate("logistic_regression", ("collected",))
    first, _ = cross_validate(bench_of(rows, inputs, tmp_path), [one])
    kept = sorted(tmp_path.glob("*.npz"))
    assert len(kept) == 5
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    fits: list[int] = []
    real = cross_validation.make_learner
    monkeypatch.setattr(
        cross_validation, "make_learner", lambda name, setting: (fits.append(1), real(name, setting))[1]
    )
    second, _ = cross_validate(bench_of(rows, inputs, tmp_path), [one])
    assert len(fits) == 1
    assert (second[one].labelled == first[one].labelled).all()


def test_results_do_not_hang_on_how_the_folds_are_spread() -> None:
    """One after the other, in threads: the same numbers to the bit."""
    rows, inputs, _ = labelled(40)
    one = Candidate("random_forest", ("collected",))
    with spread_by(lambda work, places, name: [work(place) for place in places]):
        first, _ = cross_validate(bench_of(rows, inputs), [one], seconds=1e9)
    second, _ = cross_validate(bench_of(rows, inputs), [one], seconds=1e9)
    assert (first[one].labelled == second[one].labelled).all()


def predictions(logits: np.ndarray) -> Predictions:
    return Predictions(logits, np.zeros((0, 2)), np.zeros((1, 0, 2)), np.zeros(len(logits)), np.zeros((1, 0)))


def judged(truth: np.ndarray) -> Judged:
    return Judged(truth, np.arange(len(truth)), np.arange(len(truth)).astype(str), np.ones(len(truth)))


def test_the_greedy_selection_takes_learners_that_mend_each_other() -> None:
    """Two are each right on one half of the rows and undecided on the other; a third is undecided everywhere."""
    truth = np.arange(100) % 2
    sure = 4 * np.eye(2)[truth]
    half = np.arange(100) < 50
    trained = {
        Candidate("svm", ("collected",)): predictions(np.where(half[:, None], sure, 0.0)),
        Candidate("random_forest", ("collected",)): predictions(np.where(half[:, None], 0.0, sure)),
        Candidate("logistic_regression", ("collected",)): predictions(np.zeros((100, 2))),
    }
    picked = greedy(trained, judged(truth))
    assert {one.learner for one in picked} == {"svm", "random_forest"}
    assert {one.learner for one in choose(trained, judged(truth)).members} == {"svm", "random_forest"}


def test_without_a_row_to_judge_by_the_usual_learners_vote() -> None:
    """Each on its last recipe, no matter how they do; trees and neighbours do not vote."""
    nothing = predictions(np.zeros((0, 2)))
    trained = {
        Candidate(name, recipe): nothing
        for name in ("logistic_regression", "random_forest")
        for recipe in (("collected",), ("collected", "augment"))
    }
    found = choose(trained, judged(np.zeros(0, dtype=np.int64)))
    assert found.members == (Candidate("logistic_regression", ("collected", "augment")),)


def test_the_limit_to_abstain_by_hand() -> None:
    """Confidences .9, .8, .7, .6, right, right, wrong, right: three of four are right in all; 2 of 2 are, surer than .8."""
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    truth = np.array([0, 0, 1, 0])
    assert abstention(chances, truth, 0.75)["below"] == 0.0
    found = abstention(chances, truth, 0.95)
    assert (found["below"], found["answered"]["value"], found["right"]["value"]) == (0.8, 0.5, 1.0)


def test_out_of_scope_rows_count_as_wrong_but_where_the_model_says_nothing() -> None:
    """A row of none of the classes at .85: only .9 is sure enough; where class 1 is `nothing` and said, it is right."""
    chances, truth = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0])
    outside = np.array([[0.15, 0.85]])
    assert abstention(chances, truth, 0.95, outside)["below"] == 0.9
    assert abstention(chances, truth, 0.95, outside, nothing=1)["below"] == 0.0


def test_what_a_gain_is_worth_in_labels_by_hand() -> None:
    """Errors .4 with few labels and .2 with twice as many: they fall as 1 / labels. From .2 to .1 is 100 labels more of 100."""
    rows = np.arange(1000)
    few, many, after = (rows % 10 >= 4, rows % 10 >= 2, rows % 10 >= 1)
    found = worth_in_labels(
        few.astype(float),
        many.astype(float),
        many.astype(float),
        after.astype(float),
        rows.astype(str),
        labels=100,
        ratio=2.0,
        rng=np.random.default_rng(0),
    )
    assert found is not None
    assert found.value == pytest.approx(100, rel=0.1)
    assert found.low < found.value < found.high
    flat = worth_in_labels(
        many.astype(float), many.astype(float), few.astype(float), after.astype(float), rows.astype(str),
        labels=100, ratio=2.0, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert flat is None, "where more labels brought nothing, nothing can be said"


def test_classes_that_surely_lost_are_named() -> None:
    """Of 200 rows a class, class 1 loses 40 that were right and class 0 wins 40: the sum is 0, the harm is said."""
    truth = np.repeat([0, 1], 200)
    place = np.arange(400) % 200
    old = np.where(truth == 0, place < 120, place < 160)
    new = np.where(truth == 0, place < 160, place < 120)
    both = [softmax(6 * np.where(one[:, None], np.eye(2)[truth], np.eye(2)[1 - truth])) for one in (old, new)]
    found = judge(
        1, 0, [both[0][None]], [both[1][None]], truth, np.arange(400).astype(str),
        changed_share=0.5, last=False, params=TrainParams(bootstrap_draws=500), seed=0,
    )  # fmt: skip
    assert found.decision == "accepted"
    assert [(one.label, one.harmed, round(one.change.value, 6)) for one in found.classes] == [
        (0, False, 0.2),
        (1, True, -0.2),
    ]
    assert "1 of 2 classes lost rows for certain" in found.reason


def test_a_round_that_nothing_can_judge_is_rejected_where_classes_vanish() -> None:
    """And accepted, with the reason, where none does."""
    assert unjudged(1, 0, 2, last=False).decision == "rejected"
    accepted = unjudged(1, 0, 0, last=True)
    assert (accepted.decision, accepted.accepted_round, accepted.stop, accepted.rows) == ("accepted", 1, True, 0)


def test_what_does_not_fit_the_budget_is_left_out_with_its_seconds() -> None:
    """The first is always tried; the others while the sum fits."""
    rows, inputs, _ = labelled(400)
    tried = [Candidate(name, ("collected",)) for name in ("random_forest", "logistic_regression", "svm")]
    kept, seconds, left_out = within_budget(tried, bench_of(rows, inputs), 1e-9)
    assert kept == tried[:1]
    assert set(left_out) == set(tried[1:])
    assert seconds > 0 and min(left_out.values()) > 0
    assert within_budget(tried, bench_of(rows, inputs), 1e9)[0] == tried


def test_losses_for_imbalance_are_tried_where_classes_are_uneven() -> None:
    """Two to one or more; doubtful labels from sixty rows on; a person's list goes before."""
    even, _, _ = labelled(40)
    best = [Candidate("svm", ("collected",))]
    assert further_candidates(TrainParams(), TEXTS, even, best) == []
    uneven = dataclasses.replace(even, targets=np.eye(2)[(np.arange(40) < 10).astype(int)])
    tried = {one.loss for one in further_candidates(TrainParams(), TEXTS, uneven, best)}
    assert tried == {"balanced", "logit_adjusted"}
    many, _, _ = labelled(60)
    assert {one.loss for one in further_candidates(TrainParams(), TEXTS, many, best)} == {"trusted", "strictly_trusted"}
    few_a_class = labelled(100, classes=50)[0]
    assert further_candidates(TrainParams(), TEXTS, few_a_class, best) == [], "two rows a class"
    assert further_candidates(TrainParams(losses=["plain"]), TEXTS, many, best) == []


def test_a_learner_that_the_data_cannot_have_is_explained() -> None:
    """The network wants pictures without an encoder, fine-tuning wants an encoder."""
    rows, _, _ = labelled(40)
    with pytest.raises(InputError, match="'fine_tuned' tunes the encoder, and there is none"):
        first_candidates(TrainParams(candidates=["fine_tuned"]), TEXTS, rows)
    encoded = TrainParams(candidates=["network"], encoder=EncoderParams(model="here"))
    with pytest.raises(InputError, match=r"'network' learns from small pictures.*set train.encoder to null"):
        first_candidates(encoded, PICTURES, rows)


def test_a_large_pool_is_drawn_by_names(tmp_path: Path) -> None:
    """So many rows, the same ones in whatever order they stand; all where they are few."""
    for name, order in (("one", range(500)), ("other", reversed(range(500)))):
        with GenerationWriter(tmp_path / name, stage="validate", modality="text") as writer:
            for number in order:
                writer.keep(Row(identify(str(number).encode()), payload=str(number)))
            writer.keep(Row(identify(b"known"), split="train", label="a", payload="known"))
            writer.close(rows_in=501)
    drawn, other = (drawn_pool(tmp_path / name, 100, seed=0) for name in ("one", "other"))
    assert drawn == other
    assert len(set(drawn or ())) == 100
    assert identify(b"known") not in drawn
    assert drawn_pool(tmp_path / "one", 500, seed=0) is None


def test_where_every_labelled_row_teaches_validation_rows_judge() -> None:
    """One label a class in no fold, ten validation rows far apart: the final models' predictions of them, all right."""
    rows, inputs, truth = labelled(12)
    alone = np.arange(2)
    one_a_class = TrainingRows(
        ids=rows.ids[alone],
        ingredient=rows.ingredient[alone],
        fold=np.full(2, NO_FOLD),
        targets=rows.targets[alone],
        weights=rows.weights[alone],
        parents=rows.parents[alone],
        group=rows.group[alone],
        half=rows.half[alone],
        lineage_labels=np.full((2, 1), -1),
        lineage_weights=np.zeros((2, 1)),
    )
    bench = Workbench(one_a_class, inputs.take(alone), inputs.take(np.arange(2, 12)), Setting(2))
    one = Candidate("logistic_regression", ("collected",))
    trained, _ = cross_validate(bench, [one])
    assert (trained[one].validation.argmax(axis=1) == truth[2:]).all()


def test_another_seed_changes_what_depends_on_it_alone() -> None:
    """Without a pool logistic regression is the same under each seed, and a forest is not."""
    rows, inputs, _ = labelled(40, wrong=(0, 7, 12, 21, 30))
    bench = bench_of(rows, inputs)
    tried = [Candidate(name, ("collected",)) for name in ("logistic_regression", "random_forest")]
    first, _ = cross_validate(bench, tried)
    same = [np.array_equal(out_of_fold_anew(bench, one, [1])[0].labelled, first[one].labelled) for one in tried]
    assert same == [True, False]


def test_a_learner_of_one_seed_counts_alike_in_all() -> None:
    """Two learners on one row: right under both seeds, and under the first alone: 1 and 1/2."""
    always, first_alone = np.array([[[0.9, 0.1]]]), np.array([[[0.9, 0.1]], [[0.2, 0.8]]])
    found = scores_of_rows([always, first_alone], lambda said: said[:, 0] > 0.5)
    assert found.tolist() == [[1.0], [0.5]]


def test_later_rounds_train_each_learners_best_and_lose_nothing_that_they_take_over(tmp_path: Path) -> None:
    """Of two losses of a head the better one; of a network both, since both are there and a vote of them may be the choice."""
    losses = {
        ("network", "plain"): 0.3,
        ("network", "consistency"): 0.2,
        ("svm", "trusted"): 0.4,
        ("svm", "plain"): 0.5,
        ("ensemble", "plain"): 0.1,
    }
    tried = [
        {
            "learner": learner,
            "recipe": ["collected"],
            "loss": loss,
            "log_loss": {},
            "choice_loss": value,
            "chosen": False,
        }
        for (learner, loss), value in losses.items()
    ]
    (tmp_path / "candidates.json").write_text(json.dumps({"tried": tried}))
    found = [(one.learner, one.loss) for one in later_candidates(tmp_path)]
    assert found == [("network", "plain"), ("network", "consistency"), ("svm", "trusted")]


def test_the_only_other_row_of_a_class_is_trusted_as_others_are() -> None:
    """A class of two rows, one in the fold that the lineage never sees: no model that is asked knows the class, and the
    other row's weight must not tell which class that fold holds a row of.
    """
    rows, inputs, _ = labelled(42, classes=2)
    targets = np.zeros((42, 3))
    targets[:, :2] = rows.targets
    targets[[0, 11]] = [0, 0, 1]
    fold = rows.fold.copy()
    fold[[0, 11]] = [0, 1]
    rare = dataclasses.replace(rows, targets=targets, fold=fold)
    trust = bench_of(rare, inputs).trust(0, "trusted")
    others = (fold != 0) & (np.arange(42) != 11)
    assert trust[11] == pytest.approx(trust[others].mean())


def test_what_a_step_bought_is_paired_over_the_learners_that_have_both() -> None:
    """Augmenting mends two rows of ten for one learner and one for the other: +15 points; a learner without it counts nowhere."""
    truth = np.zeros(10, dtype=np.int64)

    def right(many: int) -> np.ndarray:
        return np.eye(2)[(np.arange(10) >= many).astype(int)]

    said = {
        Candidate("svm", ("collected",), "plain"): right(6),
        Candidate("svm", ("collected", "augment"), "plain"): right(8),
        Candidate("logistic_regression", ("collected",), "plain"): right(7),
        Candidate("logistic_regression", ("collected", "augment"), "plain"): right(8),
        Candidate("logistic_regression", ("collected",), "trusted"): right(6),
        Candidate("network", ("collected",), "plain"): right(1),
    }
    steps = {one["step"]: one for one in bought(said, judged(truth), 500, 0)}
    assert steps["augment"]["difference"]["value"] == pytest.approx(0.15)
    assert steps["augment"]["learners"] == ["svm", "logistic_regression"]
    assert (steps["trusted"]["kind"], steps["trusted"]["difference"]["value"]) == ("loss", pytest.approx(-0.1))
    assert set(steps) == {"augment", "trusted"}
    assert bought({one: chances[:0] for one, chances in said.items()}, judged(truth[:0]), 500, 0) == []


def test_the_learning_curve_counts_the_labels_of_one_fold_after_the_other() -> None:
    """Forty labels in five folds: 8, 16, 24 and 32 teach rows that anyone can tell apart; two folds draw no curve."""
    rows, inputs, truth = labelled(40)
    found = learning_curve(bench_of(rows, inputs), judged(truth))
    assert found is not None
    assert [(one["labels"], one["accuracy"]["value"]) for one in found["points"]] == [(8, 1), (16, 1), (24, 1), (32, 1)]
    assert (found["labels"], found["rows"]) == (40, 40)
    halves = replace(rows, fold=rows.fold % 2)
    assert learning_curve(bench_of(halves, inputs), judged(truth)) is None


def test_a_curve_rises_where_labels_help() -> None:
    """Rows about corners that overlap, in forty dimensions: with a fifth of the labels more is wrong."""
    source = np.random.default_rng(0)
    rows, _, truth = labelled(400)
    features = source.normal(size=(400, 40)).astype(np.float32)
    features[:, 0] += 3 * truth
    found = learning_curve(bench_of(rows, Inputs(features)), judged(truth))
    assert found is not None
    values = [one["accuracy"]["value"] for one in found["points"]]
    assert values[0] < values[-1] - 0.02
