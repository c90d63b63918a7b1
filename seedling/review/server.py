"""`seedling review`: the review page and its API, on loopback, for one or several reviewers.

Every request needs a reviewer's token. An answer is acknowledged after it is on the disk; the page keeps the others and
sends them again with the same ids.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from filelock import FileLock, Timeout
from jinja2 import Environment, FileSystemLoader
from pydantic import BaseModel, Field, ValidationError

from seedling.errors import InputError, SeedlingError
from seedling.files.writing import write_json
from seedling.media.images import Undecodable
from seedling.review.address import remove_server_address, running_reviewer_url, write_server_address
from seedling.review.keys import key_bindings
from seedling.review.orders import ORDERS
from seedling.review.page_answers import AnswerFromPage
from seedling.review.records import ClassChange, Question, Undo
from seedling.review.session import ReviewSession
from seedling.serving.http_clients import AllowedHosts
from seedling.workspace import Workspace

DEFAULT_PORT = 4310
START_TIMEOUT_SECONDS, STOP_TIMEOUT_SECONDS = 20.0, 10.0
SWITCH_SECONDS = 0.0005
MAX_ANSWERS_PER_REQUEST = 500
MAX_BODY_MEGABYTES = 8
PAGE_FILES = {"review.js": "text/javascript; charset=utf-8", "review.css": "text/css; charset=utf-8"}
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
IMAGE_CACHE_HEADER = "private, max-age=86400, immutable"  # a row's id is a hash of its pixels


class SentAnswers(BaseModel):
    """The answers of the page that are not acknowledged yet."""

    answers: Annotated[list[AnswerFromPage], Field(max_length=MAX_ANSWERS_PER_REQUEST)]


class SentUndo(BaseModel):
    """Answers that the reviewer takes back or restores."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    answer_ids: Annotated[list[str], Field(min_length=1, max_length=MAX_ANSWERS_PER_REQUEST)]


class SentClasses(BaseModel):
    """A change of the classes."""

    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    operation: Literal["add", "rename", "merge", "split"]
    old: list[str] = []
    new: list[str]


