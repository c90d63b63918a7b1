"""Connections, headers and bodies that never end, or that are ambiguous, use little of a server and lock out no other
client.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from http_servers import answer, is_open, send, serving
from small_models import grown

from seedling.errors import InputError
from seedling.models.predictor import Predictor
from seedling.serving.api import Limits, make_app
from seedling.serving.http_clients import AllowedHosts, checked_hosts, client_of
from seedling.serving.http_connections import ConnectionLimits, OncePerSpan
from seedling.serving.http_guard import GuardedApp, Message, Receive, RequestLimits, Scope, Send, token_from
from seedling.serving.report_server import ReportServer

MAX_WAIT_SECONDS = 30  # a busy machine is slow; without the limits the wait has no end
HALF = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-a: b"
QUALITY = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
LIMITS = ConnectionLimits(per_client=8, total=16, header_seconds=1.0, write_seconds=1.0)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with the number of bytes of the body, or with as many bytes as the path says."""
    size = 0
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        size += len(message.get("body", b""))
    path = str(scope["path"]).strip("/")
    body = b"x" * int(path) if path.isdigit() else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def guarded(token: str | None = None, **limits: float) -> GuardedApp:
    """The echo application with connection limits and room for two bodies of 1 MB at a time."""
    usual = {"body_bytes": 1_000_000, "bodies_bytes": 2_000_000}
    return GuardedApp(echo, AllowedHosts("127.0.0.1"), RequestLimits(**(usual | limits)), token=token)  # type: ignore[arg-type]


@pytest.fixture
def port() -> Iterator[int]:
    """The port of the echo server."""
    with serving(guarded(body_grace_seconds=1.0), LIMITS) as number:
        yield number


