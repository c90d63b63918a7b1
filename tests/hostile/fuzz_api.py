"""Hostile bodies and raw requests to the API for FUZZ_SECONDS seconds (600): `make fuzz`. pytest does not collect it.

Each input must be answered within SECONDS_PER_REQUEST by a status that the API describes, or by a closed connection; the server must go on.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import httpx
from http_servers import serving
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_models import grown, image

from seedling.models.predictor import Predictor
from seedling.serving.api import Limits, make_app

ROUND_EXAMPLES = 50
SECONDS_PER_REQUEST = 10.0
STATUSES = {200, 400, 401, 404, 405, 408, 413, 415, 422, 429, 431, 501, 503}
GOOD = image(200)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=20), inner, max_size=8),
    max_leaves=60,
)
changed_images = st.builds(
    lambda at, new, end: (GOOD[:at] + new + GOOD[at + len(new) :])[: len(GOOD) - end],
    st.integers(0, len(GOOD)),
    st.binary(min_size=1, max_size=40),
    st.integers(0, 60),
)
image_headers = st.sampled_from(
    [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x00\x00\x00\x00WEBPVP8L", b"BM"]
)
encoded_images = changed_images | st.builds(lambda head, rest: head + rest, image_headers, st.binary(max_size=400))
base64_images = encoded_images.map(lambda encoded: base64.b64encode(encoded).decode()) | st.text(max_size=60)
bodies = (
    st.fixed_dictionaries({"images": st.lists(base64_images, max_size=18)}).map(json.dumps).map(str.encode)
    | st.fixed_dictionaries({"texts": st.lists(st.text(max_size=2000), max_size=66)}).map(json.dumps).map(str.encode)
    | st.fixed_dictionaries({"texts": json_values}).map(json.dumps).map(str.encode)
    | json_values.map(json.dumps).map(str.encode)
    | st.integers(1, 200_000).map(lambda depth: b"[" * depth)
    | st.integers(1, 200_000).map(lambda digits: b'{"texts": ' + b"9" * digits + b"}")
    | st.binary(max_size=2000)
)
content_types = st.sampled_from(
    ["application/json", "application/problem+json", "text/plain", "", "application/json; charset=utf-16"]
)
header_lines = st.sampled_from(
    [
        b"Host: localhost",
        b"Host: evil.example",
        b"Content-Length: 4",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Connection: keep-alive, upgrade",
        b"Upgrade: websocket",
        b"Expect: 100-continue",
        b"Content-Type: application/json",
        b" folded",
        b"\x00: \x00",
    ]
)
raw_requests = st.builds(
    lambda method, path, version, headers, body: b" ".join([method, path, version]) + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body,
    st.sampled_from([b"GET", b"POST", b"PUT", b"CONNECT", b"\xff"]),
    st.sampled_from([b"/predict", b"/health", b"*", b"http://evil.example/", b"/%00", b"/" + b"a" * 3000]) | st.binary(max_size=50),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b""]),
    st.lists(header_lines, max_size=6),
    st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"ffffffffffffffff\r\nx", b"-1\r\n"]) | st.binary(max_size=100),
)  # fmt: skip


def post_body(client: httpx.Client, body: bytes, content_type: str) -> None:
    """Raises AssertionError where the answer is late, or not one that the API describes."""
    began = time.monotonic()
    response = client.post("/predict", content=body, headers={"content-type": content_type})
    assert response.status_code in STATUSES, (response.status_code, body[:200])
    assert time.monotonic() - began < SECONDS_PER_REQUEST, body[:200]
    if response.status_code == 200:
        answers: list[dict[str, Any]] = response.json()["answers"]
        assert all((answer["predicted"] is None) == (answer["error"] is not None) for answer in answers), body[:200]


def send_raw(port: int, request: bytes) -> None:
    """Sends the bytes and nothing more; reads what comes until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=2 * SECONDS_PER_REQUEST) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            response = connection.recv(65536)
        except ConnectionError:
            return
    if response:
        status = response.split(b" ", 2)[1]
        assert status.isdigit() and int(status) in STATUSES | {100}, (status, request[:200])


def fuzz_api(seconds: float) -> int:
    """Fuzzes the API of a model of images and of one of texts, each half of the time and one round at least; gives the number of inputs.

    Raises what an input shows.
    """
    return fuzz_modality("image", seconds / 2) + fuzz_modality("text", seconds / 2)


def fuzz_modality(modality: Literal["image", "text"], seconds: float) -> int:
    """Fuzzes the API of a model of this modality."""
    limits, patience = Limits(requests_per_second=100_000), 2 * SECONDS_PER_REQUEST
    with ExitStack() as stack:
        workspace = grown(Path(stack.enter_context(tempfile.TemporaryDirectory())), modality)
        app = make_app(Predictor.of(workspace), limits)
        port = stack.enter_context(serving(app, limits.connection_limits()))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=patience))

        @settings(
            max_examples=ROUND_EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(body=bodies, content_type=content_types, request=raw_requests)
        def one_input(body: bytes, content_type: str, request: bytes) -> None:
            post_body(client, body, content_type)
            send_raw(port, request)

        inputs, began = 0, time.monotonic()
        while not inputs or time.monotonic() - began < seconds:
            one_input()
            inputs += 2 * ROUND_EXAMPLES
            assert client.get("/health").status_code == 200
    return inputs


def main() -> None:
    """Fuzzes for as long as the environment says."""
    seconds = float(os.environ.get("FUZZ_SECONDS", "600"))
    print(f"API: {fuzz_api(seconds):,} inputs in {seconds:g} seconds, no crash and no hang.")


if __name__ == "__main__":
    main()
