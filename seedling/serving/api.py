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
from functools import partial
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
MAX_BODIES_IN_MEMORY = 8  # of the maximum size
MAX_TEXTS_PER_REQUEST, MAX_IMAGES_PER_REQUEST = 64, 16
MAX_TEXTS_PER_BATCH, MAX_CHARACTERS_PER_BATCH, MAX_IMAGES_PER_BATCH = 8, 4_000, 4  # where requests share a batch
UNSHARED_BATCH_SHARE = 2.0  # share of a request that is predicted in a batch of its own
ROUNDING_TOLERANCE = 1e-9  # of a sum of shares
INVALID_IMAGE = b"invalid base64"  # no decoder accepts these bytes
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is not JSON, or the Host header names another server"},
    401: {"description": "The bearer token is missing or wrong"},
    408: {"description": "The body did not arrive in time"},
    413: {"description": "The body is too large"},
    415: {"description": "The Content-Type is not JSON"},
    429: {"description": "Too many requests from this client"},
    431: {"description": "The headers are too large"},
    503: {"description": "Too many requests are waiting"},
}


@dataclass(frozen=True)
class Limits:
    """Limits of the model server.

    Args:
        megabytes: maximum size of a request's body, in MB.
        requests_per_second: maximum rate per client; bursts may have twice as many requests.
        max_requests: maximum number of requests that are processed or wait.
        megapixels: maximum size of an image, in megapixels; the images of a request may have twice as many in total.
        wait_seconds: maximum time that a request waits for its batch.
        connections: maximum number of open connections per client; twice as many in total.
    """

    megabytes: float = 8.0
    requests_per_second: float = 50.0
    max_requests: int = 64
    megapixels: float = 16.0
    wait_seconds: float = 10.0
    connections: int = 128

    def request_limits(self) -> RequestLimits:
        """The limits that GuardedApp applies."""
        body_bytes = int(self.megabytes * 1e6)
        return RequestLimits(body_bytes, MAX_BODIES_IN_MEMORY * body_bytes, self.requests_per_second, self.wait_seconds)

    def connection_limits(self) -> ConnectionLimits:
        """The limits that LimitedConfig applies."""
        return ConnectionLimits(per_client=self.connections, total=2 * self.connections)


class Texts(BaseModel):
    """Texts to classify."""

    texts: list[Annotated[str, Field(max_length=20_000)]] = Field(min_length=1, max_length=MAX_TEXTS_PER_REQUEST)


class Images(BaseModel):
    """Encoded images (PNG, JPEG, WebP, BMP, GIF, TIFF), each as base64."""

    images: list[str] = Field(min_length=1, max_length=MAX_IMAGES_PER_REQUEST)


class Prediction(BaseModel):
    """The prediction for one row.

    abstains: whether the confidence is below the threshold that was chosen in training; error: why there is no
    prediction.
    """

    predicted: str | None
    confidence: float | None
    abstains: bool | None
    probabilities: dict[str, float] | None
    error: str | None


class Answers(BaseModel):
    """One prediction per row, in the order of the request, and the round of the model."""

    answers: list[Prediction]
    round: int


class Health(BaseModel):
    """The state of the server and the model that it serves."""

    status: str
    modality: str
    round: int
    classes: list[str]


@dataclass(eq=False)
class PendingRequest:
    """The questions of a request and, after its batch, their answers. share: the share of a batch that they fill."""

    questions: list[Question]
    share: float
    answers: list[Answer] = field(default_factory=list)
    is_running: bool = False  # its batch is being predicted
    done: anyio.Event = field(default_factory=anyio.Event)


