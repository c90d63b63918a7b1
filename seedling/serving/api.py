"""`seedling serve`: the accepted model behind a small HTTP server, with limits on size, number and rate."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gc
import json
import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Annotated, Any

import anyio
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, Field

from seedling.errors import InputError
from seedling.models.predictor import Answer, Predictor, Question
from seedling.serving.http_clients import AllowedHosts
from seedling.serving.http_connections import ConnectionLimits, LimitedConfig
from seedling.serving.http_guard import GuardedApp, RequestLimits
from seedling.serving.image_requests import ImageRequests, TooManyPixels

TOKEN_VARIABLE = "SEEDLING_API_TOKEN"  # noqa: S105  (the name of an environment variable)
BODIES_AT_ONCE = 8  # of the largest size
MOST_TEXTS, MOST_IMAGES = 64, 16  # of a request
TEXTS_TOGETHER, LETTERS_TOGETHER, IMAGES_TOGETHER = 8, 4_000, 4  # of several requests, in one call of the model
ALONE = 2.0  # calls that a request fills, where it may not share one


@dataclass(frozen=True)
class Limits:
    """megabytes: of a request's body; a_second: requests of one client, twice as many at once; waiting: requests that are asked or wait;
    megapixels: of an image, and twice as many of a request; seconds: that a request waits for its turn; connections: of one client, twice as
    many in all.
    """

    megabytes: float = 8.0
    a_second: float = 50.0
    waiting: int = 64
    megapixels: float = 16.0
    seconds: float = 10.0
    connections: int = 128

    def of_requests(self) -> RequestLimits:
        """As the guard takes them."""
        body_bytes = int(self.megabytes * 1e6)
        return RequestLimits(body_bytes, BODIES_AT_ONCE * body_bytes, self.a_second, self.seconds)

    def of_connections(self) -> ConnectionLimits:
        """As the server takes them."""
        return ConnectionLimits(per_client=self.connections, total=2 * self.connections)


class Texts(BaseModel):
    """Texts to be asked about."""

    texts: list[Annotated[str, Field(max_length=20_000)]] = Field(min_length=1, max_length=MOST_TEXTS)


class Images(BaseModel):
    """Encoded images (PNG, JPEG, WebP, BMP, GIF, TIFF), each as base64."""

    images: list[str] = Field(min_length=1, max_length=MOST_IMAGES)


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
        request = Asked(questions, share)
        self._waiting.append(request)
        try:
            with anyio.move_on_after(seconds) as waited:
                await self._turn.acquire()
            if not waited.cancelled_caught:
                try:
                    await self._ask_unless_done(request)
                finally:
                    self._turn.release()
            elif request.begun:
                await request.done.wait()
        finally:
            self._waiting.remove(request)
        if not request.answers:
            raise TimeoutError
        return request.answers

    async def _ask_unless_done(self, first: Asked) -> None:
        if first.answers:
            return
        batch = self._batch(first)
        for request in batch:
            request.begun = True
        try:
            await to_thread.run_sync(self._ask, batch)
        finally:
            for request in batch:
                request.begun = False
                request.done.set()

    def _batch(self, first: Asked) -> list[Asked]:
        """It and, in the order in which they came, as many others as there is room for."""
        batch, room = [first], 1 + 1e-9 - first.share
        for request in self._waiting:
            if request is not first and not request.answers:
                room -= request.share
                if room < 0:
                    break
                batch.append(request)
        return batch

    def _ask(self, batch: list[Asked]) -> None:
        predictions = self.predictor.answers(chain.from_iterable(request.questions for request in batch))
        try:
            for request in batch:
                request.answers = list(islice(predictions, len(request.questions)))
        except Exception:  # whose rows did it is not known: that request fails when it is asked alone
            if len(batch) == 1:
                raise
            for request in batch:
                request.share = ALONE
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
        self._in_flight = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request while it is worked on, and its time. Raises HTTPException where too many are, or its turn does not come."""
        if self._in_flight >= self.limits.waiting:
            raise self.refusal(503, "Too many requests are waiting: try again.", {"Retry-After": "1"})
        self._in_flight += 1
        try:
            with self._seconds.time():
                yield
        except TimeoutError as error:
            raise self.refusal(503, "The queue is too long: try again.", {"Retry-After": "5"}) from error
        finally:
            self._in_flight -= 1

    async def answered(self, questions: list[Question], share: float) -> Answers:
        """What the model says of each. share: of a call. Raises TimeoutError."""
        answers = await self._together.answers(questions, share, self.limits.seconds)
        for answer in answers:
            self._rows.labels("error" if answer.error else "abstained" if answer.abstains else "answered").inc()
        return Answers(answers=[_said(answer, self._classes) for answer in answers], round=self._round)

    def refusal(self, code: int, why: str, headers: dict[str, str] | None = None) -> HTTPException:
        """Counted."""
        self.refused.labels(str(code)).inc()
        return HTTPException(code, why, headers=headers)

    async def not_understood(self, request: Request, error: Exception) -> Response:
        """What is wrong with a body and where, without the body, which may be large or no text at all."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            self.refused.labels("415").inc()
            content = {"detail": "Send the body as JSON, with the header Content-Type: application/json."}
            return Response(json.dumps(content), 415, media_type="application/json")
        wrong = error.errors() if isinstance(error, RequestValidationError) else []
        details = [{"loc": error["loc"], "msg": error["msg"], "type": error["type"]} for error in wrong]
        return Response(json.dumps({"detail": details}), 422, media_type="application/json")


def make_app(
    predictor: Predictor, limits: Limits | None = None, hosts: AllowedHosts | None = None, token: str | None = None
) -> Any:
    """The server as an ASGI application: POST /predict, GET /health, GET /metrics, and its OpenAPI description.

    hosts: loopback names where None; token: what a request must send as a bearer token.
    """
    bounds = limits or Limits()
    answering = Answering(predictor, bounds)
    image_requests = (
        ImageRequests(bounds.megapixels, bounds.seconds, predictor.background)
        if predictor.modality == "image"
        else None
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if image_requests is not None:
            await image_requests.warm_up()
        try:
            yield
        finally:
            if image_requests is not None:
                image_requests.close()

    # No /docs: its page would fetch scripts from elsewhere. /openapi.json says it all, to any tool.
    app = FastAPI(
        title="Seedling",
        description="The accepted model of a workspace.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    errors: dict[int | str, dict[str, Any]] = {
        400: {"description": "The body is not JSON, or the Host header names another server"},
        401: {"description": "The bearer token is missing or wrong"},
        408: {"description": "The body did not come in time"},
        413: {"description": "The body is too large"},
        415: {"description": "The body is not said to be JSON"},
        429: {"description": "Too many requests of this client"},
        431: {"description": "The headers are too large"},
        503: {"description": "Too many requests are waiting"},
    }

    app.add_exception_handler(RequestValidationError, answering.not_understood)

    if image_requests is None:

        @app.post("/predict", responses=errors)
        async def predict_texts(body: Texts) -> Answers:
            """What the model says of each text."""
            letters = sum(len(text) for text in body.texts)
            share = max(len(body.texts) / TEXTS_TOGETHER, letters / LETTERS_TOGETHER)
            with answering.admitted():
                return await answering.answered([Question("", text) for text in body.texts], share)
    else:

        @app.post("/predict", responses=errors)
        async def predict_images(body: Images) -> Answers:
            """What the model says of each image."""
            with answering.admitted():
                try:
                    async with image_requests.decoded([_decoded(image) for image in body.images]) as (rows, megapixels):
                        share = max(len(rows) / IMAGES_TOGETHER, megapixels / (2 * bounds.megapixels))
                        return await answering.answered(rows, share)
                except TooManyPixels as error:
                    raise answering.refusal(413, str(error)) from error

    @app.get("/health")
    async def health() -> Health:
        """Whether it answers, and which model does."""
        return Health(status="ok", modality=predictor.modality, round=predictor.round, classes=predictor.model.classes)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counts and durations, as Prometheus reads them."""
        return Response(generate_latest(answering.registry), media_type=CONTENT_TYPE_LATEST)

    return GuardedApp(
        app,
        hosts or AllowedHosts("127.0.0.1"),
        bounds.of_requests(),
        on_refusal=lambda status: answering.refused.labels(str(status)).inc(),
        token=token,
    )


