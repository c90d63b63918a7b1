"""Few labels on photographs and texts: Seedling against what a user would pick instead, on the same rows and encoder.

    pip install -e '.[bench]'
    python benchmarks/few_labels.py --data FOLDER --backbone FOLDER [--sets trashnet:5,10,50 sms_spam:5,10] [--draws 5]

FOLDER holds one folder a set with data.parquet (id, split, label, and text or image); only its rows `train` and `test`
are used. Each draw labels so many rows a class of `train` and leaves the others in the pool, without labels. Peers get
the frozen encoder's own features (transformers for images, sentence-transformers for texts), each in the scaling that
suits it; Seedling's features are made by the same encoder, once for all draws. SetFit, on texts, tunes that encoder,
by default over one epoch of all pairs of rows; where that would take hours, as with fifty classes, it is left out. All are judged
on the test rows that Seedling kept after it removed copies. Labeled rows are never test rows, and no choice looks at
the test split. A draw is harmed where the accepted model is right less often on the test rows than round 0, by more than
one standard error of the paired difference.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from record import Found, mean_with_interval, write
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

SETFIT_PAIRS = 5_000  # 16 of them take a second and a half of one core
SETS = ("trashnet:5,10,50", "banking77_oos:5,10", "sms_spam:5,10")


def draw(frame: pd.DataFrame, many: int, seed: int) -> pd.DataFrame:
    """The set's train and test rows; of train so many a class keep their label."""
    rng = np.random.default_rng(seed)
    train = frame[frame["split"] == "train"].iloc[rng.permutation((frame["split"] == "train").sum())]
    labeled = train.groupby("label").head(many)
    pool = train.drop(labeled.index).assign(label=None, split="pool")
    return pd.concat([labeled, pool, frame[frame["split"] == "test"]])


def peer_features(frame: pd.DataFrame, backbone: str) -> np.ndarray:
    """(n, d): what the encoder's own library gives for each row."""
    if "text" in frame:
        from sentence_transformers import SentenceTransformer

        from seedling.features.pretrained import minilm_folder

        return np.asarray(SentenceTransformer(str(minilm_folder())).encode(frame["text"].tolist()))
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    processor, model, made = (
        AutoImageProcessor.from_pretrained(backbone),
        AutoModel.from_pretrained(backbone).eval(),
        [],
    )
    with torch.inference_mode():
        for first in range(0, len(frame), 16):
            cells = frame["image"].iloc[first : first + 16]
            images = [
                Image.open(io.BytesIO(one["bytes"] if isinstance(one, dict) else one)).convert("RGB") for one in cells
            ]
            made.append(model(**processor(images, return_tensors="pt")).pooler_output.numpy())
    return np.concatenate(made)


def peers(frame: pd.DataFrame, features: np.ndarray, tested: np.ndarray, seed: int) -> dict[str, float]:
    """Test accuracy of each peer. frame and features in one order; tested: (n,), which test rows count."""
    known, test = frame["label"].notna().to_numpy() & (frame["split"] == "train").to_numpy(), tested
    classes = {label: place for place, label in enumerate(sorted(frame.loc[known, "label"].unique()))}
    truth = np.array([classes.get(label, -1) for label in frame["label"]])
    usable = known | (frame["split"] == "pool").to_numpy()
    shown = np.where(known, truth, -1)[usable]
    plain = LogisticRegression(C=10, max_iter=1000)
    scaled = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    supervised = {
        "LogisticRegression, rows of length 1": make_pipeline(Normalizer(), plain),
        "LogisticRegression, standardized": scaled,
        "SVC": make_pipeline(StandardScaler(), SVC(C=10)),
    }
    semi = {
        "SelfTrainingClassifier": make_pipeline(Normalizer(), SelfTrainingClassifier(plain)),
        "LabelSpreading": make_pipeline(Normalizer(), LabelSpreading(kernel="knn", n_neighbors=7)),
    }
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, model in supervised.items():
            found[name] = float(
                (model.fit(features[known], truth[known]).predict(features[test]) == truth[test]).mean()
            )
        for name, model in semi.items():
            found[name] = float((model.fit(features[usable], shown).predict(features[test]) == truth[test]).mean())
    return found


def setfit(frame: pd.DataFrame, tested: np.ndarray, seed: int) -> dict[str, float]:
    """Test accuracy of SetFit on the labeled texts; nothing where it is not installed or its pairs are too many."""
    try:
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments
    except ImportError:
        return {}
    import torch

    from seedling.features.pretrained import minilm_folder

    known = frame[frame["split"] == "train"]
    if len(known) * (len(known) - 1) // 2 > SETFIT_PAIRS:
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
        rows = Dataset.from_dict({"text": known["text"].tolist(), "label": known["label"].tolist()})
        trainer = Trainer(SetFitModel.from_pretrained(str(minilm_folder())), arguments, train_dataset=rows)
        trainer.train()
        said = np.array(trainer.model.predict(frame.loc[tested, "text"].tolist()))
    return {"SetFit": float((said == frame.loc[tested, "label"].to_numpy()).mean())}


