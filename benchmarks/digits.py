"""Digits, few labeled images a class: Seedling against what a user would pick instead, on the same rows.

    python benchmarks/digits.py [--labels 1 5 10] [--draws 10] [--effort quick]

Every system sees the same labeled rows, the same pool without labels (no weak labels here) and is judged on the
same 500 test rows, which no choice looks at. Peers get the pixels, as their users would give them. Seedling runs its
own stages on a folder of PNG files. Its plain supervised model, by which harm is measured, is the same line without
network and without pool (logistic regression, SVM, random forest, children and mixtures).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from record import Found, mean_with_interval, write
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

TEST = 500


def draw(seed: int, many: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of the labeled rows, the pool and the test rows."""
    target = load_digits().target
    order = np.random.default_rng(seed).permutation(len(target))
    test, rest = order[:TEST], order[TEST:]
    labeled = np.concatenate([rest[target[rest] == one][:many] for one in range(10)])
    return labeled, np.setdiff1d(rest, labeled), test


def peers(seed: int, many: int) -> dict[str, float]:
    """Test accuracy of each peer."""
    digits = load_digits()
    X, y = digits.data / 16, digits.target
    labeled, pool, test = draw(seed, many)
    both = np.concatenate([labeled, pool])
    known = np.where(np.isin(both, labeled), y[both], -1)
    supervised = {
        "LogisticRegression": LogisticRegression(C=10, max_iter=1000),
        "SVC": SVC(C=10),
        "RandomForest": RandomForestClassifier(300, random_state=seed),
    }
    found = {name: model.fit(X[labeled], y[labeled]).score(X[test], y[test]) for name, model in supervised.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        semi = {
            "SelfTrainingClassifier": SelfTrainingClassifier(
                LogisticRegression(C=10, max_iter=1000)
            ),  # better here than on SVC
            "LabelSpreading": LabelSpreading(kernel="knn", n_neighbors=7),
        }
        found |= {name: model.fit(X[both], known).score(X[test], y[test]) for name, model in semi.items()}
    return {name: float(score) for name, score in found.items()}


def write_folder(data: Path, seed: int, many: int) -> None:
    """The draw as a user's folder."""
    digits = load_digits()
    for part, rows in zip(("labeled", "unlabeled", "test"), draw(seed, many), strict=True):
        for row in rows:
            folder = data / part / (str(digits.target[row]) if part != "unlabeled" else "")
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{row:04d}.png"), (digits.images[row] * 15).astype(np.uint8))


def seedling(seed: int, many: int, effort: str, *, supervised: bool = False) -> dict[str, float]:
    """Test accuracy of the accepted model and of each round's; supervised: without network and pool."""
    from seedling.config.params import set_value
    from seedling.dataset.generation import payloads, read
    from seedling.models.model import load_model
    from seedling.pipeline import stages
    from seedling.runner import run_stage

    template = Path(__file__).parents[1] / "seedling/init/workspace_files"
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        write_folder(workspace / "data", seed, many)
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
        found = {"accepted": metrics["test"]["accuracy"]["value"], "rejected_rounds": 0.0}
        for one in metrics["rounds"]:
            model = load_model(workspace / "models" / str(one["round"]), workspace)
            content = dict(payloads([workspace / "generations/scrape"], test.index))
            said = model.predict(content[row] for row in test.index).argmax(axis=1)
            found[f"round {one['round']}"] = float((np.array(model.classes)[said] == test.to_numpy()).mean())
            found["rejected_rounds"] += one["decision"] == "rejected"
        return found


def both(given: tuple[int, int, str]) -> tuple[dict[str, float], dict[str, float]]:
    """Peers and Seedling on one draw."""
    seed, many, effort = given
    plain = seedling(seed, many, effort, supervised=True)["accepted"]
    return peers(seed, many), seedling(seed, many, effort) | {"supervised": plain}


def lines(many: int, results: list[tuple[dict[str, float], dict[str, float]]], command: str) -> list[Found]:
    """The table's lines of one number of labels."""
    found: list[Found] = []

    def add(system: str, metric: str, values: list[float], unit: str = "share") -> None:
        found.append(
            Found(f"digits, {many} a class", system, metric, *mean_with_interval(values), unit, len(values), command)
        )

    names, ours = list(results[0][0]), [one for _, one in results]
    for name in names:
        add(name, "test accuracy", [one[name] for one, _ in results])
    add("Seedling, accepted model", "test accuracy", [one["accepted"] for one in ours])
    add("Seedling, round 0", "test accuracy", [one["round 0"] for one in ours])
    add("Seedling, supervised alone", "test accuracy", [one["supervised"] for one in ours])
    best = max(names, key=lambda name: np.mean([one[name] for one, _ in results]))
    ahead = [two["accepted"] - one[best] for one, two in results]
    add("Seedling, accepted model", f"minus {best}, paired", ahead, "points of share")
    for against in ("round 0", "supervised"):
        gained = [one["accepted"] - one[against] for one in ours]
        add("Seedling, accepted model", f"minus its own {against}, paired", gained, "points of share")
        add("Seedling, accepted model", f"worst draw: minus its own {against}", [min(gained)], "points of share")
    add("Seedling", "draws with a rejected round", [float(one["rejected_rounds"] > 0) for one in ours])
    return found


def main() -> None:
    """Runs the draws and writes results/digits.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 5, 10], help="a class")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--effort", default="normal", choices=["quick", "normal", "thorough"])
    given = parser.parse_args()
    labels = " ".join(str(one) for one in given.labels)
    command = f"python benchmarks/digits.py --labels {labels} --draws {given.draws} --effort {given.effort}"
    found: list[Found] = []
    for many in given.labels:
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # a fork would inherit torch's threads' locks
            results = list(pool.map(both, [(seed, many, given.effort) for seed in range(given.draws)]))
        found += lines(many, results, command)
        write("digits", found)


if __name__ == "__main__":
    sys.exit(main())
