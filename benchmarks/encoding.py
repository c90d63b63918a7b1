"""How fast features are made: Seedling's loop beside the encoder's own library, same rows, same cores, in one session.

    python benchmarks/encoding.py --data FOLDER --backbone FOLDER [--rows 1000] [--repeats 3]

Texts: all-MiniLM-L6-v2 on messages of sms_spam, beside sentence-transformers' `encode` with its defaults, on one core.
Images: the backbone on trashnet's photographs, decoding and preparation included, beside a plain loop over
transformers' processor and model in batches of 16, on two cores. Systems take turns; ratios are of the same turn.
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
from record import Found, mean_with_interval, write

from seedling.features.encoder_handle import EncoderHandle

SYSTEMS = ("plain", "seedling", "seedling bfloat16")


def texts(system: str, rows: list[str]) -> float:
    """Rows a second on one core."""
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
    """Rows a second of Seedling's loop."""
    from seedling.config.params import EncoderParams
    from seedling.features.encoder import load_encoder

    precision: Literal["float32", "bfloat16"] = "bfloat16" if "bfloat16" in system else "float32"
    encoder = load_encoder(EncoderHandle(EncoderParams(model=model, precision=precision), modality, Path()))
    began = time.perf_counter()
    for _ in encoder.encode(rows):
        pass
    return len(rows) / (time.perf_counter() - began)


def images(system: str, rows: list[bytes], backbone: str) -> float:
    """Rows a second on two cores."""
    import torch

    if system == "plain":
        from PIL import Image
        from transformers import AutoImageProcessor, AutoModel

        torch.set_num_threads(2)
        processor, model = AutoImageProcessor.from_pretrained(backbone), AutoModel.from_pretrained(backbone).eval()
        began = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, len(rows), 16):
                some = [Image.open(io.BytesIO(one)).convert("RGB") for one in rows[first : first + 16]]
                model(**processor(some, return_tensors="pt"))
        return len(rows) / (time.perf_counter() - began)
    return ours(system, rows, backbone, "image")


def alone(kind: str, system: str, given: argparse.Namespace) -> float:
    """The rate in a process of its own, as the C library's memory settings last."""
    command = [sys.executable, __file__, "--data", str(given.data), "--backbone", given.backbone]
    command += ["--rows", str(given.rows), "--only", kind, system]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def measure(kind: str, system: str, given: argparse.Namespace) -> float:
    """The rate, here."""
    if kind == "texts":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        frame = pd.read_parquet(given.data / "sms_spam/data.parquet")
        return texts(system, frame["text"].head(given.rows).tolist())
    frame = pd.read_parquet(given.data / "trashnet/data.parquet").head(given.rows)
    return images(system, [one["bytes"] if isinstance(one, dict) else one for one in frame["image"]], given.backbone)


def main() -> None:
    """Writes results/encoding.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs=2)
    given = parser.parse_args()
    if given.only:
        print(measure(*given.only, given))
        return
    command = (
        f"python benchmarks/encoding.py --data DATA --backbone BACKBONE --rows {given.rows} --repeats {given.repeats}"
    )
    found = []
    for kind, setting, peer in (
        ("texts", "all-MiniLM-L6-v2, messages, one core", "sentence-transformers"),
        ("images", "MobileNetV2 at 224, photographs, two cores", "transformers, plain loop"),
    ):
        rates = {system: [] for system in SYSTEMS}
        for _ in range(given.repeats):
            for system in SYSTEMS:
                rates[system].append(alone(kind, system, given))
        for system in SYSTEMS:
            name = peer if system == "plain" else system.capitalize()
            found.append(
                Found(setting, name, "rate", *mean_with_interval(rates[system]), "rows/s", given.repeats, command)
            )
            ratios = np.array(rates[system]) / np.array(rates["plain"])
            found.append(
                Found(
                    setting, name, f"rate over {peer}'s", *mean_with_interval(ratios), "ratio", given.repeats, command
                )
            )
    write("encoding", found)


if __name__ == "__main__":
    main()
