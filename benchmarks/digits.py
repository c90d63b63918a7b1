"""Compare Seedling with scikit-learn's models on digits with few labeled images per class, on the same rows.

    python benchmarks/digits.py [--labels 1 5 10] [--draws 10] [--effort quick]

Every system gets the same labeled rows and the same pool without labels (no weak labels here), and is evaluated on
the same 500 test rows, which no choice uses. Peers get the pixels. Seedling runs its stages on a folder of PNG files.
Its supervised model, the baseline for harm, is the same pipeline without the network and without the pool (logistic
regression, SVM and random forest on augmented and mixup rows).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from record import Measurement, mean_with_interval, write
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

TEST = 500


def draw(seed: int, labels_per_class: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the row numbers of the labeled rows, the pool and the test rows."""
    target = load_digits().target
    order = np.random.default_rng(seed).permutation(len(target))
    test, rest = order[:TEST], order[TEST:]
    labeled = np.concatenate([rest[target[rest] == digit][:labels_per_class] for digit in range(10)])
    return labeled, np.setdiff1d(rest, labeled), test


def peers(seed: int, labels_per_class: int) -> dict[str, float]:
    """Return the test accuracy of each peer."""
    digits = load_digits()
    X, y = digits.data / 16, digits.target
    labeled, pool, test = draw(seed, labels_per_class)
    both = np.concatenate([labeled, pool])
    partial_labels = np.where(np.isin(both, labeled), y[both], -1)
    supervised = {
        "LogisticRegression": LogisticRegression(C=10, max_iter=1000),
        "SVC": SVC(C=10),
        "RandomForest": RandomForestClassifier(300, random_state=seed),
    }
    accuracies = {name: model.fit(X[labeled], y[labeled]).score(X[test], y[test]) for name, model in supervised.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        semi = {
            "SelfTrainingClassifier": SelfTrainingClassifier(
                LogisticRegression(C=10, max_iter=1000)
            ),  # more accurate here than with SVC
            "LabelSpreading": LabelSpreading(kernel="knn", n_neighbors=7),
        }
        accuracies |= {name: model.fit(X[both], partial_labels).score(X[test], y[test]) for name, model in semi.items()}
    return {name: float(score) for name, score in accuracies.items()}


def write_folder(data: Path, seed: int, labels_per_class: int) -> None:
    """Write the draw as a user's folder."""
    digits = load_digits()
    for part, rows in zip(("labeled", "unlabeled", "test"), draw(seed, labels_per_class), strict=True):
        for row in rows:
            folder = data / part / (str(digits.target[row]) if part != "unlabeled" else "")
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{row:04d}.png"), (digits.images[row] * 15).astype(np.uint8))


def seedling(seed: int, labels_per_class: int, effort: str, *, supervised: bool = False) -> dict[str, float]:
    """Return the test accuracy of the accepted model and of each round; `supervised`: without network and pool."""
    from seedling.config.params import set_value
    from seedling.dataset.generation import payloads, read
    from seedling.models.model import load_model
    from seedling.pipeline import stages
    from seedling.runner import run_stage

    template = Path(__file__).parents[1] / "seedling/init/workspace_files"
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        write_folder(workspace / "data", seed, labels_per_class)
        params = (
            (template / "params.yaml.template")
            .read_text()
            .replace("MODALITY", "image")
            .replace("ENCODER", "null")
            .replace("effort: normal", f"effort: {effort}")
        )
        (workspace / "params.yaml").write_text(
            params.replace("- SOURCES", "- {kind: folder}").replace("seed: 0", f"seed: {seed}")
        )
        (workspace / "gates.yaml").write_text((template / "gates.yaml.template").read_text())
        if supervised:
            set_value(workspace, ["train", "candidates"], ["logistic_regression", "svm", "random_forest"])
            set_value(workspace, ["pseudo_label", "rounds"], 0)
        for stage in stages().values():
            run_stage(stage, workspace)
        metrics = json.loads((workspace / "reports/evaluation.json").read_text())
        rows = read(workspace / "generations/validate")
        test = rows[rows["split"] == "test"].set_index("id")["label"]
        accuracies = {"accepted": metrics["test"]["accuracy"]["value"], "rejected_rounds": 0.0}
        for round_result in metrics["rounds"]:
            model = load_model(workspace / "models" / str(round_result["round"]), workspace)
            content = dict(payloads([workspace / "generations/scrape"], test.index))
            predicted = model.predict(content[row] for row in test.index).argmax(axis=1)
            accuracies[f"round {round_result['round']}"] = float(
                (np.array(model.classes)[predicted] == test.to_numpy()).mean()
            )
            accuracies["rejected_rounds"] += round_result["decision"] == "rejected"
        return accuracies


def both(job: tuple[int, int, str]) -> tuple[dict[str, float], dict[str, float]]:
    """Run the peers and Seedling on one draw."""
    seed, labels_per_class, effort = job
    plain = seedling(seed, labels_per_class, effort, supervised=True)["accepted"]
    return peers(seed, labels_per_class), seedling(seed, labels_per_class, effort) | {"supervised": plain}


def lines(
    labels_per_class: int, results: list[tuple[dict[str, float], dict[str, float]]], command: str
) -> list[Measurement]:
    """Return the table rows for one number of labels per class."""
    measurements: list[Measurement] = []

    def add(system: str, metric: str, values: list[float], unit: str = "share") -> None:
        measurements.append(
            Measurement(
                f"digits, {labels_per_class} a class",
                system,
                metric,
                *mean_with_interval(values),
                unit,
                len(values),
                command,
            )
        )

    names, ours = list(results[0][0]), [ours_of_draw for _, ours_of_draw in results]
    for name in names:
        add(name, "test accuracy", [peers_of_draw[name] for peers_of_draw, _ in results])
    add("Seedling, accepted model", "test accuracy", [draw_result["accepted"] for draw_result in ours])
    add("Seedling, round 0", "test accuracy", [draw_result["round 0"] for draw_result in ours])
    add("Seedling, supervised alone", "test accuracy", [draw_result["supervised"] for draw_result in ours])
    best = max(names, key=lambda name: np.mean([peers_of_draw[name] for peers_of_draw, _ in results]))
    differences = [two["accepted"] - peers_of_draw[best] for peers_of_draw, two in results]
    add("Seedling, accepted model", f"minus {best}, paired", differences, "points of share")
    for baseline in ("round 0", "supervised"):
        gained = [draw_result["accepted"] - draw_result[baseline] for draw_result in ours]
        add("Seedling, accepted model", f"minus its own {baseline}, paired", gained, "points of share")
        add("Seedling, accepted model", f"worst draw: minus its own {baseline}", [min(gained)], "points of share")
    add("Seedling", "draws with a rejected round", [float(draw_result["rejected_rounds"] > 0) for draw_result in ours])
    return measurements


def main() -> None:
    """Run the draws and write results/digits.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 5, 10], help="labels per class")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--effort", default="normal", choices=["quick", "normal", "thorough"])
    arguments = parser.parse_args()
    labels = " ".join(str(count) for count in arguments.labels)
    command = f"python benchmarks/digits.py --labels {labels} --draws {arguments.draws} --effort {arguments.effort}"
    measurements: list[Measurement] = []
    for labels_per_class in arguments.labels:
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # fork would copy the locks of torch's threads
            results = list(
                pool.map(both, [(seed, labels_per_class, arguments.effort) for seed in range(arguments.draws)])
            )
        measurements += lines(labels_per_class, results, command)
        write("digits", measurements)


if __name__ == "__main__":
    main()
