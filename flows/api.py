"""`seedling serve`: the accepted model behind a small HTTP server, with limits on size, number and rate."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gc
import json
import math
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, Field

from tasks import images
from tasks.errors import InputError
from tasks.predicting import Answer, Predictor, Question

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
FREE = {"/health", "/metrics"}  # of the limit of requests: who watches must see it under load
MOST_CLIENTS = 10_000  # whose rate is remembered
MOST_TEXTS, MOST_PICTURES = 64, 16  # of a request
TEXTS_TOGETHER, LETTERS_TOGETHER, PICTURES_TOGETHER = 8, 4_000, 4  # of several requests, in one call of the model
ALONE = 2.0  # calls that a request fills, where it may not share one


@dataclass(frozen=True)
class Limits:
    """megabytes: of a request's body; a_second: requests of one client, twice as many at once; waiting: requests that are asked or wait;
    megapixels: of a picture, and twice as many of a request; seconds: that a request waits for its turn.
    """

    megabytes: float = 8.0
    a_second: float = 50.0
    waiting: int = 64
    megapixels: float = 16.0
    seconds: float = 10.0


class Texts(BaseModel):
    """Texts to be asked about."""

    texts: list[Annotated[str, Field(max_length=20_000)]] = Field(min_length=1, max_length=MOST_TEXTS)


class Pictures(BaseModel):
    """Encoded pictures (PNG, JPEG, WebP, BMP, GIF, TIFF), each as base64."""

    pictures: list[str] = Field(min_length=1, max_length=MOST_PICTURES)


class Said(BaseModel):
    """What the model says of one; `abstains`: it is less sure than the limit chosen in training; `error`: why it says nothing."""

    predicted: str | None
    confidence: float | None
    abstains: bool | None
    probabilities: dict[str, float] | None
    error: str | None


class Answers(BaseModel):
    """One a row, in their order, and the round of the model."""

    answers: list[Said]
    round: int


class Health(BaseModel):
    """What is served."""

    status: str
    modality: str
    round: int
    classes: list[str]


@dataclass(eq=False)
class Asked:
    """A request's questions, the share of a call that they fill, and their answers once there are any."""

    questions: list[Question]
    share: float
    answers: list[Answer] = field(default_factory=list)
    begun: bool = False  # being asked, with others
    done: anyio.Event = field(default_factory=anyio.Event)


