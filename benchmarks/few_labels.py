"""Compare Seedling with its peers on photographs and texts with few labels, on the same rows and encoder.

    pip install -e '.[bench]'
    python benchmarks/few_labels.py --data FOLDER --backbone FOLDER [--sets trashnet:5,10,50 sms_spam:5,10] [--draws 5]

FOLDER holds one folder per set with data.parquet (id, split, label, and text or image). Only the rows of `train` and
`test` are used. Each draw labels a number of rows per class of `train` and leaves the others in the pool, without
labels. Peers get the features of the frozen encoder (transformers for images, sentence-transformers for texts), each
in the scaling that suits the peer. Seedling uses the same encoder, once for all draws. SetFit fine-tunes that encoder
on texts, by default for one epoch of all pairs of rows. It is omitted if that takes hours, for example with fifty
classes.

All systems are evaluated on the test rows that Seedling keeps after it removes copies. Labeled rows are never test
rows, and no choice uses the test split. The loop harms a draw if the accepted model is less accurate on the test rows
than round 0 by more than one standard error of the paired difference.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from record import Measurement, mean_with_interval, write
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

SETFIT_PAIRS = 5_000  # 16 pairs take 1.5 seconds on one core
SETS = ("trashnet:5,10,50", "banking77_oos:5,10", "sms_spam:5,10")


SUPERVISED_PEERS: dict[str, Callable[[], Any]] = {  # on the encoder's features, each in the scaling that suits it
    "LogisticRegression, rows of length 1": lambda: make_pipeline(Normalizer(), plain_regression()),
    "LogisticRegression, standardized": lambda: make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)
    ),
    "SVC": lambda: make_pipeline(StandardScaler(), SVC(C=10)),
}
SEMI_SUPERVISED_PEERS: dict[str, Callable[[], Any]] = {
    "SelfTrainingClassifier": lambda: make_pipeline(Normalizer(), SelfTrainingClassifier(plain_regression())),
    "LabelSpreading": lambda: make_pipeline(Normalizer(), LabelSpreading(kernel="knn", n_neighbors=7)),
}


def plain_regression() -> LogisticRegression:
    """Return the regularization that suits rows of length 1."""
    return LogisticRegression(C=10, max_iter=1000)


def draw(frame: pd.DataFrame, labels_per_class: int, seed: int) -> pd.DataFrame:
    """Return the train and test rows of the set; `labels_per_class` rows of each class in train keep their label."""
    rng = np.random.default_rng(seed)
    train = frame[frame["split"] == "train"].iloc[rng.permutation((frame["split"] == "train").sum())]
    labeled = train.groupby("label").head(labels_per_class)
    pool = train.drop(labeled.index).assign(label=None, split="pool")
    return pd.concat([labeled, pool, frame[frame["split"] == "test"]])


def peer_features(frame: pd.DataFrame, backbone: str) -> np.ndarray:
    """Return the features of each row by the encoder's own library: (n_rows, n_features)."""
    if "text" in frame:
        from sentence_transformers import SentenceTransformer

        from seedling.features.pretrained import minilm_folder

        return np.asarray(SentenceTransformer(str(minilm_folder())).encode(frame["text"].tolist()))
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    processor, model, features = (
        AutoImageProcessor.from_pretrained(backbone),
        AutoModel.from_pretrained(backbone).eval(),
        [],
    )
    with torch.inference_mode():
        for first in range(0, len(frame), 16):
            cells = frame["image"].iloc[first : first + 16]
            images = [
                Image.open(io.BytesIO(cell["bytes"] if isinstance(cell, dict) else cell)).convert("RGB")
                for cell in cells
            ]
            features.append(model(**processor(images, return_tensors="pt")).pooler_output.numpy())
    return np.concatenate(features)


def peers(frame: pd.DataFrame, features: np.ndarray, tested: np.ndarray, seed: int) -> dict[str, float]:
    """Return the test accuracy of each peer.

    frame and features are in the same order; tested: (n_rows,), whether a test row counts.
    """
    is_labeled, test = frame["label"].notna().to_numpy() & (frame["split"] == "train").to_numpy(), tested
    classes = {label: class_index for class_index, label in enumerate(sorted(frame.loc[is_labeled, "label"].unique()))}
    truth = np.array([classes.get(label, -1) for label in frame["label"]])
    usable = is_labeled | (frame["split"] == "pool").to_numpy()
    partial_labels = np.where(is_labeled, truth, -1)[usable]
    accuracies = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, make_peer in SUPERVISED_PEERS.items():
            model = make_peer().fit(features[is_labeled], truth[is_labeled])
            accuracies[name] = float((model.predict(features[test]) == truth[test]).mean())
        for name, make_peer in SEMI_SUPERVISED_PEERS.items():
            model = make_peer().fit(features[usable], partial_labels)
            accuracies[name] = float((model.predict(features[test]) == truth[test]).mean())
    return accuracies