def _decoded(image: str) -> bytes:
    """What is no base64 is no image either: it is answered as such."""
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        return b"no base64"


def _said(answer: Answer, classes: list[str]) -> Said:
    chances = None if answer.probabilities is None else dict(zip(classes, answer.probabilities, strict=True))
    return Said(
        predicted=answer.predicted,
        confidence=answer.confidence,
        abstains=answer.abstains,
        probabilities=chances,
        error=answer.error,
    )


def reserved(host: str, port: int) -> socket.socket:
    """A socket bound there, before anything is loaded; nobody is let in yet. Raises InputError where none can be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"Nothing can listen at {host}:{port} ({why}): name another --port, or --host.") from error
    return listener


def serve_api(
    predictor: Predictor, listener: socket.socket, limits: Limits, hosts: AllowedHosts, token: str | None = None
) -> None:
    """Serves until stopped."""
    import uvicorn

    predictor.warm_up()
    app = make_app(predictor, limits, hosts, token)
    gc.collect()
    gc.freeze()  # else a full collection goes through all that was loaded, and nobody is answered meanwhile
    config = LimitedConfig(app, limits.of_connections(), log_level="warning")
    with contextlib.suppress(KeyboardInterrupt):  # which is how it is ended
        uvicorn.Server(config).run(sockets=[listener])
