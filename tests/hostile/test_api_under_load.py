"""The API with many clients: each request is answered, and memory use stays constant."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Literal

import httpx
import psutil
import pytest
from hostile.fuzz_api import fuzz_api
from prefect_runs import free_port
from small_models import grown, image

CLIENTS, REQUESTS = 64, 5_000
MAX_GROWTH_MB = 100


@pytest.mark.slow
def test_the_fuzzed_bodies_are_run_for_a_moment() -> None:
    """`make fuzz` runs this for ten minutes; here it is one round per modality."""
    assert fuzz_api(1.0) >= 100


@pytest.mark.soak
@pytest.mark.parametrize("modality", ["text", "image"])
def test_64_clients_and_5000_requests_do_not_increase_memory(
    tmp_path: Path, modality: Literal["text", "image"]
) -> None:
    """Every answer is correct; the second half of the requests adds less than 100 MB to the server and its workers."""
    port = free_port()
    command = [sys.executable, "-m", "seedling.cli.main", "serve", "-w", str(grown(tmp_path, modality))]
    command += ["--port", str(port), "--rate", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}/predict"
    body = (
        {"texts": ["rain over the hills"]} if modality == "text" else {"images": [base64.b64encode(image(40)).decode()]}
    )

    def used_mb() -> float:
        server = psutil.Process(process.pid)
        return sum(process.memory_info().rss for process in [server, *server.children(recursive=True)]) / 1e6

    def ask(count: int) -> list[str]:
        with httpx.Client(timeout=60) as client:
            responses = [client.post(url, json=body) for _ in range(count)]
        return [
            response.json()["answers"][0]["predicted"] if response.status_code == 200 else str(response.status_code)
            for response in responses
        ]

    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(url, timeout=20)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)
        used: list[float] = []
        for _ in range(2):
            with ThreadPoolExecutor(CLIENTS) as threads:
                counts = [REQUESTS // 2 // CLIENTS + 1] * CLIENTS
                answers = set(chain.from_iterable(threads.map(ask, counts)))
            assert answers == {"rain"}
            used.append(used_mb())
        assert used[1] - used[0] < MAX_GROWTH_MB, used
    finally:
        process.terminate()
        _, logged = process.communicate(timeout=60)
    assert logged == ""