def line_on(
    frame: pd.DataFrame, encoder: str, effort: str, seed: int, folder: Path, train: dict[str, Any] | None = None
) -> tuple[dict[str, float], set[str]]:
    """Test accuracy of the accepted model and of each round's, and the ids of the judged test rows.

    train: further params of that section.
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
        *((["train", key], one) for key, one in (train or {}).items()),
    ):
        set_value(folder, list(keys), value)
    (folder / "gates.yaml").write_text((template / "gates.yaml.template").read_text())
    found: dict[str, float] = {}
    right: dict[int, np.ndarray] = {}
    for name, stage in stages().items():
        began = time.perf_counter()
        run_stage(stage, folder)
        found[f"seconds {name}"] = time.perf_counter() - began
    metrics = json.loads((folder / "reports/evaluation.json").read_text())
    rows = read(folder / "generations/validate")
    test = rows[rows["split"] == "test"].set_index("id")
    for one in metrics["rounds"]:
        if one["decision"] == "skipped":
            continue
        model = load_model(folder / "models" / str(one["round"]), folder)
        said = model.predict_rows(test.index.tolist(), partial(payloads, [folder / "generations/scrape"])).argmax(
            axis=1
        )
        right[one["round"]] = np.array(model.classes)[said] == test["label"].to_numpy()
        found[f"round {one['round']}"] = float(right[one["round"]].mean())
    found["accepted"] = found[f"round {metrics['accepted_round']}"]
    gained = right[metrics["accepted_round"]].astype(float) - right[0]
    found["harmed"] = float(gained.mean() < -gained.std() / np.sqrt(len(gained)))
    found["rejected"] = float(any(one["decision"] == "rejected" for one in metrics["rounds"]))
    return found, {origin.partition("#")[2] for origin in test["origin"]}


def parser_of(doc: str, sets: tuple[str, ...], draws: int) -> argparse.ArgumentParser:
    """What benchmarks on the folder of sets are asked."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--data", type=Path, required=True, help="the folder of sets")
    parser.add_argument("--backbone", required=True, help="the encoder of images, a local folder or a hub id")
    parser.add_argument("--sets", nargs="+", default=sets, help="of them, in the form of the default")
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--effort", default="normal", choices=["quick", "normal", "thorough"])
    return parser


def main() -> None:
    """Runs the draws and writes results/few_labels.csv."""
    parser = parser_of(str(__doc__), SETS, draws=5)
    parser.add_argument("--name", default="few_labels", help="of the results' file")
    given = parser.parse_args()
    command = (
        f"python benchmarks/few_labels.py --data DATA --backbone BACKBONE --draws {given.draws} --effort {given.effort}"
    )
    found: list[Found] = []
    harmed: list[float] = []
    cache = tempfile.mkdtemp()
    for setting in given.sets:
        name, _, counts = setting.partition(":")
        frame = pd.read_parquet(given.data / name / "data.parquet")
        frame = frame[frame["split"].isin(["train", "test"])].reset_index(drop=True)
        features = pd.Series(list(peer_features(frame, given.backbone)), index=frame["id"])
        for many in (int(one) for one in counts.split(",")):
            jobs = [(frame, features, many, seed, given, cache) for seed in range(given.draws)]
            with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # a fork would inherit torch's threads' locks
                results = list(pool.map(one_draw, jobs))
            found += lines(f"{name}, {many} a class", results, command)
            harmed += [one["harmed"] for one in results]
            write(given.name, [*found, of_all(harmed, command)])


def one_draw(job: tuple[pd.DataFrame, pd.Series, int, int, Any, str]) -> dict[str, float]:
    """Seedling and its peers on one draw."""
    frame, features, many, seed, given, cache = job
    drawn = draw(frame, many, seed)
    encoder = "all-MiniLM-L6-v2" if "text" in frame else given.backbone
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".seedling").mkdir()
        (Path(folder) / ".seedling/features").symlink_to(cache)
        ours, judged = line_on(drawn, encoder, given.effort, seed, Path(folder))
    tested = (drawn["split"] == "test").to_numpy() & drawn["id"].isin(judged).to_numpy()
    others = peers(drawn, np.stack(features.loc[drawn["id"]].to_list()), tested, seed)
    if "text" in frame:
        others |= setfit(drawn, tested, seed)
    return ours | {f"peer {name}": value for name, value in others.items()}


def lines(setting: str, results: list[dict[str, float]], command: str) -> list[Found]:
    """The table's lines of one setting."""
    found: list[Found] = []

    def add(system: str, metric: str, values: list[float], unit: str = "share") -> None:
        found.append(Found(setting, system, metric, *mean_with_interval(values), unit, len(values), command))

    names = [name.removeprefix("peer ") for name in results[0] if name.startswith("peer ")]
    for name in names:
        add(name, "test accuracy", [one[f"peer {name}"] for one in results])
    ours = [one["accepted"] for one in results]
    start = [one["round 0"] for one in results]
    add("Seedling, accepted model", "test accuracy", ours)
    add("Seedling, round 0", "test accuracy", start)
    best = max(names, key=lambda name: np.mean([one[f"peer {name}"] for one in results]))
    add(
        "Seedling, accepted model",
        f"minus {best}, paired",
        [a - b[f"peer {best}"] for a, b in zip(ours, results, strict=True)],
        "points of share",
    )
    gains = [a - b for a, b in zip(ours, start, strict=True)]
    add("Seedling, accepted model", "minus its own round 0, paired", gains, "points of share")
    add("Seedling, accepted model", "worst draw: minus its own round 0", [min(gains)], "points of share")
    add("Seedling", "draws with a rejected round", [one["rejected"] for one in results])
    add("Seedling", "draws that the loop harmed", [one["harmed"] for one in results])
    return found


def of_all(harmed: list[float], command: str) -> Found:
    """The share of all draws of all settings that the loop harmed."""
    interval = mean_with_interval(harmed)
    return Found("all settings", "Seedling", "draws that the loop harmed", *interval, "share", len(harmed), command)


if __name__ == "__main__":
    main()