def setfit(frame: pd.DataFrame, tested: np.ndarray, seed: int) -> dict[str, float]:
    """Return the test accuracy of SetFit on the labeled texts; empty if it is not installed or has too many pairs."""
    try:
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments
    except ImportError:
        return {}
    import torch

    from seedling.features.pretrained import minilm_folder

    labeled = frame[frame["split"] == "train"]
    if len(labeled) * (len(labeled) - 1) // 2 > SETFIT_PAIRS:
        return {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            batch_size=16,
            num_epochs=1,
            seed=seed,
            report_to="none",
            save_strategy="no",
            show_progress_bar=False,
        )
        rows = Dataset.from_dict({"text": labeled["text"].tolist(), "label": labeled["label"].tolist()})
        trainer = Trainer(SetFitModel.from_pretrained(str(minilm_folder())), arguments, train_dataset=rows)
        trainer.train()
        predicted = np.array(trainer.model.predict(frame.loc[tested, "text"].tolist()))
    return {"SetFit": float((predicted == frame.loc[tested, "label"].to_numpy()).mean())}


def run_pipeline(
    frame: pd.DataFrame, encoder: str, effort: str, seed: int, folder: Path, train: dict[str, Any] | None = None
) -> tuple[dict[str, float], set[str]]:
    """Return the test accuracy of the accepted model and of each round, and the ids of the evaluated test rows.

    train: more keys of that section of params.yaml.
    """
    from seedling.config.params import set_value
    from seedling.dataset.generation import payloads, read
    from seedling.models.model import load_model
    from seedling.pipeline import stages
    from seedling.runner import run_stage

    template = Path(__file__).parents[1] / "seedling/init/workspace_files"
    modality = "text" if "text" in frame else "image"
    (folder / "data").mkdir()
    frame.to_parquet(folder / "data/rows.parquet")
    params = (template / "params.yaml.template").read_text().replace("MODALITY", modality).replace("ENCODER", "null")
    (folder / "params.yaml").write_text(params.replace("- SOURCES", "- {kind: table, path: rows.parquet}"))
    for keys, value in (
        (["effort"], effort),
        (["seed"], seed),
        (["encoder"], encoder),
        *((["train", key], setting_value) for key, setting_value in (train or {}).items()),
    ):
        set_value(folder, list(keys), value)
    (folder / "gates.yaml").write_text((template / "gates.yaml.template").read_text())
    results: dict[str, float] = {}
    right: dict[int, np.ndarray] = {}
    for name, stage in stages().items():
        began = time.perf_counter()
        run_stage(stage, folder)
        results[f"seconds {name}"] = time.perf_counter() - began
    metrics = json.loads((folder / "reports/evaluation.json").read_text())
    rows = read(folder / "generations/validate")
    test = rows[rows["split"] == "test"].set_index("id")
    for round_result in metrics["rounds"]:
        if round_result["decision"] == "skipped":
            continue
        model = load_model(folder / "models" / str(round_result["round"]), folder)
        predicted = model.predict_rows(test.index.tolist(), partial(payloads, [folder / "generations/scrape"])).argmax(
            axis=1
        )
        right[round_result["round"]] = np.array(model.classes)[predicted] == test["label"].to_numpy()
        results[f"round {round_result['round']}"] = float(right[round_result["round"]].mean())
    results["accepted"] = results[f"round {metrics['accepted_round']}"]
    difference = right[metrics["accepted_round"]].astype(float) - right[0]
    results["harmed"] = float(difference.mean() < -difference.std() / np.sqrt(len(difference)))
    results["rejected"] = float(any(round_result["decision"] == "rejected" for round_result in metrics["rounds"]))
    return results, {origin.partition("#")[2] for origin in test["origin"]}


