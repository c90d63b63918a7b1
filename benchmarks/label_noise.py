"""Wrong labels: the same line with and without its handling of doubtful labels, on sets whose wrong labels are known.

    python benchmarks/label_noise.py --data FOLDER --backbone FOLDER [--draws 5] [--labels 50 0]

FOLDER holds the sets of benchmarks/few_labels.py; beside data.parquet lie files noise_*.parquet (id, noisy_label) for rows of
`train`. Each draw labels so many rows a class, by the noisy label, leaves the others in the pool (0: every row is labeled, and
only the seed is drawn), and is judged on the true labels of `test`. "Without" is `train.losses: [plain]`: the same learners, encoder, rounds and rows. The peer is cleanlab's
recipe by hand, confident learning's joint (Northcutt et al. 2021): out-of-fold logistic regression, rows off the diagonal dropped.
"""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from few_labels import draw, line_on, parser_of, peer_features
from record import Found, mean_with_interval, write
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import normalize

SETS = (
    "trashnet/noise_sym20",
    "trashnet/noise_conf20",
    "sms_spam/noise_sym20",
    "sms_spam/noise_conf20",
    "banking77_oos/noise_upstream",
)


def confident_learning(features: np.ndarray, given: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Classes of the tested rows by logistic regression on the rows that confident learning does not doubt."""
    model = LogisticRegression(C=10, max_iter=1000)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chances = cross_val_predict(model, features, given, cv=folds, method="predict_proba")
    limits = np.array([chances[given == one, one].mean() for one in range(chances.shape[1])])
    sure = np.where(chances >= limits, chances, -1.0)
    doubted = (sure.max(axis=1) >= 0) & (sure.argmax(axis=1) != given)
    return np.asarray(model.fit(features[~doubted], given[~doubted]).predict(tested))


def one_draw(job: tuple[pd.DataFrame, pd.Series, int, int, Any, str]) -> dict[str, float]:
    """Test accuracy with and without the handling, and the peer's, on one draw."""
    frame, features, many, seed, given, cache = job
    drawn = draw(frame, many, seed)
    encoder = "all-MiniLM-L6-v2" if "text" in frame else given.backbone
    found: dict[str, float] = {}
    judged: set[str] = set()
    for name, losses in (("with", None), ("without", ["plain"])):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / ".seedling").mkdir()
            (Path(folder) / ".seedling/features").symlink_to(cache)
            ours, judged = line_on(drawn, encoder, given.effort, seed, Path(folder), {"losses": losses})
            found[name] = ours["accepted"]
            if name == "with":
                table = json.loads((Path(folder) / "models/0/candidates.json").read_text())["tried"]
                found["used"] = float(any("label_weighted" in one["loss"] and one["chosen"] for one in table))
    known = drawn[(drawn["split"] == "train") & drawn["label"].notna()]
    test = drawn[(drawn["split"] == "test") & drawn["id"].isin(judged)]
    classes = sorted(known["label"].unique())
    number = {label: place for place, label in enumerate(classes)}
    own, tested = (normalize(np.stack(features.loc[part["id"]].to_list())) for part in (known, test))
    said = confident_learning(own, known["label"].map(number).to_numpy(), tested)
    found["peer"] = float((np.array(classes)[said] == test["label"].to_numpy()).mean())
    return found


def main() -> None:
    """Runs the draws and writes results/label_noise.csv."""
    parser = parser_of(str(__doc__), SETS, draws=5)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 0], help="a class; 0: all")
    given = parser.parse_args()
    command = (
        f"python benchmarks/label_noise.py --data DATA --backbone BACKBONE --labels {' '.join(map(str, given.labels))} "
        f"--draws {given.draws} --effort {given.effort}"
    )
    found: list[Found] = []
    cache = tempfile.mkdtemp()
    made: dict[str, pd.Series] = {}
    for setting, many in product(given.sets, given.labels):
        name, _, noise = setting.partition("/")
        frame = pd.read_parquet(given.data / name / "data.parquet")
        frame = frame[frame["split"].isin(["train", "test"])].reset_index(drop=True)
        noisy = pd.read_parquet(given.data / name / f"{noise}.parquet").set_index("id")["noisy_label"]
        frame = frame[frame["id"].isin(noisy.index) | (frame["split"] == "test")].reset_index(drop=True)
        if name not in made:
            made[name] = pd.Series(list(peer_features(frame, given.backbone)), index=frame["id"])
        train = frame["split"] == "train"
        frame.loc[train, "label"] = frame.loc[train, "id"].map(noisy)
        jobs = [(frame, made[name], many or len(frame), seed, given, cache) for seed in range(given.draws)]
        where = f"{setting}, {many} a class" if many else f"{setting}, all labeled"
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # a fork would inherit torch's threads' locks
            results = list(pool.map(one_draw, jobs))
        for system, key in (
            ("Seedling", "with"),
            ("Seedling, losses: [plain]", "without"),
            ("LogisticRegression after confident learning", "peer"),
        ):
            values = [one[key] for one in results]
            found.append(
                Found(where, system, "test accuracy", *mean_with_interval(values), "share", len(values), command)
            )
        for metric, key in (("minus losses: [plain], paired", "without"), ("minus confident learning, paired", "peer")):
            gained = [one["with"] - one[key] for one in results]
            found.append(
                Found(where, "Seedling", metric, *mean_with_interval(gained), "points of share", len(gained), command)
            )
        used = [one["used"] for one in results]
        found.append(
            Found(where, "Seedling", "draws that chose it", *mean_with_interval(used), "share", len(used), command)
        )
        write("label_noise", found)


if __name__ == "__main__":
    main()
