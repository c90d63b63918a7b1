"""Using a model: `seedling predict` beside the bare model, and the latency of `seedling serve` under a held load.

    python benchmarks/serving.py --data FOLDER --backbone FOLDER [--rows 1000] [--draws 3] [--seconds 20]

FOLDER holds the sets of benchmarks/few_labels.py. The model is logistic regression on the encoder's features of 500 training rows, saved as
train saves it. Bare: that model, loaded, on rows that are in memory. Seedling: the whole of `predict` but the start, from files (images) or a
table (texts) to a CSV file. The server is a process of its own; requests of one short text leave at fixed times, whether or not earlier
ones have been answered, so that waiting counts (open loop). It answers by the encoder's features, and by the words and letters alone that
a workspace has unless it names an encoder.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from few_labels import parser_of
from record import Found, mean_with_interval, write

from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.features.encoder_handle import EncoderHandle
from seedling.models.heads import Head
from seedling.models.predictor import Predictor
from seedling.models.saving import make_features, save_features, save_learner
from seedling.prediction import predict

SETS = ("trashnet", "sms_spam")
TAUGHT = 500
RATES = {True: (10, 25, 50), False: (50, 100, 200)}  # requests a second, with an encoder and without


def grown(folder: Path, frame: pd.DataFrame, modality: Any, backbone: str | None) -> Path:
    """A workspace of one round; without an encoder where backbone is None."""
    model, train = folder / "models" / "0", frame[frame["split"] == "train"].sample(TAUGHT, random_state=0)
    classes = sorted(train["label"].unique())
    truth = train["label"].map(classes.index).to_numpy()
    encoder = EncoderParams(model="all-MiniLM-L6-v2" if modality == "text" else str(backbone))
    maker = make_features(
        EncoderHandle(encoder, modality, folder) if backbone else None, None, WorkspaceConfig(modality=modality)
    )
    head = Head("logistic_regression", 0, len(classes))
    head.fit(maker.fit_transform(train[modality].tolist()), np.eye(len(classes))[truth], np.ones(TAUGHT))
    save_learner(head, model / "half-0" / "lr")
    save_features(maker, model)
    member = {"learner": "logistic_regression", "file": "lr", "halves": 1, "temperature": 1.0, "votes": 1.0}
    known = {
        "classes": classes,
        "modality": modality,
        "members": [member],
        "temperature": 1.0,
        "selective_prediction": {"threshold": 0.5},
    }
    (model / "model.json").write_text(json.dumps(known), encoding="utf-8")
    (model / "decision.json").write_text(json.dumps({"accepted_round": 0}), encoding="utf-8")
    return folder


def rates(workspace: Path, rows: pd.DataFrame, modality: str) -> tuple[float, float]:
    """Rows a second of the bare model, and of predict."""
    inputs = workspace / "asked"
    inputs.mkdir(exist_ok=True)
    if modality == "image":
        for number, payload in enumerate(rows[modality]):
            (inputs / f"{number:05d}.jpg").write_bytes(payload)
    else:
        rows[["text"]].to_csv(inputs / "rows.csv", index=False)
    path = inputs if modality == "image" else inputs / "rows.csv"
    model = Predictor.of(workspace).model
    model.predict(rows[modality].iloc[:8].tolist())  # the encoder is loaded at its first row
    began = time.perf_counter()
    model.predict(rows[modality].tolist())
    bare = len(rows) / (time.perf_counter() - began)
    settings = {"form": None, "column": None, "probabilities": False, "number": None}
    took = []
    for many in ("warm", "all"):
        asked = [str(path)] if many == "all" else [str(inputs / "00000.jpg")] if modality == "image" else [str(path)]
        began = time.perf_counter()
        predict(workspace, asked, output=workspace / "answers.csv", **settings)  # type: ignore[arg-type]
        took.append(time.perf_counter() - began)
    return bare, len(rows) / took[-1]


async def held(address: str, bodies: list[dict[str, Any]], a_second: float, seconds: float) -> np.ndarray:
    """(n_requests,): milliseconds of each."""
    async with httpx.AsyncClient(base_url=address, timeout=30) as client:

        async def one(due: float, body: dict[str, Any]) -> float:
            await asyncio.sleep(due - time.perf_counter())
            (await client.post("/predict", json=body)).raise_for_status()
            return 1000 * (time.perf_counter() - due)

        begin = time.perf_counter() + 0.5
        many = int(a_second * seconds)
        dues = [begin + number / a_second for number in range(many)]
        return np.array(await asyncio.gather(*(one(due, bodies[n % len(bodies)]) for n, due in enumerate(dues))))


def latencies(workspace: Path, rows: pd.DataFrame, rates: tuple[int, ...], seconds: float) -> dict[float, np.ndarray]:
    """Milliseconds of each request, by the load."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "seedling.cli.main",
        "serve",
        "-w",
        str(workspace),
        "--port",
        str(port),
        "--rate",
        "100000",
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        bodies = [{"texts": [text]} for text in rows["text"]]
        gc.freeze()  # the client's own pauses are not the server's
        asyncio.run(held(address, bodies, 10, 3))
        return {rate: asyncio.run(held(address, bodies, rate, seconds)) for rate in rates}
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Runs the draws and writes results/serving.csv."""
    parser = parser_of(str(__doc__), SETS, draws=3)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    given = parser.parse_args()
    sets = "" if tuple(given.sets) == SETS else f" --sets {' '.join(given.sets)}"
    command = (
        f"python benchmarks/serving.py --data DATA --backbone BACKBONE{sets} --rows {given.rows} --draws {given.draws}"
    )
    found = []
    for name in given.sets:
        frame = pd.read_parquet(given.data / name / "data.parquet")
        modality = "text" if "text" in frame else "image"
        with tempfile.TemporaryDirectory() as place:
            workspace = grown(Path(place), frame, modality, given.backbone)
            others = frame[frame["split"] != "train"]
            pairs = np.array(
                [
                    rates(workspace, others.sample(min(given.rows, len(others)), random_state=one), modality)
                    for one in range(given.draws)
                ]
            )
            for system, values in (("bare model", pairs[:, 0]), ("Seedling", pairs[:, 1])):
                found.append(
                    Found(
                        f"{name}, predict", system, "rate", *mean_with_interval(values), "rows/s", given.draws, command
                    )
                )
            ratio = mean_with_interval(pairs[:, 1] / pairs[:, 0])
            found.append(
                Found(
                    f"{name}, predict", "Seedling", "rate over the bare model's", *ratio, "ratio", given.draws, command
                )
            )
        if modality != "text":
            continue
        for encoded, rates_held in RATES.items():
            with tempfile.TemporaryDirectory() as place:
                workspace = grown(Path(place), frame, modality, given.backbone if encoded else None)
                for rate, took in latencies(workspace, others, rates_held, given.seconds).items():
                    setting = f"{name}, one text, {'encoder' if encoded else 'no encoder'}, {rate} requests/s"
                    for metric, share in (("median", 0.5), ("99th percentile", 0.99)):
                        value = float(np.quantile(took, share))
                        found.append(
                            Found(setting, "Seedling", f"latency, {metric}", value, value, value, "ms", 1, command)
                        )
    write("serving", found)


if __name__ == "__main__":
    main()