def parser_of(doc: str, sets: tuple[str, ...], draws: int) -> argparse.ArgumentParser:
    """Return the argument parser of the benchmarks that use the folder of sets."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--data", type=Path, required=True, help="folder of sets")
    parser.add_argument("--backbone", required=True, help="encoder of images: a local folder or a hub id")
    parser.add_argument("--sets", nargs="+", default=sets, help="sets to run, in the form of the default")
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--effort", default="normal", choices=["quick", "normal", "thorough"])
    return parser


def main() -> None:
    """Run the draws and write results/few_labels.csv."""
    parser = parser_of(str(__doc__), SETS, draws=5)
    parser.add_argument("--name", default="few_labels", help="name of the results file")
    arguments = parser.parse_args()
    command = (
        f"python benchmarks/few_labels.py --data DATA --backbone BACKBONE --draws {arguments.draws} "
        f"--effort {arguments.effort}"
    )
    measurements: list[Measurement] = []
    harmed: list[float] = []
    cache = tempfile.mkdtemp()
    for setting in arguments.sets:
        name, _, counts = setting.partition(":")
        frame = pd.read_parquet(arguments.data / name / "data.parquet")
        frame = frame[frame["split"].isin(["train", "test"])].reset_index(drop=True)
        features = pd.Series(list(peer_features(frame, arguments.backbone)), index=frame["id"])
        for labels_per_class in (int(count) for count in counts.split(",")):
            jobs = [(frame, features, labels_per_class, seed, arguments, cache) for seed in range(arguments.draws)]
            with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # fork would copy the locks of torch's threads
                results = list(pool.map(one_draw, jobs))
            measurements += lines(f"{name}, {labels_per_class} a class", results, command)
            harmed += [result["harmed"] for result in results]
            write(arguments.name, [*measurements, of_all(harmed, command)])


def one_draw(job: tuple[pd.DataFrame, pd.Series, int, int, Any, str]) -> dict[str, float]:
    """Run Seedling and its peers on one draw."""
    frame, features, labels_per_class, seed, arguments, cache = job
    drawn = draw(frame, labels_per_class, seed)
    encoder = "all-MiniLM-L6-v2" if "text" in frame else arguments.backbone
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".seedling").mkdir()
        (Path(folder) / ".seedling/features").symlink_to(cache)
        ours, evaluated = run_pipeline(drawn, encoder, arguments.effort, seed, Path(folder))
    tested = (drawn["split"] == "test").to_numpy() & drawn["id"].isin(evaluated).to_numpy()
    others = peers(drawn, np.stack(features.loc[drawn["id"]].to_list()), tested, seed)
    if "text" in frame:
        others |= setfit(drawn, tested, seed)
    return ours | {f"peer {name}": value for name, value in others.items()}


def lines(setting: str, results: list[dict[str, float]], command: str) -> list[Measurement]:
    """Return the table rows of one setting."""
    measurements: list[Measurement] = []

    def add(system: str, metric: str, values: list[float], unit: str = "share") -> None:
        measurements.append(
            Measurement(setting, system, metric, *mean_with_interval(values), unit, len(values), command)
        )

    names = [name.removeprefix("peer ") for name in results[0] if name.startswith("peer ")]
    for name in names:
        add(name, "test accuracy", [result[f"peer {name}"] for result in results])
    ours = [result["accepted"] for result in results]
    start = [result["round 0"] for result in results]
    add("Seedling, accepted model", "test accuracy", ours)
    add("Seedling, round 0", "test accuracy", start)
    best = max(names, key=lambda name: np.mean([result[f"peer {name}"] for result in results]))
    add(
        "Seedling, accepted model",
        f"minus {best}, paired",
        [a - b[f"peer {best}"] for a, b in zip(ours, results, strict=True)],
        "points of share",
    )
    gains = [a - b for a, b in zip(ours, start, strict=True)]
    add("Seedling, accepted model", "minus its own round 0, paired", gains, "points of share")
    add("Seedling, accepted model", "worst draw: minus its own round 0", [min(gains)], "points of share")
    add("Seedling", "draws with a rejected round", [result["rejected"] for result in results])
    add("Seedling", "draws that the loop harmed", [result["harmed"] for result in results])
    return measurements


def of_all(harmed: list[float], command: str) -> Measurement:
    """Return the share of all draws of all settings that the loop harmed."""
    interval = mean_with_interval(harmed)
    return Measurement(
        "all settings", "Seedling", "draws that the loop harmed", *interval, "share", len(harmed), command
    )


if __name__ == "__main__":
    main()
