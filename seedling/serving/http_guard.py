"""Limits on requests, for this package's HTTP servers: Host header, bearer token, rate per client, and body size."""

from __future__ import annotations

import hmac
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
from h11 import LocalProtocolError

from seedling.errors import InputError
from seedling.serving.http_clients import AllowedHosts, client_of
from seedling.serving.http_connections import MAX_HEADER_BYTES
from seedling.serving.memory_return import MemoryReturn

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HEALTH_PATH = "/health"
UNLIMITED_PATHS = frozenset({HEALTH_PATH, "/metrics"})  # monitoring must work under load
MAX_CLIENTS = 10_000  # with a stored rate
MAX_HEADERS = 100
SMALL_BODY_BYTES = 64 * 1024  # bodies up to this size do not count toward BodyMemory
BODY_GRACE_SECONDS_UNDER_LOAD = 1.0  # delay allowed if another body waits for memory
MIN_BODY_BYTES_PER_SECOND = 50_000
MEMORY_POLL_SECONDS = 0.05
LINGER_SECONDS = 2.0
REQUEST_TIMEOUT = 408
MIN_TOKEN_CHARACTERS = 16
TOKEN = re.compile(rf"[!-~]{{{MIN_TOKEN_CHARACTERS},1000}}")
MAX_LENGTH_DIGITS = 18
RETRY_SOON = (b"retry-after", b"1")


@dataclass(frozen=True)
class RequestLimits:
    """Limits on the requests of a server.

    Args:
        body_bytes: maximum size of a body.
        bodies_bytes: maximum total size of the bodies in memory.
        requests_per_second: maximum rate per client; bursts may have twice as many requests.
        wait_seconds: maximum time that a request waits for memory.
        body_grace_seconds: maximum delay of a body behind one that arrives at MIN_BODY_BYTES_PER_SECOND.
    """

    body_bytes: int = 0
    bodies_bytes: int = 0
    requests_per_second: float = math.inf
    wait_seconds: float = 10.0
    body_grace_seconds: float = 10.0


class BodyRead:
    """A body that is being received: the bytes reserved for it, and the deadline for its next bytes."""

    def __init__(self, reserved_bytes: int, grace_seconds: float) -> None:
        self.reserved_bytes, self.received_bytes = reserved_bytes, 0
        self.complete = False
        self._grace_seconds = grace_seconds
        self.deadline = anyio.current_time() + grace_seconds
        self.waiting: anyio.CancelScope | None = None

    def advance(self, received_bytes: int) -> None:
        """Extends the deadline: min(now + grace, deadline + received_bytes / MIN_BODY_BYTES_PER_SECOND)."""
        self.received_bytes += received_bytes
        latest = anyio.current_time() + self._grace_seconds
        self.deadline = min(latest, self.deadline + received_bytes / MIN_BODY_BYTES_PER_SECOND)


class BodyMemory:
    """The memory for the bodies of all requests. The whole size of a body is reserved before it is read."""

    def __init__(self, max_bytes: int, grace_seconds: float) -> None:
        self._max_bytes, self._grace_seconds = max_bytes, grace_seconds
        self._reads: set[BodyRead] = set()

    @property
    def reserved_bytes(self) -> int:
        """The total size of the bodies that are in memory or being received."""
        return sum(read.reserved_bytes for read in self._reads)

    async def reserve(self, size_bytes: int, wait_seconds: float) -> BodyRead:
        """Waits for free memory and reserves it; cancels bodies without progress meanwhile. Raises TimeoutError."""
        reserved_bytes = 0 if size_bytes <= SMALL_BODY_BYTES else size_bytes
        if reserved_bytes:
            with anyio.fail_after(wait_seconds):
                while self.reserved_bytes + reserved_bytes > self._max_bytes:
                    self._cancel_slow_bodies()
                    await anyio.sleep(MEMORY_POLL_SECONDS)
        read = BodyRead(reserved_bytes, self._grace_seconds)
        self._reads.add(read)
        return read

    def release(self, read: BodyRead) -> None:
        """Frees the memory of the body."""
        self._reads.discard(read)

    def _cancel_slow_bodies(self) -> None:
        latest = anyio.current_time() + self._grace_seconds - BODY_GRACE_SECONDS_UNDER_LOAD
        for read in self._reads:
            if read.reserved_bytes and not read.complete and read.deadline < latest and read.waiting is not None:
                read.waiting.cancel()


