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
    """A function that starts the server on the loopback interface and returns its URL."""
    with ExitStack() as stack:

        def start(predictor: Predictor, limits: Limits) -> str:
            port = stack.enter_context(serving(make_app(predictor, limits), limits.connection_limits()))
            return f"http://127.0.0.1:{port}"

        yield start


FAST = Limits(megabytes=0.1, requests_per_second=10_000)


def serve_process(workspace: Path, port: int) -> subprocess.Popen[str]:
    """`seedling serve` in a process of its own."""
    command_args = [sys.executable, "-m", "seedling.cli.main", "serve", "-w", str(workspace), "--port", str(port)]
    return subprocess.Popen(command_args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_command_reports_a_port_in_use_before_it_loads_the_model(tmp_path: Path) -> None:
    """In a folder without a model, the error is about the port and says how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        _, stderr = serve_process(tmp_path, taken.getsockname()[1]).communicate(timeout=60)
    assert "in use" in stderr
    assert "choose another --port or --host" in stderr


@pytest.mark.slow
def test_the_command_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    """After Ctrl-C it exits with 0 and prints nothing to stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = serve_process(grown(tmp_path, "text"), port)
    deadline = time.monotonic() + 60
    while True:
        try:
            response = httpx.post(f"http://127.0.0.1:{port}/predict", json={"texts": ["a red thing"]}, timeout=20)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (response.status_code, process.returncode, stderr) == (200, 0, "")


def test_a_body_without_the_json_content_type_is_answered_with_415(tmp_path: Path, serve: Serve) -> None:
    """The response names the missing header; with the header the same body is answered."""
    body = b'{"texts": ["a sentence of red things"]}'
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "text")), FAST)) as client:
        refused = client.post("/predict", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        assert (refused.status_code, "Content-Type: application/json" in refused.text) == (415, True)
        assert (
            client.post("/predict", content=body, headers={"Content-Type": "application/x-ndjson"}).status_code == 415
        )
        assert 'seedling_refused_total{status="415"} 2.0' in client.get("/metrics").text
        assert client.post("/predict", content=body, headers={"Content-Type": "application/json"}).status_code == 200


def test_the_server_predicts_the_same_as_the_predictor(tmp_path: Path, serve: Serve) -> None:
    """Texts in, answers out as `predict` has them; health; counts for Prometheus."""
    predictor = Predictor.of(grown(tmp_path, "text"))
    with httpx.Client(base_url=serve(predictor, FAST)) as client:
        body = client.post("/predict", json={"texts": ["rain", " ", "sun"]}).raise_for_status().json()
        expected = list(predictor.answers([Question("", text) for text in ("rain", " ", "sun")]))
        assert [answer["predicted"] for answer in body["answers"]] == ["rain", None, "sun"]
        assert body["answers"][0]["probabilities"] == dict(
            zip(["rain", "sun"], expected[0].probabilities or [], strict=True)
        )
        assert body["answers"][1]["error"] == "empty"
        assert client.get("/health").json()["classes"] == ["rain", "sun"]
        assert 'seedling_rows_total{outcome="answered"} 2.0' in client.get("/metrics").text


@pytest.mark.slow
def test_images_are_sent_as_base64_and_decompression_bombs_are_refused(tmp_path: Path, serve: Serve) -> None:
    """A valid image, invalid base64, and a small file whose header declares 900 megapixels."""
    bomb = images.encode(np.zeros((8, 8, 3), np.uint8))
    bomb = bomb[:16] + (30_000).to_bytes(4, "big") * 2 + bomb[24:]
    rows = [base64.b64encode(content).decode() for content in (image(200), bomb)]
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "image")), FAST)) as client:
        answers = (
            client.post("/predict", json={"images": [rows[0], "%%%", rows[1]]}).raise_for_status().json()["answers"]
        )
    assert [answer["predicted"] for answer in answers] == ["sun", None, None]
    assert answers[1]["error"] == "undecodable"
    assert answers[2]["error"] in {"undecodable", "too_many_pixels"}


def test_bad_requests_are_refused(tmp_path: Path, serve: Serve) -> None:
    """Wrong types, too many texts, and invalid JSON: 422.

    A body that is too large, with or without a declared length: 413; the server keeps running.
    """
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


def test_images_with_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, serve: Serve) -> None:
    """An image of 400 pixels where 300 are allowed gets an error of its own.

    Three images of 250 pixels are too many together.
    """
    predictor = Predictor.of(grown(tmp_path, "image"))
    small = images.encode(np.zeros((5, 50, 3), np.uint8))
    rows = {name: base64.b64encode(content).decode() for name, content in (("large", image(60)), ("small", small))}
    with httpx.Client(base_url=serve(predictor, Limits(requests_per_second=10_000, megapixels=0.0003))) as client:
        answers = client.post("/predict", json={"images": [rows["large"]]}).json()["answers"]
        assert answers[0]["error"] == "too_many_pixels"
        assert client.post("/predict", json={"images": [rows["small"]] * 2}).json()["answers"][1]["error"] is None
        assert client.post("/predict", json={"images": [rows["small"]] * 3}).status_code == 413