class ReviewApi:
    """The routes of the page and the API. tokens: token → reviewer."""

    def __init__(self, session: ReviewSession, tokens: Mapping[str, str], title: str) -> None:
        self.session, self.title = session, title
        self._tokens = dict(tokens)
        self._templates = Environment(loader=FileSystemLoader(str(files("seedling.review") / "page")), autoescape=True)
        self._keys = key_bindings({name: list(codes) for name, codes in session.params.review.keys.items()})

    def reviewer(self, token: str | None) -> str:
        """The reviewer of this token. Raises HTTPException 403."""
        for known_token, reviewer in self._tokens.items():
            if token is not None and hmac.compare_digest(known_token.encode(), token.encode()):
                return reviewer
        raise HTTPException(
            403, "The token is missing or wrong: open the address that `seedling review` printed, with its token."
        )

    def page(self, request: Request, token: str | None = None, row_id: str | None = None) -> Response:
        """The page. The cookie that it sets opens links to rows in reports, which have no token."""
        cookie = f"seedling_review_{request.url.port}"
        token = token or request.cookies.get(cookie)
        try:
            reviewer = self.reviewer(token)
        except HTTPException as error:
            html = self._templates.get_template("refused.html.jinja").render()
            return HTMLResponse(html, error.status_code, headers=SECURITY_HEADERS)
        review, is_train = self.session.params.review, self.session.queue.split == "train"
        config = {
            "reviewer": reviewer,
            "classes": list(self.session.queue.rows.classes),
            "keys": self._keys,
            "modes": ["verify", "label", "grid", "duplicates"] if is_train else ["label"],
            "orders": list(ORDERS) if is_train else ["random"],
            "modality": self.session.queue.rows.modality,
            "title": self.title,
            "workspace": hashlib.blake2b(str(self.session.workspace.resolve()).encode(), digest_size=8).hexdigest(),
            "mode": "verify" if is_train and self.session.queue.rows.round is not None else "label",
            "order": review.order if is_train else "random",
            "split": self.session.queue.split,
            "row_id": row_id,
            "token": token,
            "version": self.session.queue.version,
            "class_change_count": self.session.queue.class_change_count,
        }
        html = self._templates.get_template("review.html.jinja").render(config=config, title=self.title)
        response = HTMLResponse(html, headers=SECURITY_HEADERS)
        response.set_cookie(cookie, str(token), httponly=True, samesite="lax")
        return response

    def page_of_row(self, request: Request, row_id: str, token: str | None = None) -> Response:
        """The page, opened at a row."""
        return self.page(request, token, row_id)

    def static(self, name: str) -> Response:
        """The script or the style sheet of the page."""
        if name not in PAGE_FILES:
            raise HTTPException(404, "Not found.")
        content = (files("seedling.review") / "page" / name).read_bytes()
        return Response(content, media_type=PAGE_FILES[name], headers=SECURITY_HEADERS)

    def items(
        self,
        mode: Question = "label",
        order: str | None = None,
        count: Annotated[int, Query(ge=1, le=100)] = 10,
        skip: str = "",
        token: Annotated[str | None, Header(alias="X-Review-Token")] = None,
    ) -> dict[str, Any]:
        """The next screens of the reviewer."""
        reviewer = self.reviewer(token)
        order = order or self.session.order
        if order not in ORDERS:
            raise HTTPException(400, f"Unknown order '{order[:50]}'. The orders are {', '.join(ORDERS)}.")
        self.session.refresh_if_changed()
        leases = self.session.queue.next_leases(reviewer, mode, order, count, filter(None, skip.split(",")))
        return {
            "items": self.session.items().screens(leases),
            "remaining": self.session.queue.remaining,
            "queue_version": self.session.queue.version,
        }

    def item(
        self, row_id: str, token: Annotated[str | None, Header(alias="X-Review-Token")] = None, mode: Question = "label"
    ) -> dict[str, Any]:
        """The screen of one row."""
        lease = self.session.queue.lease_row(self.reviewer(token), row_id, mode)
        if lease is None:
            raise HTTPException(404, f"There is no row {row_id[:32]} in this workspace; it may have been removed.")
        (screen,) = self.session.items().screens([lease])
        return screen

    def answers(
        self, sent: SentAnswers, token: Annotated[str | None, Header(alias="X-Review-Token")] = None
    ) -> dict[str, Any]:
        """Store answers, and acknowledge them once they are on the disk."""
        reviewer = self.reviewer(token)
        self.session.queue.answer(reviewer, sent.answers)
        return {"saved": [answer.id for answer in sent.answers], "panel": self.session.panel(reviewer)}

    def undo(
        self, sent: SentUndo, token: Annotated[str | None, Header(alias="X-Review-Token")] = None
    ) -> dict[str, Any]:
        """Take answers back."""
        return self._take_back("undo", sent, token)

    def redo(
        self, sent: SentUndo, token: Annotated[str | None, Header(alias="X-Review-Token")] = None
    ) -> dict[str, Any]:
        """Restore answers that were taken back."""
        return self._take_back("redo", sent, token)

    def _take_back(self, kind: Literal["undo", "redo"], sent: SentUndo, token: str | None) -> dict[str, Any]:
        reviewer = self.reviewer(token)
        line = Undo(kind=kind, id=sent.id, reviewer=reviewer, answer_ids=tuple(sent.answer_ids))
        self.session.queue.take_back(reviewer, line)
        return {"saved": [sent.id], "panel": self.session.panel(reviewer)}

    def history(
        self,
        before: str | None = None,
        count: Annotated[int, Query(ge=1, le=500)] = 50,
        token: Annotated[str | None, Header(alias="X-Review-Token")] = None,
    ) -> dict[str, Any]:
        """The reviewer's latest answers, the newest first."""
        entries = self.session.queue.history(self.reviewer(token), before, count)
        fields = ("id", "row_id", "question", "answer", "label", "asked_label", "batch", "note", "written_at")
        return {
            "answers": [
                {name: getattr(answer, name) for name in fields} | {"undone": is_undone}
                for answer, is_undone in entries
            ]
        }

    def classes(
        self, sent: SentClasses, token: Annotated[str | None, Header(alias="X-Review-Token")] = None
    ) -> dict[str, Any]:
        """Add, rename, merge or split classes."""
        reviewer = self.reviewer(token)
        line = ClassChange(
            id=sent.id, reviewer=reviewer, operation=sent.operation, old=tuple(sent.old), new=tuple(sent.new)
        )
        classes = self.session.queue.change_classes(reviewer, line)
        self.session.request_ranking(self.session.order)
        return {"classes": list(classes), "class_change_count": self.session.queue.class_change_count}

    def panel(self, token: Annotated[str | None, Header(alias="X-Review-Token")] = None) -> dict[str, Any]:
        """The panel's counts and estimates."""
        return self.session.panel(self.reviewer(token))

    def image(
        self, row_id: str, token: str | None = None, side: Annotated[int, Query(ge=0, le=10_000)] = 0
    ) -> Response:
        """The image of a row."""
        self.reviewer(token)
        try:
            content, media_type = self.session.images.get(row_id, side)
        except Undecodable as error:
            raise HTTPException(404, f"The image of row {row_id[:32]} cannot be decoded ({error}).") from error
        except (SeedlingError, OSError) as error:
            raise HTTPException(404, f"The image of row {row_id[:32]} is gone: {error}") from error
        return Response(
            content, media_type=media_type, headers={**SECURITY_HEADERS, "Cache-Control": IMAGE_CACHE_HEADER}
        )


def review_application(session: ReviewSession, tokens: Mapping[str, str], title: str) -> FastAPI:
    """Build the application."""
    api = ReviewApi(session, tokens, title)
    application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    application.get("/")(api.page)
    application.get("/item/{row_id}")(api.page_of_row)
    application.get("/static/{name}")(api.static)
    application.get("/health")(lambda: {"status": "ok"})
    application.get("/image/{row_id}")(api.image)
    application.get("/api/items")(api.items)
    application.get("/api/item/{row_id}")(api.item)
    application.get("/api/history")(api.history)
    application.get("/api/panel")(api.panel)
    application.post("/api/answers")(api.answers)
    application.post("/api/undo")(api.undo)
    application.post("/api/redo")(api.redo)
    application.post("/api/classes")(api.classes)
    _explain_errors(application)
    return application


