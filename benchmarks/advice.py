"""Is the advice worth following? Each piece of it is followed in simulation, and the first is set against the others.

    python benchmarks/advice.py --data FOLDER --backbone FOLDER [--draws 20]

FOLDER holds the sets of benchmarks/few_labels.py. A start is some labeled training rows, a part of them with wrong labels, the rest of
the training rows as a pool. The rows come from four sources, dealt at random; in every other start all wrong labels are one source's, in the
others anybody's. Seedling's own curve, doubt and advice are asked; what they see of the model's errors is one half of the test rows.
Following a piece: the least sure pool rows get their labels, or the most doubtful labels are mended, or a source's, or so many pool rows of a class get
theirs. Each row has a child, whose features are changed a little or beyond recognition, as an augmentation does; leaving it out is a piece, too. Then the same learner (logistic regression) is trained anew and judged on the other half. A random piece is the mean of all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from few_labels import parser_of
from record import Found, mean_with_interval, write
from sklearn.model_selection import StratifiedKFold

from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.dataset.training_rows import TrainingRows
from seedling.evaluate.next_steps import Curve, LabelSource, errors_by_class, next_steps
from seedling.features.classical import Inputs
from seedling.features.encoder_handle import EncoderHandle
from seedling.label_quality.label_issues import find_label_issues
from seedling.models.heads import Head
from seedling.models.model import single_threaded
from seedling.models.saving import make_features
from seedling.models.training import FitContext
from seedling.stats.statistics import softmax, wilson
from seedling.train.choice import EvaluationRows
from seedling.train.cross_validation import TrainingData
from seedling.train.learning_curve import learning_curve
from seedling.train.step_contributions import step_contributions
from seedling.train.tally import Candidate
from seedling.validate.label_checks import budget

SETS = ("trashnet", "banking77_oos")
A_CLASS, WRONG = (
    {"trashnet": (10, 40), "banking77_oos": (5, 15)},
    (0.0, 0.2),
)  # labels a class, share of wrong ones: drawn between
SOURCES = 4
STRENGTH = (
    0.2,
    5.0,
)  # of the children's noise, in the features' standard deviations: drawn between, on a logarithmic scale


def load(data: Path, name: str, backbone: str) -> tuple[np.ndarray, pd.DataFrame, list[str]]:
    """Features, rows with label and split, classes."""
    frame = pd.read_parquet(data / name / "data.parquet")
    known = set(frame.loc[frame["split"] == "test", "label"]) & set(frame.loc[frame["split"] == "train", "label"])
    frame = frame[frame["split"].isin(["train", "test"]) & frame["label"].isin(known)].reset_index(drop=True)
    modality: Any = "text" if "text" in frame else "image"
    encoder = EncoderParams(model="all-MiniLM-L6-v2" if modality == "text" else backbone)
    with tempfile.TemporaryDirectory() as folder:
        maker = make_features(
            EncoderHandle(encoder, modality, Path(folder)) if encoder else None,
            None,
            WorkspaceConfig(modality=modality),
        )
        features = maker.fit_transform(frame[modality].tolist()).features
    return features, frame, sorted(known)


def taught(features: np.ndarray, rows: np.ndarray, given: np.ndarray, classes: int) -> Head:
    """Logistic regression on these rows."""
    head = Head("logistic_regression", 0, classes)
    head.fit(Inputs(features[rows]), np.eye(classes)[given], np.ones(len(rows)))
    return head


def with_children(
    features: np.ndarray, changed: np.ndarray | None, rows: np.ndarray, given: np.ndarray, classes: int
) -> Head:
    """Logistic regression on these rows and, where they are given, a changed child of each at half its weight."""
    if changed is None:
        return taught(features, rows, given, classes)
    head, many = Head("logistic_regression", 0, classes), len(rows)
    both = np.concatenate([features[rows], changed[rows]])
    head.fit(Inputs(both), np.eye(classes)[np.tile(given, 2)], np.repeat([1.0, 0.5], many))
    return head


def what_children_bought(
    features: np.ndarray, changed: np.ndarray, rows: np.ndarray, given: np.ndarray, fold: np.ndarray, classes: int
) -> list[dict[str, Any]]:
    """As train says it: the same learner with the children and without them, on folds that it has not seen."""
    said = {}
    for recipe, children in ((("collected",), None), (("collected", "augment"), changed)):
        chances = np.zeros((len(rows), classes))
        for one in np.unique(fold):
            head = with_children(features, children, rows[fold != one], given[fold != one], classes)
            chances[fold == one] = softmax(head.logits(Inputs(features[rows[fold == one]])))
        said[Candidate("logistic_regression", recipe)] = chances
    judged = EvaluationRows(given, np.arange(len(rows)), rows.astype(str), np.ones(len(rows)))
    return step_contributions(said, judged, 1_000, 0)


def bench_of(
    features: np.ndarray, rows: np.ndarray, given: np.ndarray, fold: np.ndarray, classes: int
) -> tuple[TrainingData, EvaluationRows]:
    """The labeled rows as train has them."""
    many = len(rows)
    names = rows.astype(str)
    held = TrainingRows(
        ids=names,
        ingredient=np.array(["collected"] * many),
        fold=fold,
        targets=np.eye(classes)[given],
        weights=np.ones(many),
        parents=np.stack([np.arange(many), np.full(many, -1)], axis=1),
        group=names,
        half=np.zeros(many, dtype=np.int64),
        pseudo_label_by_fold=np.full((many, 6), -1),
        pseudo_weight_by_fold=np.zeros((many, 6)),
    )
    inputs = Inputs(features[rows])
    judged = EvaluationRows(given, np.arange(many), names, np.ones(many))
    return TrainingData(held, inputs, inputs.take(np.arange(0)), FitContext(classes, 0, 1)), judged


def mislabeled(
    truth: np.ndarray, source: np.ndarray, only: int | None, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """The labels as they are given: some of them wrong, all of these one source's where `only` is given."""
    share, given = rng.uniform(*WRONG), truth.copy()
    able = np.full(len(truth), True) if only is None else source == only
    wrong = able & (rng.random(len(truth)) < share * len(truth) / able.sum())
    given[wrong] = (given[wrong] + rng.integers(1, classes, size=int(wrong.sum()))) % classes
    return given


