"""`seedling serve`: the server over real HTTP, with a real model that was saved as train saves it."""

from __future__ import annotations

import base64
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from http_servers import serving
from small_models import grown, image

from seedling.media import images
from seedling.models.predictor import Answer, Predictor, Question
from seedling.serving.api import Limits, RequestBatcher, make_app

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts the server on loopback; gives its address."""
    with ExitStack() as stack:

        def start(predictor: Predictor, limits: Limits) -> str:
            port = stack.enter_context(serving(make_app(predictor, limits), limits.connection_limits()))
            return f"http://127.0.0.1:{port}"

        yield start


FAST = Limits(megabytes=0.1, requests_per_second=10_000)


def command(workspace: Path, port: int) -> subprocess.Popen[str]:
    """`seedling serve` in a process of its own."""
    told = [sys.executable, "-m", "seedling.cli.main", "serve", "-w", str(workspace), "--port", str(port)]
    return subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_command_says_that_a_port_is_in_use_before_anything_is_loaded(tmp_path: Path) -> None:
    """In a folder that holds no model the port is what it speaks of, with the remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        _, said = command(tmp_path, taken.getsockname()[1]).communicate(timeout=60)
    assert "in use" in said
    assert "choose another --port or --host" in said


@pytest.mark.slow
def test_the_command_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    """And leaves with 0, without a word of what is kept."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = command(grown(tmp_path, "text"), port)
    deadline = time.monotonic() + 60
    while True:
        try:
            found = httpx.post(f"http://127.0.0.1:{port}/predict", json={"texts": ["a red thing"]}, timeout=20)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (found.status_code, process.returncode, said) == (200, 0, "")


def test_a_body_that_is_not_said_to_be_json_is_told_so(tmp_path: Path, serve: Serve) -> None:
    """415 with the header that is missing; with it the same body is answered."""
    body = b'{"texts": ["a sentence of red things"]}'
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "text")), FAST)) as client:
        refused = client.post("/predict", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert (refused.status_code, "Content-Type: application/json" in refused.text) == (415, True)
        assert (
            client.post("/predict", content=body, headers={"Content-Type": "application/x-ndjson"}).status_code == 415
        )
        assert 'seedling_refused_total{status="415"} 2.0' in client.get("/metrics").text
        assert client.post("/predict", content=body, headers={"Content-Type": "application/json"}).status_code == 200


def test_the_server_says_what_the_model_says(tmp_path: Path, serve: Serve) -> None:
    """Texts in, answers out as `predict` has them; health; counts for Prometheus."""
    predictor = Predictor.of(grown(tmp_path, "text"))
    with httpx.Client(base_url=serve(predictor, FAST)) as client:
        said = client.post("/predict", json={"texts": ["rain", " ", "sun"]}).raise_for_status().json()
        expected = list(predictor.answers([Question("", one) for one in ("rain", " ", "sun")]))
        assert [one["predicted"] for one in said["answers"]] == ["rain", None, "sun"]
        assert said["answers"][0]["probabilities"] == dict(
            zip(["rain", "sun"], expected[0].probabilities or [], strict=True)
        )
        assert said["answers"][1]["error"] == "empty"
        assert client.get("/health").json()["classes"] == ["rain", "sun"]
        assert 'seedling_rows_total{outcome="answered"} 2.0' in client.get("/metrics").text


@pytest.mark.slow
def test_images_are_asked_as_base64_and_bombs_are_refused(tmp_path: Path, serve: Serve) -> None:
    """An image, no base64, and a header that promises 900 megapixels in a few bytes."""
    bomb = images.encode(np.zeros((8, 8, 3), np.uint8))
    bomb = bomb[:16] + (30_000).to_bytes(4, "big") * 2 + bomb[24:]
    rows = [base64.b64encode(one).decode() for one in (image(200), bomb)]
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "image")), FAST)) as client:
        said = client.post("/predict", json={"images": [rows[0], "%%%", rows[1]]}).raise_for_status().json()["answers"]
    assert [one["predicted"] for one in said] == ["sun", None, None]
    assert said[1]["error"] == "undecodable"
    assert said[2]["error"] in {"undecodable", "too_many_pixels"}


def test_bad_requests_are_refused(tmp_path: Path, serve: Serve) -> None:
    """Wrong types, too many texts, no JSON: 422; a body that is too large, said or not: 413, and the server lives on."""
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "text")), FAST)) as client:
        body: dict[str, Any]
        for body in ({"texts": "rain"}, {"texts": []}, {"texts": ["a"] * 65}, {"text": ["a"]}, {"texts": [3]}):
            assert client.post("/predict", json=body).status_code == 422
        for broken in (b"{", b'{"texts": NaN}', b'{"texts": [1e999]}', b'{"texts": ["\\ud800"]}'):
            assert (
                client.post("/predict", content=broken, headers={"content-type": "application/json"}).status_code == 422
            )
        assert client.post("/predict", content=b"x" * 200_000).status_code == 413
        assert client.post("/predict", content=(b"x" * 1000 for _ in range(200))).status_code == 413
        assert client.get("/health").status_code == 200


def test_images_of_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, serve: Serve) -> None:
    """One of 400 pixels where 300 are allowed, with another that is small: its error alone; three of 250: too many together."""
    predictor = Predictor.of(grown(tmp_path, "image"))
    small = images.encode(np.zeros((5, 50, 3), np.uint8))
    rows = {name: base64.b64encode(one).decode() for name, one in (("large", image(60)), ("small", small))}
    with httpx.Client(base_url=serve(predictor, Limits(requests_per_second=10_000, megapixels=0.0003))) as client:
        found = client.post("/predict", json={"images": [rows["large"]]}).json()["answers"]
        assert found[0]["error"] == "too_many_pixels"
        assert client.post("/predict", json={"images": [rows["small"]] * 2}).json()["answers"][1]["error"] is None
        assert client.post("/predict", json={"images": [rows["small"]] * 3}).status_code == 413


def test_a_client_that_asks_too_fast_is_told_to_wait(tmp_path: Path, serve: Serve) -> None:
    """Two requests a second, four at once: of twenty most are refused, with the seconds to wait."""
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "text")), Limits(requests_per_second=2))) as client:
        found = [client.post("/predict", json={"texts": ["rain"]}) for _ in range(20)]
        assert client.get("/health").status_code == 200
    codes = [one.status_code for one in found]
    assert codes[:4] == [200] * 4
    assert codes.count(429) >= 10
    assert {one.headers["retry-after"] for one in found if one.status_code == 429} == {"1"}


@pytest.mark.slow
def test_a_request_that_waits_too_long_is_told_so(tmp_path: Path, serve: Serve) -> None:
    """Twenty large requests at once of a server that lets nobody wait for longer than 20 ms: some are answered, the others are told when to come again; none hangs."""
    body = {"texts": ["rain over the hills " * 200] * 64}
    limits = Limits(requests_per_second=10_000, wait_seconds=0.02)
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "text")), limits), timeout=60) as client:
        with ThreadPoolExecutor(20) as threads:
            found = list(threads.map(lambda _: client.post("/predict", json=body), range(20)))
        assert {one.status_code for one in found} == {200, 503}
        assert {one.headers["retry-after"] for one in found if one.status_code == 503} == {"5"}
        assert client.get("/docs").status_code == 404, "its page would fetch scripts from elsewhere"


class Noted(Predictor):
    """The predictor, whose calls take a while and are written down; it fails where a row says so."""

    def answers(self, questions: Iterable[Question], at_once: int = 512) -> Iterator[Answer]:
        """As the predictor's."""
        asked = list(questions)
        calls.append([str(one.payload) for one in asked])
        time.sleep(pause[-1])
        if any(one.payload == "fail" for one in asked):
            raise ValueError("fail")
        yield from super().answers(asked, at_once)


