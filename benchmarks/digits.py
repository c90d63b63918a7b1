"""Digits, 5 labelled pictures a class, 10 draws: Seedling against what a user would pick instead, on the same rows.

    python benchmarks/digits.py [--draws 10] [--effort quick]

Every system sees the same 50 labelled rows, the same pool without labels (no weak labels here) and is judged on the
same 500 test rows, which no choice looks at. Peers get the pixels, as their users would give them. Seedling runs its
own stages on a folder of PNG files; what each step bought is read off its rounds and its candidates.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from record import Found, mean_with_interval, write
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

LABELLED, TEST = 5, 500


def draw(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers of the labelled rows, the pool and the test rows."""
    target = load_digits().target
    order = np.random.default_rng(seed).permutation(len(target))
    test, rest = order[:TEST], order[TEST:]
    labelled = np.concatenate([rest[target[rest] == one][:LABELLED] for one in range(10)])
    return labelled, np.setdiff1d(rest, labelled), test


def peers(seed: int) -> dict[str, float]:
    """Test accuracy of each peer."""
    digits = load_digits()
    X, y = digits.data / 16, digits.target
    labelled, pool, test = draw(seed)
    both = np.concatenate([labelled, pool])
    known = np.where(np.isin(both, labelled), y[both], -1)
    supervised = {
        "LogisticRegression": LogisticRegression(C=10, max_iter=1000),
        "SVC": SVC(C=10),
        "RandomForest": RandomForestClassifier(300, random_state=seed),
    }
    found = {name: model.fit(X[labelled], y[labelled]).score(X[test], y[test]) for name, model in supervised.items()}
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


def write_folder(data: Path, seed: int) -> None:
    """The draw as a user's folder."""
    digits = load_digits()
    for part, rows in zip(("labelled", "unlabelled", "test"), draw(seed), strict=True):
        for row in rows:
            folder = data / part / (str(digits.target[row]) if part != "unlabelled" else "")
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{row:04d}.png"), (digits.images[row] * 15).astype(np.uint8))


def seedling(seed: int, effort: str) -> dict[str, float]:
    """Test accuracy of the accepted model, of round 0, and of each single learner's best recipe by its own choice."""
    from tasks.evaluate import out_of_fold  # noqa: F401  (fails early where Seedling is not installed)
    from tasks.generation import payloads, read
    from tasks.learners.model import load_model
    from tasks.stages import run_stage, stages

    template = Path(__file__).parents[1] / "flows/workspace_files"
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        write_folder(workspace / "data", seed)
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
        for stage in stages().values():
            run_stage(stage, workspace)
        metrics = json.loads((workspace / "reports/metrics.json").read_text())
        rows = read(workspace / "generations/validate")
        test = rows[rows["split"] == "test"].set_index("id")["label"]
        found = {"accepted": metrics["test"]["accuracy"]["value"], "rejected_rounds": 0.0}
        for one in metrics["rounds"]:
            model = load_model(workspace / "models" / str(one["round"]))
            content = dict(payloads([workspace / "generations/scrape"], test.index))
            said = model.predict(content[row] for row in test.index).argmax(axis=1)
            found[f"round {one['round']}"] = float((np.array(model.classes)[said] == test.to_numpy()).mean())
            found["rejected_rounds"] += one["decision"] == "rejected"
        for table in json.loads((workspace / "models/0/candidates.json").read_text()):
            name = f"cross-validated: {table['learner']} on {' + '.join(table['recipe'])}"
            found[name] = table["accuracy"]["value"]
        return found


def both(given: tuple[int, str]) -> tuple[dict[str, float], dict[str, float]]:
    """Peers and Seedling on one draw."""
    return peers(given[0]), seedling(*given)


def main() -> None:
    """Runs the draws and writes results/digits.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--effort", default="normal", choices=["quick", "normal", "thorough"])
    given = parser.parse_args()
    command = f"python benchmarks/digits.py --draws {given.draws} --effort {given.effort}"
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(both, [(seed, given.effort) for seed in range(given.draws)]))
    setting, found = f"digits, {LABELLED} a class", []

    def add(system: str, metric: str, values: list[float], unit: str = "share") -> None:
        found.append(Found(setting, system, metric, *mean_with_interval(values), unit, len(values), command))

    for name in results[0][0]:
        add(name, "test accuracy", [one[name] for one, _ in results])
    ours = [one for _, one in results]
    add("Seedling, accepted model", "test accuracy", [one["accepted"] for one in ours])
    add("Seedling, round 0", "test accuracy", [one["round 0"] for one in ours])
    for name in results[0][0]:
        add(
            "Seedling, accepted model",
            f"minus {name}, paired",
            [two["accepted"] - one[name] for one, two in results],
            "points of share",
        )
    steps = sorted({name for one in ours for name in one if name.startswith("round ") and name != "round 0"})
    for name in steps:
        gained = [one[name] - one[f"round {int(name[6:]) - 1}"] for one in ours if name in one]
        add("Seedling", f"what {name} bought, paired", gained, "points of share")
    add(
        "Seedling",
        "worst draw: accepted minus round 0",
        [min(one["accepted"] - one["round 0"] for one in ours)],
        "points of share",
    )
    add("Seedling", "draws with a rejected round", [float(one["rejected_rounds"] > 0) for one in ours])
    for name in [one for one in ours[0] if one.startswith("cross-validated")]:
        values = [one[name] for one in ours if name in one]
        add("Seedling, round 0", name, values)
    write("digits", found)


if __name__ == "__main__":
    sys.exit(main())