def post(size: int, host: str = "localhost", *headers: str) -> bytes:
    """The head of a request with a body."""
    lines = ["POST /predict HTTP/1.1", f"Host: {host}", f"Content-Length: {size}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def status(response: bytes) -> int:
    """The status of an answer; 0 if there is none."""
    return int(response.split(b" ", 2)[1]) if response else 0


@pytest.mark.parametrize("host", ["localhost", "elsewhere.test"])
def test_a_body_that_is_not_http_leaves_no_traceback_in_the_log(
    port: int, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server answers 400 once, whether or not the application had refused the request by its head."""
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(20):
        assert status(answer(port, head.encode() + b"zz\r\n")) == 400
    time.sleep(0.2)  # for answers that would come after it
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []
    assert status(answer(port, QUALITY)) == 200


@pytest.mark.slow
def test_incomplete_requests_do_not_block_complete_ones(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """Of 60 incomplete requests of one client 8 are held for a second; complete requests are answered meanwhile, and
    two kinds of messages are logged once each.
    """
    halves = [send(port, HALF) for _ in range(60)]
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert status(answer(port, QUALITY)) == 200
    assert sum(map(is_open, halves)) <= 8
    while any(map(is_open, halves)):
        assert time.monotonic() - began < MAX_WAIT_SECONDS
        time.sleep(0.1)
    assert len(caplog.records) <= 2
    for half in halves:
        half.close()


@pytest.mark.slow
def test_slow_incomplete_requests_have_the_same_time_limit(port: int) -> None:
    """A byte every 100 ms does not extend the limit of one second."""
    with send(port, HALF) as half:
        began = time.monotonic()
        while is_open(half):
            assert time.monotonic() - began < MAX_WAIT_SECONDS
            time.sleep(0.1)
            try:
                half.setblocking(True)
                half.send(b"c")
            except OSError:
                break
    assert 0.8 < time.monotonic() - began < MAX_WAIT_SECONDS


def test_a_client_at_its_limit_does_not_block_other_clients(port: int) -> None:
    """127/8 is one client, so both share its limit here; incomplete requests give way to the newest complete one from
    any address.
    """
    halves = [send(port, HALF, source="127.0.0.9") for _ in range(40)]
    assert status(answer(port, QUALITY, source="127.0.0.10")) == 200
    for half in halves:
        half.close()


@pytest.mark.slow
def test_stalled_bodies_give_way_to_complete_ones(port: int) -> None:
    """Six bodies stop before their last byte with room for two; a complete one is accepted, and the others are answered
    408 or 503.
    """
    held = [send(port, post(900_000) + b"x" * 200_000) for _ in range(6)]
    assert answer(port, post(900_000, "localhost", "Connection: close") + b"x" * 900_000).endswith(b"900000")
    for connection in held:
        connection.settimeout(15)
        assert status(connection.recv(4096)) in {408, 503}
        connection.close()


@pytest.mark.slow
def test_a_slow_body_is_given_up(port: int) -> None:
    """It has a second more than a body of 50 kB/s would take, whether bytes arrive or not."""
    with send(port, post(900_000)) as connection:
        began = time.monotonic()
        connection.settimeout(0.1)
        response = b""
        while not response:
            assert time.monotonic() - began < MAX_WAIT_SECONDS
            try:
                connection.send(b"x")
                response = connection.recv(4096)
            except TimeoutError:
                pass
    assert status(response) == 408


def test_chunks_of_one_byte_are_refused(port: int) -> None:
    """A body whose chunk headers are far larger than its content is cut off; one in usual chunks is read."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert answer(port, head + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n") == b""
    assert answer(port, head + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 500 + b"0\r\n\r\n").endswith(b"512000")


@pytest.mark.slow
def test_an_answer_that_is_not_read_is_given_up(port: int) -> None:
    """A client that requests 50 MB and reads nothing is disconnected after the limit of one second."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET /50000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began = time.monotonic()
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            while time.monotonic() - began < 15:
                connection.send(b"x")
                time.sleep(0.1)


@pytest.mark.parametrize(
    "request_",
    [
        post(3, "localhost", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + QUALITY,
        post(3, "localhost", "Transfer-Encoding: identity") + b"abc",
        post(3, "localhost", "Content-Length: 4") + b"abcd",
        b"POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + QUALITY,
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n X: folded\r\nHost: other\r\n\r\n",
    ],
)
def test_two_content_lengths_are_refused_and_nothing_is_read_after_them(port: int, request_: bytes) -> None:
    """The server sends one error and closes the connection."""
    response = answer(port, request_)
    assert status(response) in {400, 501}
    assert response.count(b"HTTP/1.1 4") + response.count(b"HTTP/1.1 2") <= 1


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n", {431}),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 60_000 + b"\r\n\r\n", {400, 431}),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 1_000_000, {400}),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 4000 + b"\r\n\r\n", {400, 413}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), {400}),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    ],
)
def test_requests_that_are_too_large_or_not_http_are_refused(port: int, request_: bytes, expected: set[int]) -> None:
    """The answer has the reason, and the server continues."""
    assert status(answer(port, request_)) in expected
    assert status(answer(port, QUALITY)) == 200


def test_a_number_too_long_for_python_does_not_stop_the_server(port: int) -> None:
    """A Content-Length of 10,000 digits."""
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 10_000 + b"\r\n\r\n"
    assert status(answer(port, request)) in {0, 400, 413}
    assert status(answer(port, QUALITY)) == 200


HOSTS = {
    "localhost": True,
    "LOCALHOST:80": True,
    "localhost.": True,
    "127.0.0.1:8000": True,
    "[::1]:8000": True,
    "evil.example": False,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example": False,
    "evil.example@localhost": False,
    "localhost@evil.example": False,
    "localhost, evil.example": False,
    "localhost:80:80": False,
    "": False,
    "[::1": False,
    "2130706433": False,
    "0.0.0.0": False,  # noqa: S104  (compared with, not bound)
}


@pytest.mark.parametrize("host", HOSTS)
def test_only_host_names_of_the_server_are_answered(port: int, host: str) -> None:
    """A host name that another site points to this server is refused, with the fix."""
    response = answer(port, f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert status(response) == (200 if HOSTS[host] else 400)


def test_a_host_name_is_allowed_by_an_option() -> None:
    """--allow-host takes names and addresses, but not URLs; a server that listens on all interfaces answers to the
    address that was called.
    """
    hosts = AllowedHosts("0.0.0.0", checked_hosts(["models.example", "2001:DB8::1"]))  # noqa: S104  (not bound here)
    for host, local, is_allowed in [
        (b"Models.Example:443", "10.0.0.7", True),
        (b"[2001:db8:0:0::1]", "10.0.0.7", True),
        (b"10.0.0.7:8000", "10.0.0.7", True),
        (b"10.0.0.8", "10.0.0.7", False),
        (b"other.example", "10.0.0.7", False),
        (socket.gethostname().encode(), "10.0.0.7", True),
    ]:
        assert (hosts.refusal([(b"host", host)], local) is None) is is_allowed, host
    assert "--allow-host other.example" in str(hosts.refusal([(b"host", b"other.example")], "10.0.0.7"))
    for bad in ("http://models.example", "models.example:80", "a b", ""):
        with pytest.raises(InputError, match="--allow-host"):
            checked_hosts([bad])


def test_clients_are_distinguished_by_network() -> None:
    """All of 127/8 and ::1 are one client, and so is an IPv6 network of 64 bits; an IPv4 address in IPv6 is that
    address.
    """
    assert {client_of(address) for address in ("127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.3")} == {"loopback"}
    assert client_of("2001:db8:1:2::1") == client_of("2001:db8:1:2:ffff::9") != client_of("2001:db8:1:3::1")
    assert client_of("fe80::1%eth0") == client_of("fe80::2%eth1")
    assert client_of("::ffff:192.0.2.1") == client_of("192.0.2.1") != client_of("192.0.2.2")


def test_many_addresses_of_one_client_share_one_rate_limit() -> None:
    """Four requests from 127.0.0.1 to 127.0.0.4 use up the rate of one client."""
    with serving(guarded(requests_per_second=1.0)) as port:
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        codes = [status(answer(port, request, source=f"127.0.0.{number}")) for number in range(1, 5)]
    assert codes[:2] == [200, 200]
    assert codes[2:] == [429, 429]


TOKEN = "correct-horse-battery-staple"  # noqa: S105


def test_a_token_is_required_if_one_is_set() -> None:
    """For everything but /health, which then has no details of the model."""
    with serving(guarded(token=TOKEN)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/health").json() == {"status": "ok"}
        for value in (None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer x", f"Bearer {TOKEN}x", "Bearer \xfc"):
            headers = {} if value is None else {"Authorization": value.encode("latin-1")}
            response = client.get("/metrics", headers=headers)  # type: ignore[arg-type]
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer"), value
        for scheme in ("Bearer", "bearer"):
            assert client.get("/metrics", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200


def test_a_token_comes_from_the_environment_alone() -> None:
    """Without a setting there is none; a variable that is not set, and a token that can be guessed, are errors."""
    assert token_from({}, None, "USUAL") is None
    assert token_from({"USUAL": TOKEN}, None, "USUAL") == TOKEN
    assert token_from({"OTHER": TOKEN}, "OTHER", "USUAL") == TOKEN
    with pytest.raises(InputError, match="OTHER: the environment variable is not set"):
        token_from({}, "OTHER", "USUAL")
    for weak in ("", "short", "a b" * 20, "\n" * 20):
        with pytest.raises(InputError, match="openssl rand"):
            token_from({"USUAL": weak}, None, "USUAL")


def test_messages_of_one_kind_are_logged_once_per_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next message after the span has the number of omitted ones."""
    span, began = OncePerSpan(60), time.monotonic()
    record = lambda: logging.LogRecord("uvicorn.error", 30, "", 0, "Invalid %s.", ("request",), None)  # noqa: E731
    assert [span.filter(record()) for _ in range(3)] == [True, False, False]
    monkeypatch.setattr(time, "monotonic", lambda: began + 120)
    last = record()
    assert span.filter(last)
    assert last.getMessage() == "Invalid request. (2 more messages of this kind since the last one.)"


def test_the_page_server_has_the_same_limits(tmp_path: Path) -> None:
    """A foreign host name is refused, one of --allow-host and of the links is answered, and incomplete requests lock
    out no client.
    """
    (tmp_path / "params.yaml").write_text("modality: text\n")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "report.html").write_text("<p>rain</p>")
    server = ReportServer([tmp_path], "127.0.0.1", 0, "https://pages.example/x", ["inner.example"])
    server.start()
    try:
        port = server._socket.getsockname()[1]
        halves = [send(port, HALF) for _ in range(200)]
        for host, expected in [
            ("evil.example", 400),
            ("pages.example", 200),
            ("inner.example", 200),
            ("127.0.0.1", 200),
        ]:
            request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            assert status(answer(port, request)) == expected, host
        assert status(answer(port, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n123456789")) == 413
        for half in halves:
            half.close()
    finally:
        server.stop()


@pytest.mark.slow
def test_the_api_answers_during_incomplete_requests_and_bodies(tmp_path: Path) -> None:
    """The complete API, with 300 of each during a request."""
    limits = Limits(requests_per_second=10_000)
    with serving(make_app(Predictor.of(grown(tmp_path, "text")), limits), limits.connection_limits()) as port:
        halves = [send(port, HALF) for _ in range(300)]
        bodies = [send(port, post(7_000_000, "localhost", "Content-Type: application/json") + b"{") for _ in range(100)]
        response = httpx.post(f"http://127.0.0.1:{port}/predict", json={"texts": ["rain"]}, timeout=10)
        assert response.json()["answers"][0]["predicted"] == "rain"
        for connection in halves + bodies:
            connection.close()


@pytest.mark.soak
def test_memory_is_freed_after_200_incomplete_bodies(tmp_path: Path) -> None:
    """Bodies of 7.9 MB: at most 300 MB more while they are held, at most 100 MB afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "seedling.cli.main", "serve", "-w", str(grown(tmp_path, "text")), "--port"]
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.post(f"{url}/predict", json={"texts": ["rain"]}, timeout=20)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)
        rss_mb = lambda: psutil.Process(process.pid).memory_info().rss / 1e6  # noqa: E731
        before = rss_mb()
        body = b'{"texts":["' + b"a" * 7_900_000
        held = []
        for _ in range(200):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.setblocking(False)
            try:
                connection.send(post(7_999_999, "localhost", "Content-Type: application/json") + body[:200_000])
                connection.send(body[200_000:])
            except OSError:
                pass
            held.append(connection)
            time.sleep(0.02)
        assert rss_mb() - before < 300
        assert urllib.request.urlopen(f"{url}/health", timeout=10).status == 200
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 20
        while rss_mb() - before > 100:
            assert time.monotonic() < deadline, f"{rss_mb() - before:.0f} MB more"
            time.sleep(0.5)
        assert json.loads(urllib.request.urlopen(f"{url}/health", timeout=10).read())["status"] == "ok"
    finally:
        process.terminate()
        _, logged = process.communicate(timeout=60)
    assert len(logged) < 2000, logged[:2000]
