"""Measure `seedling predict` beside the bare model, and the latency of `seedling serve` at a constant request rate.

    python benchmarks/serving.py --data FOLDER --backbone FOLDER [--rows 1000] [--draws 3] [--seconds 20]

FOLDER holds the sets of benchmarks/few_labels.py. The model is logistic regression on the encoder's features of 500
training rows, saved as train saves it. Bare: the loaded model on rows in memory. Seedling: the complete `predict`
without its start, from files (images) or a table (texts) to a CSV file. The server is a separate process. Requests of
one short text leave at fixed times, whether or not earlier ones have been answered, so that waiting counts (open
loop). The server uses the encoder's features, and without an encoder the words and letters of the text.
"""

from __future__ import annotations

import asyncio
import gc
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
from record import Measurement, mean_with_interval, write

from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.features.encoder_handle import EncoderHandle
from seedling.models.heads import Head
from seedling.models.predictor import Predictor
from seedling.models.saving import make_features, save_features, save_learner
from seedling.prediction import predict
from seedling.records.model import AbstentionRecord, MemberRecord, ModelRecord
from seedling.train.round_decision import RoundDecision

SETS = ("trashnet", "sms_spam")
TRAINING_ROWS = 500
RATES = {True: (10, 25, 50), False: (50, 100, 200)}  # requests per second, with an encoder (True) and without


def make_workspace(folder: Path, frame: pd.DataFrame, modality: Any, backbone: str | None) -> Path:
    """Write a workspace with one round; backbone None: without an encoder."""
    model, train = folder / "models" / "0", frame[frame["split"] == "train"].sample(TRAINING_ROWS, random_state=0)
    classes = sorted(train["label"].unique())
    truth = train["label"].map(classes.index).to_numpy()
    encoder = EncoderParams(model="all-MiniLM-L6-v2" if modality == "text" else str(backbone))
    maker = make_features(
        EncoderHandle(encoder, modality, folder) if backbone else None, None, WorkspaceConfig(modality=modality)
    )
    head = Head("logistic_regression", 0, len(classes))
    head.fit(maker.fit_transform(train[modality].tolist()), np.eye(len(classes))[truth], np.ones(TRAINING_ROWS))
    save_learner(head, model / "half-0" / "lr")
    save_features(maker, model)
    member = MemberRecord(
        learner="logistic_regression",
        recipe=("collected",),
        loss="plain",
        file="lr",
        pool_halves=1,
        temperature=1.0,
        votes=1.0,
    )
    abstention = AbstentionRecord(threshold=0.5, target_accuracy=0.95, coverage=None, accuracy=None, out_of_scope=0)
    ModelRecord(
        round=0,
        modality=modality,
        classes=tuple(classes),
        members=(member,),
        temperature=1.0,
        selective_prediction=abstention,
    ).write(model / "model.json")
    RoundDecision(0, "accepted", stop=True, reason="the start", accepted_round=0, rows=0).record.write(
        model / "decision.json"
    )
    return folder


def rates(workspace: Path, rows: pd.DataFrame, modality: str) -> tuple[float, float]:
    """Return rows per second of the bare model and of predict."""
    inputs = workspace / "asked"
    inputs.mkdir(exist_ok=True)
    if modality == "image":
        for number, payload in enumerate(rows[modality]):
            (inputs / f"{number:05d}.jpg").write_bytes(payload)
    else:
        rows[["text"]].to_csv(inputs / "rows.csv", index=False)
    path = inputs if modality == "image" else inputs / "rows.csv"
    model = Predictor.of(workspace).model
    model.predict(rows[modality].iloc[:8].tolist())  # loads the encoder
    began = time.perf_counter()
    model.predict(rows[modality].tolist())
    bare = len(rows) / (time.perf_counter() - began)
    settings = {"form": None, "column": None, "probabilities": False, "number": None}
    seconds_of_phase = []
    for phase in ("warm", "all"):
        inputs_to_predict = (
            [str(path)] if phase == "all" else [str(inputs / "00000.jpg")] if modality == "image" else [str(path)]
        )
        began = time.perf_counter()
        predict(workspace, inputs_to_predict, output=workspace / "answers.csv", **settings)  # type: ignore[arg-type]
        seconds_of_phase.append(time.perf_counter() - began)
    return bare, len(rows) / seconds_of_phase[-1]


