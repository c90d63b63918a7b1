"""Limits on requests, for this package's HTTP servers: by which name they address the server, who sends them, how fast, and how large they are."""

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

QUALITY = "/health"
UNLIMITED_PATHS = frozenset({QUALITY, "/metrics"})  # whoever watches the server must see it under load
MAX_CLIENTS = 10_000  # whose rate is remembered
MAX_HEADERS = 100
SMALL_BODY_BYTES = 64 * 1024  # bodies up to this size need no room in the memory for bodies
BODY_GRACE_SECONDS_UNDER_LOAD = 1.0  # that a body may be late where another body waits for room
MIN_BODY_BYTES_PER_SECOND = 50_000
ROOM_INTERVAL_SECONDS = 0.05
LINGER_SECONDS = 2.0
REQUEST_TIMEOUT = 408
MIN_TOKEN_CHARACTERS = 16
TOKEN = re.compile(rf"[!-~]{{{MIN_TOKEN_CHARACTERS},1000}}")
MAX_LENGTH_DIGITS = 18
RETRY_SOON = (b"retry-after", b"1")


@dataclass(frozen=True)
class RequestLimits:
    """body_bytes: of a request; bodies_bytes: of all requests at a time; requests_per_second: of a client, twice as many at once;
    wait_seconds: that a request waits for room; body_grace_seconds: that a body may be later than one at the lowest rate.
    """

    body_bytes: int = 0
    bodies_bytes: int = 0
    requests_per_second: float = math.inf
    wait_seconds: float = 10.0
    body_grace_seconds: float = 10.0


class BodyRead:
    """A body that is being received: the bytes reserved for it, and the time by which more of it must be there."""

    def __init__(self, reserved_bytes: int, grace_seconds: float) -> None:
        self.reserved_bytes, self.received_bytes = reserved_bytes, 0
        self.complete = False
        self._grace_seconds = grace_seconds
        self.deadline = anyio.current_time() + grace_seconds
        self.waiting: anyio.CancelScope | None = None

    def advance(self, received_bytes: int) -> None:
        """Moves the deadline by the time that so many bytes take at the lowest rate, and never beyond the grace."""
        self.received_bytes += received_bytes
        latest = anyio.current_time() + self._grace_seconds
        self.deadline = min(latest, self.deadline + received_bytes / MIN_BODY_BYTES_PER_SECOND)


class BodyMemory:
    """Room for the bodies of all requests at a time. A body's whole size is reserved before it is read."""

    def __init__(self, max_bytes: int, grace_seconds: float) -> None:
        self._max_bytes, self._grace_seconds = max_bytes, grace_seconds
        self._reads: set[BodyRead] = set()

    @property
    def reserved_bytes(self) -> int:
        """Of all bodies that are held or being received."""
        return sum(read.reserved_bytes for read in self._reads)

    async def reserve(self, size_bytes: int, wait_seconds: float) -> BodyRead:
        """Waits for room; meanwhile bodies that make no progress are given up. Raises TimeoutError."""
        reserved_bytes = 0 if size_bytes <= SMALL_BODY_BYTES else size_bytes
        if reserved_bytes:
            with anyio.fail_after(wait_seconds):
                while self.reserved_bytes + reserved_bytes > self._max_bytes:
                    self._give_up_slow()
                    await anyio.sleep(ROOM_INTERVAL_SECONDS)
        read = BodyRead(reserved_bytes, self._grace_seconds)
        self._reads.add(read)
        return read

    def release(self, read: BodyRead) -> None:
        """Its bytes are free."""
        self._reads.discard(read)

    def _give_up_slow(self) -> None:
        latest = anyio.current_time() + self._grace_seconds - BODY_GRACE_SECONDS_UNDER_LOAD
        for read in self._reads:
            if read.reserved_bytes and not read.complete and read.deadline < latest and read.waiting is not None:
                read.waiting.cancel()