class Bounded:
    """ASGI: no body over the limit is read to its end, no client asks faster than it may."""

    def __init__(self, app: Any, limits: Limits, refused: Counter) -> None:
        self.app, self.limits, self.refused = app, limits, refused
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when it was so

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 413 or 429 itself, or passes the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = int(self.limits.megabytes * 1e6)
        if scope["path"] not in FREE and not self._may(str((scope.get("client") or ("",))[0])):
            await self._refuse(send, 429, "Too many requests: wait a second.", [(b"retry-after", b"1")])
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > most:
            await self._refuse(send, 413, f"The body may have {most:,} bytes.")
            return
        got, over = 0, False

        async def bounded() -> dict[str, Any]:
            nonlocal got, over
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                over = True
                return {"type": "http.disconnect"}
            return message

        async def unless_over(message: dict[str, Any]) -> None:
            if not over:
                await send(message)

        try:
            await self.app(scope, bounded, unless_over)
        finally:
            if over:
                await self._refuse(send, 413, f"The body may have {most:,} bytes.")

    def _may(self, client: str) -> bool:
        """A token bucket a client."""
        now, burst = time.monotonic(), 2 * self.limits.a_second
        left, then = self.buckets.pop(client, (burst, now))
        left = min(burst, left + (now - then) * self.limits.a_second)
        self.buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self.buckets) > MOST_CLIENTS:
            self.buckets.popitem(last=False)
        return left >= 1

    async def _refuse(self, send: Send, code: int, why: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.refused.labels(str(code)).inc()
        body = json.dumps({"detail": why}).encode()
        kind = [(b"content-type", b"application/json"), (b"connection", b"close"), *(headers or [])]
        await send({"type": "http.response.start", "status": code, "headers": kind})
        await send({"type": "http.response.body", "body": body})


class Together:
    """Asks the model, one call at a time: small requests that come in while it is at work are asked together in the next call, on all cores.
    Large ones are asked alone, so that nobody waits for another's many rows; and so is each of a call that failed. No answer depends on the rows
    beside it.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._turn = anyio.Lock()  # tokenizers and learners are not for several threads
        self._waiting: list[Asked] = []

    @property
    def requests(self) -> int:
        """Those that are asked or wait."""
        return len(self._waiting)

    async def answers(self, questions: list[Question], share: float, seconds: float = math.inf) -> list[Answer]:
        """One a question, in their order. Whoever has the turn asks for others that wait too.

        share: of what one call may hold; a request over 1 is asked alone; seconds: that it waits to be asked. Raises TimeoutError after them.
        """
        mine = Asked(questions, share)
        self._waiting.append(mine)
        try:
            with anyio.move_on_after(seconds) as waited:
                await self._turn.acquire()
            if not waited.cancelled_caught:
                try:
                    await self._ask_unless_done(mine)
                finally:
                    self._turn.release()
            elif mine.begun:
                await mine.done.wait()
        finally:
            self._waiting.remove(mine)
        if not mine.answers:
            raise TimeoutError
        return mine.answers

    async def _ask_unless_done(self, mine: Asked) -> None:
        if mine.answers:
            return
        batch = self._batch(mine)
        for one in batch:
            one.begun = True
        try:
            await to_thread.run_sync(self._ask, batch)
        finally:
            for one in batch:
                one.begun = False
                one.done.set()

    def _batch(self, mine: Asked) -> list[Asked]:
        """It and, in the order in which they came, as many others as there is room for."""
        batch, room = [mine], 1 + 1e-9 - mine.share
        for one in self._waiting:
            if one is not mine and not one.answers:
                room -= one.share
                if room < 0:
                    break
                batch.append(one)
        return batch

    def _ask(self, batch: list[Asked]) -> None:
        said = self.predictor.answers(chain.from_iterable(one.questions for one in batch))
        try:
            for one in batch:
                one.answers = list(islice(said, len(one.questions)))
        except Exception:  # whose rows did it is not known: that request fails when it is asked alone
            if len(batch) == 1:
                raise
            for one in batch:
                one.share = ALONE
            self._ask(batch[:1])


class Answering:
    """Requests to the model: counted, timed, and refused where too many wait."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.limits, self._round, self._classes = limits, predictor.round, predictor.model.classes
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "seedling_predict_seconds",
            "Of a request",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
        )
        self._rows = Counter("seedling_rows", "Rows that were asked about", ["outcome"], registry=self.registry)
        self.refused = Counter("seedling_refused", "Requests that were refused", ["status"], registry=self.registry)
        self._together = Together(predictor)

    async def answered(self, payloads: list[bytes | str | None], share: float) -> Answers:
        """What the model says of each; None: a picture of too many pixels. share: of a call. Raises HTTPException where there is no room or time."""
        if self._together.requests >= self.limits.waiting:
            raise self.refusal(503, "Too many requests are waiting: try again.", {"Retry-After": "1"})
        questions = [Question("", one, "too_many_pixels" if one is None else None) for one in payloads]
        try:
            with self._seconds.time():
                found = await self._together.answers(questions, share, self.limits.seconds)
        except TimeoutError as error:
            raise self.refusal(503, "The queue is too long: try again.", {"Retry-After": "5"}) from error
        for one in found:
            self._rows.labels("error" if one.error else "abstained" if one.abstains else "answered").inc()
        return Answers(answers=[_said(one, self._classes) for one in found], round=self._round)

    def refusal(self, code: int, why: str, headers: dict[str, str] | None = None) -> HTTPException:
        """Counted."""
        self.refused.labels(str(code)).inc()
        return HTTPException(code, why, headers=headers)

    async def not_understood(self, request: Request, error: Exception) -> Response:
        """What is wrong with a body and where, without the body, which may be large or no text at all."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            self.refused.labels("415").inc()
            said = {"detail": "Send the body as JSON, with the header Content-Type: application/json."}
            return Response(json.dumps(said), 415, media_type="application/json")
        wrong = error.errors() if isinstance(error, RequestValidationError) else []
        told = [{"loc": one["loc"], "msg": one["msg"], "type": one["type"]} for one in wrong]
        return Response(json.dumps({"detail": told}), 422, media_type="application/json")


def make_app(predictor: Predictor, limits: Limits | None = None) -> Any:
    """The server as an ASGI application: POST /predict, GET /health, GET /metrics, and its OpenAPI description."""
    bounds = limits or Limits()
    answering = Answering(predictor, bounds)
    # No /docs: its page would fetch scripts from elsewhere. /openapi.json says it all, to any tool.
    app = FastAPI(
        title="Seedling", description="The accepted model of a workspace.", version="1", docs_url=None, redoc_url=None
    )
    errors: dict[int | str, dict[str, Any]] = {
        400: {"description": "The body is no JSON"},
        413: {"description": "The body is too large"},
        415: {"description": "The body is not said to be JSON"},
        429: {"description": "Too many requests of this client"},
        503: {"description": "Too many requests are waiting"},
    }

    app.add_exception_handler(RequestValidationError, answering.not_understood)

    if predictor.modality == "text":

        @app.post("/predict", responses=errors)
        async def predict_texts(body: Texts) -> Answers:
            """What the model says of each text."""
            letters = sum(len(one) for one in body.texts)
            return await answering.answered(
                list(body.texts), max(len(body.texts) / TEXTS_TOGETHER, letters / LETTERS_TOGETHER)
            )
    else:

        @app.post("/predict", responses=errors)
        async def predict_pictures(body: Pictures) -> Answers:
            """What the model says of each picture."""
            pictures = [_decoded(one) for one in body.pictures]
            sizes = [images.megapixels(one) for one in pictures]
            if sum(sizes) > 2 * bounds.megapixels:
                raise answering.refusal(413, f"The pictures may have {2 * bounds.megapixels:g} megapixels together.")
            too_large = [size > bounds.megapixels for size in sizes]
            share = max(len(pictures) / PICTURES_TOGETHER, sum(sizes) / (2 * bounds.megapixels))
            return await answering.answered(
                [None if large else one for one, large in zip(pictures, too_large, strict=True)], share
            )

    @app.get("/health")
    async def health() -> Health:
        """Whether it answers, and which model does."""
        return Health(status="ok", modality=predictor.modality, round=predictor.round, classes=predictor.model.classes)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counts and durations, as Prometheus reads them."""
        return Response(generate_latest(answering.registry), media_type=CONTENT_TYPE_LATEST)

    return Bounded(app, bounds, answering.refused)


