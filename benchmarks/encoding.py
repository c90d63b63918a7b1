"""Compare the encoding rate of Seedling with that of the encoder's own library, on the same rows and cores.

    python benchmarks/encoding.py --data FOLDER --backbone FOLDER [--rows 1000] [--repeats 3]

Texts: all-MiniLM-L6-v2 on messages of sms_spam, beside sentence-transformers' `encode` with its defaults, on one
core. Images: the backbone on trashnet's photographs, including decoding and preparation, beside a plain loop over
transformers' processor and model in batches of 16, on two cores. Systems take turns; each ratio is of the same turn.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from record import Measurement, mean_with_interval, write

from seedling.features.encoder_handle import EncoderHandle

SYSTEMS = ("plain", "seedling", "seedling bfloat16")


def texts(system: str, rows: list[str]) -> float:
    """Return rows per second for texts on one core."""
    import torch

    from seedling.features.pretrained import MINILM, minilm_folder

    if system == "plain":
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        model = SentenceTransformer(str(minilm_folder()))
        began = time.perf_counter()
        model.encode(rows)
        return len(rows) / (time.perf_counter() - began)
    return ours(system, rows, MINILM, "text")


def ours(system: str, rows: list[Any], model: str, modality: Literal["image", "text"]) -> float:
    """Return rows per second of Seedling's encoder."""
    from seedling.config.params import EncoderParams
    from seedling.features.encoder import load_encoder

    precision: Literal["float32", "bfloat16"] = "bfloat16" if "bfloat16" in system else "float32"
    encoder = load_encoder(EncoderHandle(EncoderParams(model=model, precision=precision), modality, Path()))
    began = time.perf_counter()
    for _ in encoder.encode(rows):
        pass
    return len(rows) / (time.perf_counter() - began)


def images(system: str, rows: list[bytes], backbone: str) -> float:
    """Return rows per second for images on two cores."""
    import torch

    if system == "plain":
        from PIL import Image
        from transformers import AutoImageProcessor, AutoModel

        torch.set_num_threads(2)
        processor, model = AutoImageProcessor.from_pretrained(backbone), AutoModel.from_pretrained(backbone).eval()
        began = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, len(rows), 16):
                batch = [Image.open(io.BytesIO(payload)).convert("RGB") for payload in rows[first : first + 16]]
                model(**processor(batch, return_tensors="pt"))
        return len(rows) / (time.perf_counter() - began)
    return ours(system, rows, backbone, "image")


def alone(kind: str, system: str, arguments: argparse.Namespace) -> float:
    """Return the rate, measured in a separate process because the C library's memory settings persist."""
    command = [sys.executable, __file__, "--data", str(arguments.data), "--backbone", arguments.backbone]
    command += ["--rows", str(arguments.rows), "--only", kind, system]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def measure(kind: str, system: str, arguments: argparse.Namespace) -> float:
    """Return the rate, measured in this process."""
    if kind == "texts":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        frame = pd.read_parquet(arguments.data / "sms_spam/data.parquet")
        return texts(system, frame["text"].head(arguments.rows).tolist())
    frame = pd.read_parquet(arguments.data / "trashnet/data.parquet").head(arguments.rows)
    return images(
        system, [cell["bytes"] if isinstance(cell, dict) else cell for cell in frame["image"]], arguments.backbone
    )


def main() -> None:
    """Run the repeats and write results/encoding.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs=2)
    arguments = parser.parse_args()
    if arguments.only:
        kind, system = arguments.only
        print(measure(kind, system, arguments))
        return
    command = (
        f"python benchmarks/encoding.py --data DATA --backbone BACKBONE --rows {arguments.rows} "
        f"--repeats {arguments.repeats}"
    )
    measurements = []
    for kind, setting, peer in (
        ("texts", "all-MiniLM-L6-v2, messages, one core", "sentence-transformers"),
        ("images", "MobileNetV2 at 224, photographs, two cores", "transformers, plain loop"),
    ):
        rates: dict[str, list[float]] = {system: [] for system in SYSTEMS}
        for _ in range(arguments.repeats):
            for system in SYSTEMS:
                rates[system].append(alone(kind, system, arguments))
        for system in SYSTEMS:
            name = peer if system == "plain" else system.capitalize()
            measurements.append(
                Measurement(
                    setting, name, "rate", *mean_with_interval(rates[system]), "rows/s", arguments.repeats, command
                )
            )
            ratios = np.array(rates[system]) / np.array(rates["plain"])
            measurements.append(
                Measurement(
                    setting,
                    name,
                    f"rate over {peer}'s",
                    *mean_with_interval(ratios),
                    "ratio",
                    arguments.repeats,
                    command,
                )
            )
    write("encoding", measurements)


if __name__ == "__main__":
    main()