async def send_at_rate(address: str, bodies: list[dict[str, Any]], a_second: float, seconds: float) -> np.ndarray:
    """Return the latency of each request in milliseconds: (n_requests,)."""
    async with httpx.AsyncClient(base_url=address, timeout=30) as client:

        async def one(due: float, body: dict[str, Any]) -> float:
            await asyncio.sleep(due - time.perf_counter())
            (await client.post("/predict", json=body)).raise_for_status()
            return 1000 * (time.perf_counter() - due)

        begin = time.perf_counter() + 0.5
        n_requests = int(a_second * seconds)
        dues = [begin + number / a_second for number in range(n_requests)]
        return np.array(await asyncio.gather(*(one(due, bodies[n % len(bodies)]) for n, due in enumerate(dues))))


def latencies(workspace: Path, rows: pd.DataFrame, rates: tuple[int, ...], seconds: float) -> dict[float, np.ndarray]:
    """Return the latency of each request in milliseconds, by request rate."""
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
        gc.freeze()  # keep garbage collection of the client out of the latency
        asyncio.run(send_at_rate(address, bodies, 10, 3))
        return {rate: asyncio.run(send_at_rate(address, bodies, rate, seconds)) for rate in rates}
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Run the draws and write results/serving.csv."""
    parser = parser_of(str(__doc__), SETS, draws=3)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds per request rate")
    arguments = parser.parse_args()
    sets = "" if tuple(arguments.sets) == SETS else f" --sets {' '.join(arguments.sets)}"
    command = (
        f"python benchmarks/serving.py --data DATA --backbone BACKBONE{sets} --rows {arguments.rows} "
        f"--draws {arguments.draws}"
    )
    measurements = []
    for name in arguments.sets:
        frame = pd.read_parquet(arguments.data / name / "data.parquet")
        modality = "text" if "text" in frame else "image"
        with tempfile.TemporaryDirectory() as scratch:
            workspace = make_workspace(Path(scratch), frame, modality, arguments.backbone)
            others = frame[frame["split"] != "train"]
            pairs = np.array(
                [
                    rates(workspace, others.sample(min(arguments.rows, len(others)), random_state=seed), modality)
                    for seed in range(arguments.draws)
                ]
            )
            for system, values in (("bare model", pairs[:, 0]), ("Seedling", pairs[:, 1])):
                measurements.append(
                    Measurement(
                        f"{name}, predict",
                        system,
                        "rate",
                        *mean_with_interval(values.tolist()),
                        "rows/s",
                        arguments.draws,
                        command,
                    )
                )
            ratio = mean_with_interval(pairs[:, 1] / pairs[:, 0])
            measurements.append(
                Measurement(
                    f"{name}, predict",
                    "Seedling",
                    "rate over the bare model's",
                    *ratio,
                    "ratio",
                    arguments.draws,
                    command,
                )
            )
        if modality != "text":
            continue
        for encoded, rates_held in RATES.items():
            with tempfile.TemporaryDirectory() as scratch:
                workspace = make_workspace(Path(scratch), frame, modality, arguments.backbone if encoded else None)
                for rate, seconds_of_phase in latencies(workspace, others, rates_held, arguments.seconds).items():
                    setting = f"{name}, one text, {'encoder' if encoded else 'no encoder'}, {rate} requests/s"
                    for metric, share in (("median", 0.5), ("99th percentile", 0.99)):
                        value = float(np.quantile(seconds_of_phase, share))
                        measurements.append(
                            Measurement(
                                setting, "Seedling", f"latency, {metric}", value, value, value, "ms", 1, command
                            )
                        )
    write("serving", measurements)


if __name__ == "__main__":
    main()