def _decoded(picture: str) -> bytes:
    """What is no base64 is no picture either: it is answered as such."""
    try:
        return base64.b64decode(picture, validate=True)
    except (binascii.Error, ValueError):
        return b"no base64"


def _said(one: Answer, classes: list[str]) -> Said:
    chances = None if one.probabilities is None else dict(zip(classes, one.probabilities, strict=True))
    return Said(
        predicted=one.predicted,
        confidence=one.confidence,
        abstains=one.abstains,
        probabilities=chances,
        error=one.error,
    )


def reserved(host: str, port: int) -> socket.socket:
    """A socket bound there, before anything is loaded; nobody is let in yet. Raises InputError where none can be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        place = socket.socket(family, kind, protocol)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
    except (OSError, OverflowError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"Nothing can listen at {host}:{port} ({why}): name another --port, or --host.") from error
    return place


def serve_api(predictor: Predictor, place: socket.socket, limits: Limits) -> None:
    """Serves until stopped."""
    import uvicorn

    predictor.warm_up()
    app = make_app(predictor, limits)
    gc.collect()
    gc.freeze()  # else a full collection goes through all that was loaded, and nobody is answered meanwhile
    config = uvicorn.Config(app, log_level="warning", server_header=False, proxy_headers=False)
    with contextlib.suppress(KeyboardInterrupt):  # which is how it is ended
        uvicorn.Server(config).run(sockets=[place])