class _LimitedBody:
    """The body of one request, while it is received. refusal: status and message, if it is late or too large."""

    def __init__(self, read: BodyRead, receive: Receive, max_bytes: int) -> None:
        self._read, self._receive, self._max_bytes = read, receive, max_bytes
        self.refusal: tuple[int, str] | None = None

    async def receive(self) -> Message:
        """Receives the next message; `http.disconnect` once the body is refused."""
        read = self._read
        if read.complete:
            return await self._receive()
        message: Message | None = None
        if self.refusal is None:
            with anyio.CancelScope(deadline=read.deadline) as read.waiting:
                message = await self._receive()
            read.waiting = None
            if message is None:
                self.refusal = REQUEST_TIMEOUT, "The body did not arrive in time."
        if message is None:
            return {"type": "http.disconnect"}
        read.advance(len(message.get("body", b"")))
        read.complete = not message.get("more_body", False)
        if read.received_bytes > self._max_bytes:
            self.refusal = 413, _too_large(self._max_bytes)
            return {"type": "http.disconnect"}
        return message


def _too_large(max_bytes: int) -> str:
    return f"The body is too large: at most {max_bytes:,} bytes are allowed."


class GuardedApp:
    """An ASGI application that responds to refused requests itself and passes all others on.

    on_refusal: called with the status of each refused request; token: required for everything except /health.
    """

    def __init__(
        self,
        app: Any,
        hosts: AllowedHosts,
        limits: RequestLimits,
        on_refusal: Callable[[int], None] = lambda _: None,
        token: str | None = None,
    ) -> None:
        self.app, self._hosts, self._limits, self._on_refusal = app, hosts, limits, on_refusal
        self._token = token
        self._memory = BodyMemory(limits.bodies_bytes, limits.body_grace_seconds)
        self._memory_return = MemoryReturn()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → (requests left, time of update)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Responds with 400, 401, 408, 413, 429, 431 or 503, or passes the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: Headers = scope["headers"]
        send = _unless_answered(send)
        if refusal := self._refusal(scope, headers):
            await self._refuse(receive, send, *refusal)
            return
        if self._token is not None and not self._authorized(headers):
            if scope["path"] == HEALTH_PATH:
                for message in _json_answer(200, {"status": "ok"}):
                    await send(message)
            else:
                await self._refuse(
                    receive, send, 401, "Send the token as Authorization: Bearer ...", (b"www-authenticate", b"Bearer")
                )
            return
        await self._pass_on(scope, receive, send, _declared_bytes(headers, self._limits.body_bytes))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[Any, ...] | None:
        """Returns status, message and headers if the request is refused because of its headers, else None."""
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return (
                431,
                f"The headers are too large: at most {MAX_HEADERS} headers and {MAX_HEADER_BYTES:,} bytes are allowed.",
            )
        names = [name for name, _ in headers]
        if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0"):
            return 400, "Send either Content-Length or, with HTTP/1.1, Transfer-Encoding."
        if reason := self._hosts.refusal(headers, str((scope.get("server") or ("",))[0])):
            return 400, reason
        if scope["path"] not in UNLIMITED_PATHS and not self._is_in_rate(str((scope.get("client") or ("",))[0])):
            return 429, "Too many requests: wait a second.", RETRY_SOON
        if _declared_bytes(headers, 0) > self._limits.body_bytes:
            return 413, _too_large(self._limits.body_bytes)
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, size_bytes: int) -> None:
        """Calls the application, and limits the size and time of the body while it is received."""
        try:
            read = await self._memory.reserve(size_bytes, self._limits.wait_seconds)
        except TimeoutError:
            await self._refuse(receive, send, 503, "Too many large requests at the same time: try again.", RETRY_SOON)
            return
        body = _LimitedBody(read, receive, self._limits.body_bytes)

        async def send_unless_refused(message: Message) -> None:
            if body.refusal is None:
                await send(message)

        try:
            await self.app(scope, body.receive, send_unless_refused)
        finally:
            self._memory.release(read)
            if read.reserved_bytes:
                self._memory_return.schedule()
            if body.refusal is not None:
                await self._refuse(receive, send, *body.refusal)

    def _is_in_rate(self, address: str) -> bool:
        """Whether the client is within its rate, by a token bucket with room for two seconds of requests."""
        if math.isinf(self._limits.requests_per_second):
            return True
        client, now, burst = client_of(address), time.monotonic(), 2 * self._limits.requests_per_second
        n_left, updated_at = self._buckets.pop(client, (burst, now))
        n_left = min(burst, n_left + (now - updated_at) * self._limits.requests_per_second)
        self._buckets[client] = (n_left - 1 if n_left >= 1 else n_left, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return n_left >= 1

    def _authorized(self, headers: Headers) -> bool:
        values = [value for name, value in headers if name == b"authorization"]
        scheme, _, token = (values[0] if len(values) == 1 else b"").partition(b" ")
        expected = (self._token or "").encode()
        return hmac.compare_digest(token.strip(), expected) and scheme.lower() == b"bearer"

    async def _refuse(
        self, receive: Receive, send: Send, status: int, reason: str, *headers: tuple[bytes, bytes]
    ) -> None:
        """Responds, and then reads what the client still sends for up to LINGER_SECONDS.

        If the connection were closed earlier, the client would discard the response.
        """
        self._on_refusal(status)
        start, body = _json_answer(status, {"detail": reason}, (b"connection", b"close"), *headers)
        await send(start)
        await send({**body, "more_body": True})
        with anyio.move_on_after(0 if status == REQUEST_TIMEOUT else LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.body", "body": b""})


def _unless_answered(send: Send) -> Send:
    """Wraps `send` to drop the response if uvicorn has already responded with 400 to a body that is not valid HTTP.

    uvicorn also calls the application in that case, and would log a traceback for each response that comes too late.
    """
    answered = False

    async def send_unless_answered(message: Message) -> None:
        nonlocal answered
        if answered:
            return
        try:
            await send(message)
        except LocalProtocolError:
            if message["type"] != "http.response.start":
                raise
            answered = True

    return send_unless_answered


def token_from(environment: dict[str, str], variable: str | None, default_variable: str) -> str | None:
    """Returns the token of an environment variable, or None if no variable is named and the default one is not set.

    Raises InputError if the named variable is not set, or if its value is too short to be secret.
    """
    name = variable or default_variable
    token = environment.get(name)
    if token is None and variable is None:
        return None
    if token is None:
        raise InputError(f"--token-env {name}: the environment variable is not set. Set it, or leave the option out.")
    if not TOKEN.fullmatch(token):
        raise InputError(
            f"The token in {name} is not valid: use {MIN_TOKEN_CHARACTERS} or more letters, digits and punctuation "
            "marks without spaces, for example the output of `openssl rand -hex 32`."
        )
    return token


def _json_answer(status: int, content: object, *headers: tuple[bytes, bytes]) -> tuple[Message, Message]:
    body = json.dumps(content).encode()
    all_headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    start = {"type": "http.response.start", "status": status, "headers": all_headers}
    return start, {"type": "http.response.body", "body": body}


def _declared_bytes(headers: Headers, without: int) -> int:
    """Returns Content-Length; `without` for a body whose length is not declared, 0 if there is no body."""
    declared = dict(headers).get(b"content-length")
    if declared is not None:
        return int(declared) if declared.isdigit() and len(declared) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS
    return without if any(name == b"transfer-encoding" for name, _ in headers) else 0