class GuardedApp:
    """ASGI: answers what is refused itself, and passes everything else on.

    on_refusal: called with the status of each refusal; token: without which only /health answers.
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
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → (requests left, at which time)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 400, 401, 408, 413, 429, 431 or 503, or passes the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: Headers = scope["headers"]
        send = _unless_answered(send)
        if refusal := self._refusal(scope, headers):
            await self._refuse(receive, send, *refusal)
            return
        if self._token is not None and not self._authorized(headers):
            if scope["path"] == QUALITY:
                for message in _json_answer(200, {"status": "ok"}):
                    await send(message)
            else:
                await self._refuse(
                    receive, send, 401, "Send the token as Authorization: Bearer ...", (b"www-authenticate", b"Bearer")
                )
            return
        await self._pass_on(scope, receive, send, _declared_bytes(headers, self._limits.body_bytes))

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[Any, ...] | None:
        """Status, sentence and headers for a request that is refused by its head alone."""
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return 431, f"A request may have {MAX_HEADERS} headers with {MAX_HEADER_BYTES:,} bytes together."
        names = [name for name, _ in headers]
        if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0"):
            return 400, "A request has either Content-Length or, from HTTP/1.1 on, Transfer-Encoding."
        if reason := self._hosts.refusal(headers, str((scope.get("server") or ("",))[0])):
            return 400, reason
        if scope["path"] not in UNLIMITED_PATHS and not self._is_in_rate(str((scope.get("client") or ("",))[0])):
            return 429, "Too many requests: wait a second.", RETRY_SOON
        if _declared_bytes(headers, 0) > self._limits.body_bytes:
            return 413, self._too_large()
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, size_bytes: int) -> None:
        """Calls the application; its body is counted and timed while it is received."""
        try:
            read = await self._memory.reserve(size_bytes, self._limits.wait_seconds)
        except TimeoutError:
            await self._refuse(receive, send, 503, "Too many large requests at once: try again.", RETRY_SOON)
            return
        refusal: tuple[Any, ...] | None = None

        async def receive_in_limits() -> Message:
            nonlocal refusal
            if read.complete:
                return await receive()
            message: Message | None = None
            if refusal is None:
                with anyio.CancelScope(deadline=read.deadline) as read.waiting:
                    message = await receive()
                read.waiting = None
                if message is None:
                    refusal = REQUEST_TIMEOUT, "The body did not come in time."
            if message is None:
                return {"type": "http.disconnect"}
            read.advance(len(message.get("body", b"")))
            read.complete = not message.get("more_body", False)
            if read.received_bytes > self._limits.body_bytes:
                refusal = 413, self._too_large()
                return {"type": "http.disconnect"}
            return message

        async def send_unless_refused(message: Message) -> None:
            if refusal is None:
                await send(message)

        try:
            await self.app(scope, receive_in_limits, send_unless_refused)
        finally:
            self._memory.release(read)
            if read.reserved_bytes:
                self._memory_return.schedule()
            if refusal is not None:
                await self._refuse(receive, send, *refusal)

    def _too_large(self) -> str:
        return f"The body may have {self._limits.body_bytes:,} bytes."

    def _is_in_rate(self, address: str) -> bool:
        """A token bucket per client."""
        if math.isinf(self._limits.requests_per_second):
            return True
        client, now, burst = client_of(address), time.monotonic(), 2 * self._limits.requests_per_second
        left, then = self._buckets.pop(client, (burst, now))
        left = min(burst, left + (now - then) * self._limits.requests_per_second)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return left >= 1

    def _authorized(self, headers: Headers) -> bool:
        values = [value for name, value in headers if name == b"authorization"]
        scheme, _, token = (values[0] if len(values) == 1 else b"").partition(b" ")
        expected = (self._token or "").encode()
        return hmac.compare_digest(token.strip(), expected) and scheme.lower() == b"bearer"

    async def _refuse(
        self, receive: Receive, send: Send, status: int, reason: str, *headers: tuple[bytes, bytes]
    ) -> None:
        """Answers, and then takes what the client still sends for a while: a connection that is closed before has the answer thrown away."""
        self._on_refusal(status)
        start, body = _json_answer(status, {"detail": reason}, (b"connection", b"close"), *headers)
        await send(start)
        await send({**body, "more_body": True})
        with anyio.move_on_after(0 if status == REQUEST_TIMEOUT else LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.body", "body": b""})


def _unless_answered(send: Send) -> Send:
    """Wraps `send` to drop the answer if uvicorn has already answered 400, because the request's body was not valid HTTP.

    Uvicorn calls the application in that case, too, and would log a traceback for every answer that comes too late.
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
    """The token in an environment variable; None where none is named and the default one is not set.

    Raises InputError where the variable that is named is not set, or what it holds is too short to be secret.
    """
    name = variable or default_variable
    token = environment.get(name)
    if token is None and variable is None:
        return None
    if token is None:
        raise InputError(f"--token-env {name}: the environment variable is not set. Set it, or leave the option out.")
    if not TOKEN.fullmatch(token):
        raise InputError(
            f"The token in {name} is not one: use {MIN_TOKEN_CHARACTERS} or more letters, digits and signs without blanks, "
            "as `openssl rand -hex 32` prints them."
        )
    return token


def _json_answer(status: int, content: object, *headers: tuple[bytes, bytes]) -> tuple[Message, Message]:
    body = json.dumps(content).encode()
    all_headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    start = {"type": "http.response.start", "status": status, "headers": all_headers}
    return start, {"type": "http.response.body", "body": body}


def _declared_bytes(headers: Headers, without: int) -> int:
    """Content-Length; `without` for a body whose length is not declared, 0 where there is no body."""
    declared = dict(headers).get(b"content-length")
    if declared is not None:
        return int(declared) if declared.isdigit() and len(declared) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS
    return without if any(name == b"transfer-encoding" for name, _ in headers) else 0