def named(advice: Mapping[str, Any]) -> int:
    """The source that a piece of advice names."""
    return int(advice["text"].rpartition(" ")[2])


def one_start(
    features: np.ndarray, frame: pd.DataFrame, classes: list[str], name: str, seed: int
) -> list[dict[str, Any]]:
    """Each piece of advice with the gain that it promised and the one that it brought; `right`: of a source, whether it is the one that is worse."""
    rng = np.random.default_rng(seed)
    truth = frame["label"].map(classes.index).to_numpy()
    train, test = (rng.permutation(np.flatnonzero(frame["split"] == one)) for one in ("train", "test"))
    seen, unseen = test[::2], test[1::2]
    many = int(rng.integers(*A_CLASS[name]))
    rows = np.concatenate([train[truth[train] == one][:many] for one in range(len(classes))])
    pool = np.setdiff1d(train, rows)
    source, only = rng.integers(SOURCES, size=len(rows)), seed % SOURCES if seed % 2 else None
    given = mislabeled(truth[rows], source, only, len(classes), rng)
    fold = np.zeros(len(rows), dtype=np.int64)
    for number, (_, mine) in enumerate(StratifiedKFold(5, shuffle=True, random_state=seed).split(rows, given)):
        fold[mine] = number
    more_of_it = np.random.default_rng([seed, 1])  # children that are changed a little, or beyond recognition
    strength = float(np.exp(more_of_it.uniform(*np.log(STRENGTH))))
    changed = (features + strength * features.std(axis=0) * more_of_it.normal(size=features.shape)).astype(np.float32)
    head = with_children(features, changed, rows, given, len(classes))
    right = head.logits(Inputs(features[seen])).argmax(axis=1) == truth[seen]
    found = find_label_issues(Inputs(features[rows]), given, fold, np.ones(len(rows)), len(classes))
    learnt = learning_curve(*bench_of(features, rows, given, fold, len(classes)))
    curve = Curve.of(learnt, float(1 - right.mean()), len(seen), found.expected / len(rows), seed)
    advice = next_steps(
        curve,
        rows={"pool": len(pool)},
        label_issues={
            "expected": found.expected,
            "judged": len(rows),
            "items_per_minute": 20,
            "budget": budget(found, 20),
        },
        errors=errors_by_class(right, truth[seen], classes),
        labels={one: int((given == place).sum()) for place, one in enumerate(classes)},
        step_contributions=what_children_bought(features, changed, rows, given, fold, len(classes)),
        rounds=[],
        slices=[],
        has_queue=True,
        training_data={"augment"},
        label_sources=[
            LabelSource(
                "source", str(one), int((source == one).sum()), float(np.nansum(found.p_label_error[source == one]))
            )
            for one in range(SOURCES)
        ],
    )
    before = float((head.logits(Inputs(features[unseen])).argmax(axis=1) == truth[unseen]).mean())
    unsure = softmax(head.logits(Inputs(features[pool]))).max(axis=1)
    brought = []
    for one in advice:
        ordered = pool[np.argsort(unsure, kind="stable")]
        more, labels = followed(one, rows, given, source, truth, ordered, found, classes)
        children = None if one["what"] == "leave_out" else changed
        model = with_children(features, children, more, labels, len(classes))
        after = model.logits(Inputs(features[unseen])).argmax(axis=1) == truth[unseen]
        gained = float(after.mean()) - before
        told = {"what": one["what"], "expected": (one["gain"] or {}).get("value"), "gained": gained}
        brought.append(told | ({"right": named(one) == only} if one["what"] == "fix_source" else {}))
    return brought