calls: list[list[str]] = []
pause = [0.05]  # seconds that a call takes


def test_requests_that_wait_are_asked_together_and_fail_alone(tmp_path: Path) -> None:
    """Ten at once go in one call, and each has its own answers. With one that fails all others have theirs; what fills more than a call is asked for by itself."""
    known = Predictor.of(grown(tmp_path, "text"))
    together = RequestBatcher(Noted(known.model, known.modality, known.round, known.max_megapixels))
    got: dict[str, list[str | None]] = {}

    async def ask(texts: str, share: float) -> None:
        try:
            found = await together.answers([Question("", one) for one in texts.split()], share)
        except ValueError:
            return
        got[texts] = [one.predicted for one in found]

    async def all_of(requests: list[str], share: float) -> None:
        calls.clear()
        got.clear()
        async with anyio.create_task_group() as group:
            for one in requests:
                group.start_soon(ask, one, share)
        assert together.requests == 0

    wanted = [f"rain sun rain{number}" for number in range(5)] + [f"sun rain sun{number}" for number in range(5)]
    anyio.run(all_of, wanted, 0.1)
    assert [len(one) for one in calls] == [30]
    assert got == {one: [word.rstrip("01234") for word in one.split()] for one in wanted}
    anyio.run(all_of, ["rain", "sun", "fail", "sun sun"], 0.1)
    assert got == {"rain": ["rain"], "sun": ["sun"], "sun sun": ["sun", "sun"]}
    anyio.run(all_of, ["rain", "sun", "rain rain"], 0.6)
    assert calls == [["rain"], ["sun"], ["rain", "rain"]]


@pytest.mark.slow
def test_a_request_whose_call_has_begun_is_answered_though_its_time_is_over(tmp_path: Path) -> None:
    """Calls of .5 s, a patience of .8: of three at once that fill half a call each, the second's call begins in time, with the third in it."""
    known = Predictor.of(grown(tmp_path, "text"))
    together = RequestBatcher(Noted(known.model, known.modality, known.round, known.max_megapixels))
    got: dict[str, str] = {}

    async def ask(text: str, share: float, seconds: float) -> None:
        try:
            found = await together.answers([Question("", text)], share, seconds)
            got[text] = str(found[0].predicted)
        except TimeoutError:
            got[text] = "too late"

    async def all_of() -> None:
        calls.clear()
        pause.append(0.5)
        async with anyio.create_task_group() as group:
            for text, share in (("rain", 2.0), ("sun", 0.5), ("sun sun", 0.5), ("rain rain", 2.0)):
                group.start_soon(ask, text, share, 0.8)
        pause.pop()

    anyio.run(all_of)
    assert calls == [["rain"], ["sun", "sun sun"]]
    assert got == {"rain": "rain", "sun": "sun", "sun sun": "sun", "rain rain": "too late"}
    assert together.requests == 0


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path, serve: Serve) -> None:
    """Requests made from the OpenAPI description, and broken ones: no server error, no answer that the description does not know."""
    address = serve(Predictor.of(grown(tmp_path, "text")), Limits(requests_per_second=10_000))
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{address}/openapi.json"]
    command += ["--max-examples", "60", "--seed", "1", "--phases", "examples,coverage,fuzzing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