class RequestBatcher:
    """Calls the model for one batch of requests at a time.

    Small requests that arrive during a call share the next batch, which uses all cores. Large requests have a batch of
    their own, so that small requests do not wait for many foreign rows. After a failed batch, each of its requests is
    predicted alone. An answer does not depend on the other rows of its batch.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self._lock = anyio.Lock()  # tokenizers and learners are not thread-safe
        self._pending: list[PendingRequest] = []

    @property
    def requests(self) -> int:
        """The number of requests that are processed or wait."""
        return len(self._pending)

    async def answers(self, questions: list[Question], share: float, wait_seconds: float = math.inf) -> list[Answer]:
        """Returns one answer per question, in their order.

        The task that acquires the lock also predicts other waiting requests.

        Args:
            questions: the rows of the request.
            share: the share of a batch that the request fills; above 1, it has a batch of its own.
            wait_seconds: the maximum time until its batch starts.

        Raises:
            TimeoutError: no batch with the request started in time.
        """
        request = PendingRequest(questions, share)
        self._pending.append(request)
        try:
            with anyio.move_on_after(wait_seconds) as wait_scope:
                await self._lock.acquire()
            if not wait_scope.cancelled_caught:
                try:
                    await self._predict_unless_done(request)
                finally:
                    self._lock.release()
            elif request.is_running:
                await request.done.wait()
        finally:
            self._pending.remove(request)
        if not request.answers:
            raise TimeoutError
        return request.answers

    async def _predict_unless_done(self, first: PendingRequest) -> None:
        if first.answers:
            return
        batch = self._batch(first)
        for request in batch:
            request.is_running = True
        try:
            await to_thread.run_sync(self._predict, batch)
        finally:
            for request in batch:
                request.is_running = False
                request.done.set()

    def _batch(self, first: PendingRequest) -> list[PendingRequest]:
        """The request and, in order of arrival, as many others as fit into the batch."""
        batch, free_share = [first], 1 + ROUNDING_TOLERANCE - first.share
        for request in self._pending:
            if request is not first and not request.answers:
                free_share -= request.share
                if free_share < 0:
                    break
                batch.append(request)
        return batch

    def _predict(self, batch: list[PendingRequest]) -> None:
        predictions = self.predictor.answers(chain.from_iterable(request.questions for request in batch))
        try:
            for request in batch:
                request.answers = list(islice(predictions, len(request.questions)))
        except Exception:  # it is unknown which request caused it: that one fails when it is predicted alone
            if len(batch) == 1:
                raise
            for request in batch:
                request.share = UNSHARED_BATCH_SHARE
            self._predict(batch[:1])


class PredictionService:
    """Predicts the rows of requests, counts and times the requests, and refuses them if too many wait."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.limits, self._round, self._classes = limits, predictor.round, predictor.model.classes
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "seedling_predict_seconds",
            "Duration of a prediction request",
            registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
        )
        self._rows = Counter("seedling_rows", "Rows in prediction requests", ["outcome"], registry=self.registry)
        self.refused = Counter("seedling_refused", "Refused requests", ["status"], registry=self.registry)
        self._batcher = RequestBatcher(predictor)
        self._in_flight = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts and times a request within the block.

        Raises HTTPException if too many requests are in flight, or if the block raises TimeoutError.
        """
        if self._in_flight >= self.limits.max_requests:
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
        """The predictions for the questions. share: the share of a batch that they fill. Raises TimeoutError."""
        answers = await self._batcher.answers(questions, share, self.limits.wait_seconds)
        for answer in answers:
            self._rows.labels("error" if answer.error else "abstained" if answer.abstains else "answered").inc()
        return Answers(answers=[_prediction(answer, self._classes) for answer in answers], round=self._round)

    def refusal(self, code: int, reason: str, headers: dict[str, str] | None = None) -> HTTPException:
        """Counts a refused request and returns the exception to raise."""
        self.refused.labels(str(code)).inc()
        return HTTPException(code, reason, headers=headers)

    async def invalid_body_response(self, request: Request, error: Exception) -> Response:
        """Lists the errors of an invalid body and their positions, without the body itself, which may be large."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json" and not media_type.endswith("+json"):
            self.refused.labels("415").inc()
            content = {"detail": "Send the body as JSON, with the header Content-Type: application/json."}
            return Response(json.dumps(content), 415, media_type="application/json")
        errors = error.errors() if isinstance(error, RequestValidationError) else []
        details = [{"loc": error["loc"], "msg": error["msg"], "type": error["type"]} for error in errors]
        return Response(json.dumps({"detail": details}), 422, media_type="application/json")