def followed(
    advice: Mapping[str, Any],
    rows: np.ndarray,
    given: np.ndarray,
    source: np.ndarray,
    truth: np.ndarray,
    pool: np.ndarray,
    found: Any,
    classes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """The labeled rows and their labels when the advice was followed; pool: the least sure first."""
    if advice["what"] == "check_labels":
        labels = given.copy()
        looked_at = np.argsort(-found.p_label_error, kind="stable")[: int(advice["text"].split()[3].replace(",", ""))]
        labels[looked_at] = truth[rows[looked_at]]
        return rows, labels
    if advice["what"] == "leave_out":
        return rows, given
    if advice["what"] == "fix_source":
        return rows, np.where(source == named(advice), truth[rows], given)
    many = int(advice["text"].split()[1].replace(",", ""))
    if advice["what"] == "collect_class":
        name = advice["text"].partition("“")[2].partition("”")[0]
        pool = pool[truth[pool] == classes.index(name)]
    more = np.concatenate([rows, pool[:many]])
    return more, np.concatenate([given, truth[pool[:many]]])


def told(name: str, starts: list[list[dict[str, Any]]], command: str) -> list[Found]:
    """What following brought: the first piece, a random one, and each kind beside what it promised."""
    asked = [one for one in starts if one]
    first, mean = (
        np.array([pick(one) for one in asked])
        for pick in (lambda one: one[0]["gained"], lambda one: np.mean([piece["gained"] for piece in one]))
    )
    setting = f"{name}, {len(asked)} starts"
    systems = {"the first piece": first, "a random piece": mean, "first over random": first - mean}
    found = [
        Found(setting, one, "gain of accuracy", *mean_with_interval(values.tolist()), "share", len(asked), command)
        for one, values in systems.items()
    ]
    for what in sorted({piece["what"] for one in asked for piece in one}):
        pieces = [piece for one in asked for piece in one if piece["what"] == what]
        for metric, words in (("expected", "gain that is expected"), ("gained", "gain")):
            values = [piece[metric] for piece in pieces if piece[metric] is not None]
            if values:
                found.append(Found(name, what, words, *mean_with_interval(values), "share", len(values), command))
    return found


def blamed(name: str, starts: list[list[dict[str, Any]]], command: str) -> list[Found]:
    """How often a source is named, and the right one; in every other start one is worse."""
    found = []
    for one_is_worse, among in ((True, starts[1::2]), (False, starts[::2])):
        setting = f"{name}, wrong labels of {'one source' if one_is_worse else 'all sources'}"
        round_decisions = [[piece["right"] for piece in one if piece["what"] == "fix_source"] for one in among]
        counts = {"names that source": sum(True in one for one in round_decisions)} if one_is_worse else {}
        counts |= {"blames another": sum(False in one for one in round_decisions)}
        for words, many in counts.items():
            one = wilson(many, len(among))
            found.append(
                Found(
                    setting,
                    "fix_source",
                    words,
                    one.value,
                    one.low,
                    one.high,
                    "share",
                    len(among),
                    command,
                )
            )
    return found


def main() -> None:
    """Runs the starts and writes results/advice.csv."""
    parser = parser_of(str(__doc__), SETS, draws=20)
    asked = parser.parse_args()
    command = f"python benchmarks/advice.py --data DATA --backbone BACKBONE --draws {asked.draws}"
    found: list[Found] = []
    for name in asked.sets:
        features, frame, classes = load(asked.data, name, asked.backbone)
        with single_threaded():
            starts = [one_start(features, frame, classes, name, seed) for seed in range(asked.draws)]
        found += told(name, starts, command) + blamed(name, starts, command)
    write("advice", found)


if __name__ == "__main__":
    main()