def test_a_client_that_exceeds_the_rate_limit_is_told_how_long_to_wait(tmp_path: Path, serve: Serve) -> None:
    """With a limit of two requests per second and a burst of four, most of twenty are refused with a Retry-After
    header.
    """
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "text")), Limits(requests_per_second=2))) as client:
        responses = [client.post("/predict", json={"texts": ["rain"]}) for _ in range(20)]
        assert client.get("/health").status_code == 200
    codes = [response.status_code for response in responses]
    assert codes[:4] == [200] * 4
    assert codes.count(429) >= 10
    assert {response.headers["retry-after"] for response in responses if response.status_code == 429} == {"1"}


@pytest.mark.slow
def test_a_request_that_waits_too_long_is_answered_with_503(tmp_path: Path, serve: Serve) -> None:
    """Twenty large requests at once, with a maximum wait of 20 ms.

    Some are answered, the others get a Retry-After header, and none hangs.
    """
    body = {"texts": ["rain over the hills " * 200] * 64}
    limits = Limits(requests_per_second=10_000, wait_seconds=0.02)
    with httpx.Client(base_url=serve(Predictor.of(grown(tmp_path, "text")), limits), timeout=60) as client:
        with ThreadPoolExecutor(20) as threads:
            responses = list(threads.map(lambda _: client.post("/predict", json=body), range(20)))
        assert {response.status_code for response in responses} == {200, 503}
        assert {response.headers["retry-after"] for response in responses if response.status_code == 503} == {"5"}
        assert client.get("/docs").status_code == 404, "its page would fetch scripts from elsewhere"


class RecordingPredictor(Predictor):
    """A predictor that is slow, records its calls, and fails where a row requests it."""

    def answers(self, questions: Iterable[Question], at_once: int = 512) -> Iterator[Answer]:
        """As in the predictor."""
        question_list = list(questions)
        calls.append([str(question.payload) for question in question_list])
        time.sleep(pause[-1])
        if any(question.payload == "fail" for question in question_list):
            raise ValueError("fail")
        yield from super().answers(question_list, at_once)


calls: list[list[str]] = []
pause = [0.05]  # seconds that a call takes


def test_waiting_requests_are_batched_and_fail_separately(tmp_path: Path) -> None:
    """Ten requests at once run in one call, and each gets its own answers.

    If one fails, all others are answered; requests that fill more than one call run separately.
    """
    predictor = Predictor.of(grown(tmp_path, "text"))
    batcher = RequestBatcher(
        RecordingPredictor(predictor.model, predictor.modality, predictor.round, predictor.max_megapixels)
    )
    answers: dict[str, list[str | None]] = {}

    async def ask(texts: str, share: float) -> None:
        try:
            predictions = await batcher.answers([Question("", text) for text in texts.split()], share)
        except ValueError:
            return
        answers[texts] = [answer.predicted for answer in predictions]

    async def all_of(requests: list[str], share: float) -> None:
        calls.clear()
        answers.clear()
        async with anyio.create_task_group() as group:
            for request in requests:
                group.start_soon(ask, request, share)
        assert batcher.requests == 0

    requests = [f"rain sun rain{number}" for number in range(5)] + [f"sun rain sun{number}" for number in range(5)]
    anyio.run(all_of, requests, 0.1)
    assert [len(call) for call in calls] == [30]
    assert answers == {texts: [word.rstrip("01234") for word in texts.split()] for texts in requests}
    anyio.run(all_of, ["rain", "sun", "fail", "sun sun"], 0.1)
    assert answers == {"rain": ["rain"], "sun": ["sun"], "sun sun": ["sun", "sun"]}
    anyio.run(all_of, ["rain", "sun", "rain rain"], 0.6)
    assert calls == [["rain"], ["sun"], ["rain", "rain"]]


@pytest.mark.slow
def test_a_request_whose_call_has_begun_is_answered_after_its_deadline(tmp_path: Path) -> None:
    """Calls take 0.5 s and the maximum wait is 0.8 s.

    Of three simultaneous requests that fill half a call each, the second call begins in time, with the third
    request in it.
    """
    predictor = Predictor.of(grown(tmp_path, "text"))
    batcher = RequestBatcher(
        RecordingPredictor(predictor.model, predictor.modality, predictor.round, predictor.max_megapixels)
    )
    answers: dict[str, str] = {}

    async def ask(text: str, share: float, seconds: float) -> None:
        try:
            predictions = await batcher.answers([Question("", text)], share, seconds)
            answers[text] = str(predictions[0].predicted)
        except TimeoutError:
            answers[text] = "too late"

    async def all_of() -> None:
        calls.clear()
        pause.append(0.5)
        async with anyio.create_task_group() as group:
            for text, share in (("rain", 2.0), ("sun", 0.5), ("sun sun", 0.5), ("rain rain", 2.0)):
                group.start_soon(ask, text, share, 0.8)
        pause.pop()

    anyio.run(all_of)
    assert calls == [["rain"], ["sun", "sun sun"]]
    assert answers == {"rain": "rain", "sun": "sun", "sun sun": "sun", "rain rain": "too late"}
    assert batcher.requests == 0


@pytest.mark.slow
def test_schemathesis_finds_nothing(tmp_path: Path, serve: Serve) -> None:
    """Requests generated from the OpenAPI description, valid and broken: no server error, and no response outside the
    description.
    """
    address = serve(Predictor.of(grown(tmp_path, "text")), Limits(requests_per_second=10_000))
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{address}/openapi.json"]
    command += ["--max-examples", "60", "--seed", "1", "--phases", "examples,coverage,fuzzing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
