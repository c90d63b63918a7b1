"""Compare the pipeline with and without label weights, and confident learning, on sets with known wrong labels.

    python benchmarks/label_noise.py --data FOLDER --backbone FOLDER [--draws 5] [--labels 50 0]

FOLDER holds the sets of benchmarks/few_labels.py. Next to data.parquet are files noise_*.parquet (id, noisy_label)
for rows of `train`. Each draw labels a number of rows per class, by the noisy label, and leaves the others in the
pool (0: every row is labeled, and only the seed differs). The models are evaluated on the true labels of `test`.
"Without" is `train.losses: [plain]`: the same learners, encoder, rounds and rows. The peer implements cleanlab's
method, confident learning's joint (Northcutt et al. 2021): out-of-fold logistic regression, with rows off the
diagonal dropped.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from few_labels import draw, parser_of, peer_features, run_pipeline
from record import Measurement, mean_with_interval, write
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import normalize

from seedling.records.candidates import CandidatesRecord

SETS = (
    "trashnet/noise_sym20",
    "trashnet/noise_conf20",
    "sms_spam/noise_sym20",
    "sms_spam/noise_conf20",
    "banking77_oos/noise_upstream",
)


def confident_learning(features: np.ndarray, labels: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Predict the test rows by logistic regression on the training rows without label issues."""
    model = LogisticRegression(C=10, max_iter=1000)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
    limits = np.array(
        [probabilities[labels == class_index, class_index].mean() for class_index in range(probabilities.shape[1])]
    )
    confident_probabilities = np.where(probabilities >= limits, probabilities, -1.0)
    is_label_issue = (confident_probabilities.max(axis=1) >= 0) & (confident_probabilities.argmax(axis=1) != labels)
    return np.asarray(model.fit(features[~is_label_issue], labels[~is_label_issue]).predict(tested))


def one_draw(job: tuple[pd.DataFrame, pd.Series, int, int, Any, str]) -> dict[str, float]:
    """Return the test accuracy with and without label weights, and that of the peer, on one draw."""
    frame, features, labels_per_class, seed, arguments, cache = job
    drawn = draw(frame, labels_per_class, seed)
    encoder = "all-MiniLM-L6-v2" if "text" in frame else arguments.backbone
    results: dict[str, float] = {}
    evaluated: set[str] = set()
    for name, losses in (("with", None), ("without", ["plain"])):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / ".seedling").mkdir()
            (Path(folder) / ".seedling/features").symlink_to(cache)
            ours, evaluated = run_pipeline(drawn, encoder, arguments.effort, seed, Path(folder), {"losses": losses})
            results[name] = ours["accepted"]
            if name == "with":
                table = CandidatesRecord.read(Path(folder) / "models/0/candidates.json").candidates
                results["used"] = float(
                    any("label_weighted" in candidate.loss and candidate.chosen for candidate in table)
                )
    labeled = drawn[(drawn["split"] == "train") & drawn["label"].notna()]
    test = drawn[(drawn["split"] == "test") & drawn["id"].isin(evaluated)]
    classes = sorted(labeled["label"].unique())
    number = {label: class_index for class_index, label in enumerate(classes)}
    train_features, tested = (normalize(np.stack(features.loc[part["id"]].to_list())) for part in (labeled, test))
    predicted = confident_learning(train_features, labeled["label"].map(number).to_numpy(), tested)
    results["peer"] = float((np.array(classes)[predicted] == test["label"].to_numpy()).mean())
    return results


def main() -> None:
    """Run the draws and write results/label_noise.csv."""
    parser = parser_of(str(__doc__), SETS, draws=5)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 0], help="labels per class; 0: all rows")
    arguments = parser.parse_args()
    command = (
        f"python benchmarks/label_noise.py --data DATA --backbone BACKBONE "
        f"--labels {' '.join(map(str, arguments.labels))} "
        f"--draws {arguments.draws} --effort {arguments.effort}"
    )
    measurements: list[Measurement] = []
    cache = tempfile.mkdtemp()
    features_by_set: dict[str, pd.Series] = {}
    for setting, labels_per_class in product(arguments.sets, arguments.labels):
        name, _, noise = setting.partition("/")
        frame = pd.read_parquet(arguments.data / name / "data.parquet")
        frame = frame[frame["split"].isin(["train", "test"])].reset_index(drop=True)
        noisy = pd.read_parquet(arguments.data / name / f"{noise}.parquet").set_index("id")["noisy_label"]
        frame = frame[frame["id"].isin(noisy.index) | (frame["split"] == "test")].reset_index(drop=True)
        if name not in features_by_set:
            features_by_set[name] = pd.Series(list(peer_features(frame, arguments.backbone)), index=frame["id"])
        train = frame["split"] == "train"
        frame.loc[train, "label"] = frame.loc[train, "id"].map(noisy)
        jobs = [
            (frame, features_by_set[name], labels_per_class or len(frame), seed, arguments, cache)
            for seed in range(arguments.draws)
        ]
        where = f"{setting}, {labels_per_class} a class" if labels_per_class else f"{setting}, all labeled"
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # fork would copy the locks of torch's threads
            results = list(pool.map(one_draw, jobs))
        for system, key in (
            ("Seedling", "with"),
            ("Seedling, losses: [plain]", "without"),
            ("LogisticRegression after confident learning", "peer"),
        ):
            values = [result[key] for result in results]
            measurements.append(
                Measurement(where, system, "test accuracy", *mean_with_interval(values), "share", len(values), command)
            )
        for metric, key in (("minus losses: [plain], paired", "without"), ("minus confident learning, paired", "peer")):
            differences = [result["with"] - result[key] for result in results]
            measurements.append(
                Measurement(
                    where,
                    "Seedling",
                    metric,
                    *mean_with_interval(differences),
                    "points of share",
                    len(differences),
                    command,
                )
            )
        used = [result["used"] for result in results]
        measurements.append(
            Measurement(
                where, "Seedling", "draws that chose it", *mean_with_interval(used), "share", len(used), command
            )
        )
        write("label_noise", measurements)


if __name__ == "__main__":
    main()