def _explain_errors(application: FastAPI) -> None:
    """Answer errors as {"error": sentence}."""

    def refused(_: Request, error: Exception) -> Response:
        status, message = (error.status_code, error.detail) if isinstance(error, HTTPException) else (400, str(error))
        return JSONResponse({"error": message}, status, headers=SECURITY_HEADERS)

    def invalid(_: Request, error: Exception) -> Response:
        errors: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError | ValidationError) else []
        first = errors[0] if errors else {"loc": ("request",), "msg": str(error)}
        return JSONResponse(
            {"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 400, headers=SECURITY_HEADERS
        )

    def disk_failed(_: Request, error: Exception) -> Response:
        return JSONResponse(
            {"error": f"The answers could not be written ({error}); the page keeps them and tries again: free space."},
            507,
            headers=SECURITY_HEADERS,
        )

    application.exception_handler(HTTPException)(refused)
    application.exception_handler(RequestValidationError)(invalid)
    application.exception_handler(ValidationError)(invalid)
    application.exception_handler(SeedlingError)(refused)
    application.exception_handler(OSError)(disk_failed)


class ReviewServer:
    """The server of one workspace, on its own thread. addresses: reviewer → address with the reviewer's token."""

    def __init__(
        self, session: ReviewSession, reviewers: Sequence[str], host: str, port: int, allowed_hosts: Sequence[str] = ()
    ) -> None:
        import uvicorn

        from seedling.serving.http_connections import ConnectionLimits, LimitedConfig
        from seedling.serving.http_guard import GuardedApp, RequestLimits

        self.session = session
        self._paths = Workspace(session.workspace)
        self._folder = self._paths.review_folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # the tokens of reviewers
        self._process_lock = FileLock(self._paths.review_lock, timeout=0)
        self._lock_process()
        self._socket = _bound(host, port)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._socket.getsockname()[1]}"
        tokens = reviewer_tokens(self._paths.review_tokens, reviewers)
        self.addresses = {reviewer: f"{self.url}/?token={token}" for reviewer, token in tokens.items()}
        title = session.workspace.resolve().name
        application = review_application(session, {token: name for name, token in tokens.items()}, title)
        limits = RequestLimits(
            int(MAX_BODY_MEGABYTES * 1e6), 8 * int(MAX_BODY_MEGABYTES * 1e6), requests_per_second=float("inf")
        )
        guarded = GuardedApp(application, AllowedHosts(host, allowed_hosts), limits)
        self._server = uvicorn.Server(LimitedConfig(guarded, ConnectionLimits(), log_level="warning", lifespan="off"))
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="review server", daemon=True)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])  # which closes the socket
        finally:
            self._has_ended.set()

    def _lock_process(self) -> None:
        try:
            self._process_lock.acquire()
        except Timeout as error:
            address = running_reviewer_url(self._paths.folder)
            raise InputError(
                f"A review server of {self._paths.folder} is already running"
                f"{f' at {address}' if address else ''}: use it, or stop it with Ctrl-C in its terminal."
            ) from error

    def start(self) -> None:
        """Start serving. Raises SeedlingError if the server does not start in time."""
        # The thread that ranks gives way to a request after half a millisecond instead of five.
        sys.setswitchinterval(SWITCH_SECONDS)
        self.session.start()
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._server.started:
            if self._has_ended.is_set() or time.monotonic() > deadline:
                raise SeedlingError(f"The review server did not start at {self.url}: try another --port.")
            time.sleep(0.01)
        write_server_address(self.session.workspace, next(iter(self.addresses.values())))

    def wait(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Wait until the server is stopped, or until `is_over`."""
        while not is_over() and not self._has_ended.wait(0.5):  # Ctrl-C within Thread.join marks a thread as ended
            pass

    def stop(self) -> None:
        """Stop serving."""
        remove_server_address(self.session.workspace)
        self._server.should_exit = True
        if self._thread.ident is None:  # not started
            self._socket.close()
        elif not self._has_ended.wait(STOP_TIMEOUT_SECONDS):  # connections of open pages
            self._server.force_exit = True
            self._has_ended.wait(STOP_TIMEOUT_SECONDS)
        self.session.close()
        self._process_lock.release()


def reviewer_tokens(path: Path, reviewers: Sequence[str]) -> dict[str, str]:
    """Reviewer → token. Tokens are kept, so that an open page works again after the server was restarted."""
    try:
        kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    tokens = {reviewer: str(kept.get(reviewer) or secrets.token_urlsafe(24)) for reviewer in reviewers}
    write_json(path, {**kept, **tokens})
    return tokens


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"The review server cannot listen on {host}:{port} ({error.strerror or error}): choose another --port, or "
            "0 for any free one."
        ) from error
    return listener