def make_app(
    predictor: Predictor, limits: Limits | None = None, hosts: AllowedHosts | None = None, token: str | None = None
) -> Any:
    """Builds the ASGI application: POST /predict, GET /health, GET /metrics, and GET /openapi.json.

    hosts: the allowed Host headers, None for loopback names only; token: the bearer token that requests must send.
    """
    active_limits = limits or Limits()
    service = PredictionService(predictor, active_limits)
    image_requests = (
        ImageRequests(active_limits.megapixels, active_limits.wait_seconds, predictor.background)
        if predictor.modality == "image"
        else None
    )

    # No /docs, because its page loads scripts from another site. /openapi.json has the same content.
    app = FastAPI(
        title="Seedling",
        description="The accepted model of a workspace.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=partial(_lifespan, image_requests),
    )
    app.add_exception_handler(RequestValidationError, service.invalid_body_response)
    _add_predict_route(app, service, image_requests, active_limits)

    @app.get("/health")
    async def health() -> Health:
        """Returns the state of the server and the model that it serves."""
        return Health(status="ok", modality=predictor.modality, round=predictor.round, classes=predictor.model.classes)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Returns counts and durations in the Prometheus text format."""
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)

    return GuardedApp(
        app,
        hosts or AllowedHosts("127.0.0.1"),
        active_limits.request_limits(),
        on_refusal=lambda status: service.refused.labels(str(status)).inc(),
        token=token,
    )


@asynccontextmanager
async def _lifespan(image_requests: ImageRequests | None, _: FastAPI) -> AsyncIterator[None]:
    """Starts the processes for images before the first request, and ends them after the last."""
    if image_requests is not None:
        await image_requests.warm_up()
    try:
        yield
    finally:
        if image_requests is not None:
            image_requests.close()


def _add_predict_route(
    app: FastAPI, service: PredictionService, image_requests: ImageRequests | None, limits: Limits
) -> None:
    """Adds POST /predict for images, or for texts if `image_requests` is None."""
    if image_requests is None:

        @app.post("/predict", responses=ERROR_RESPONSES)
        async def predict_texts(body: Texts) -> Answers:
            """Predicts the class of each text."""
            n_characters = sum(len(text) for text in body.texts)
            share = max(len(body.texts) / MAX_TEXTS_PER_BATCH, n_characters / MAX_CHARACTERS_PER_BATCH)
            with service.admitted():
                return await service.answered([Question("", text) for text in body.texts], share)
    else:

        @app.post("/predict", responses=ERROR_RESPONSES)
        async def predict_images(body: Images) -> Answers:
            """Predicts the class of each image."""
            with service.admitted():
                try:
                    async with image_requests.decoded([_decoded(image) for image in body.images]) as (rows, megapixels):
                        share = max(len(rows) / MAX_IMAGES_PER_BATCH, megapixels / (2 * limits.megapixels))
                        return await service.answered(rows, share)
                except TooManyPixels as error:
                    raise service.refusal(413, str(error)) from error


def _decoded(image: str) -> bytes:
    """The bytes of an image; for invalid base64, bytes that the decoder reports as an invalid image."""
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        return INVALID_IMAGE


def _prediction(answer: Answer, classes: list[str]) -> Prediction:
    probabilities = None if answer.probabilities is None else dict(zip(classes, answer.probabilities, strict=True))
    return Prediction(
        predicted=answer.predicted,
        confidence=answer.confidence,
        abstains=answer.abstains,
        probabilities=probabilities,
        error=answer.error,
    )


def bind_socket(host: str, port: int) -> socket.socket:
    """Binds a socket to the address before the model is loaded; it does not accept connections yet.

    Raises InputError if the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InputError(f"Cannot listen on {host}:{port} ({reason}): choose another --port or --host.") from error
    return listener


def serve_api(
    predictor: Predictor, listener: socket.socket, limits: Limits, hosts: AllowedHosts, token: str | None = None
) -> None:
    """Serves the model until the process is stopped."""
    import uvicorn

    predictor.warm_up()
    app = make_app(predictor, limits, hosts, token)
    gc.collect()
    gc.freeze()  # a full collection would visit every loaded object and block requests meanwhile
    config = LimitedConfig(app, limits.connection_limits(), log_level="warning")
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C stops the server
        uvicorn.Server(config).run(sockets=[listener])
