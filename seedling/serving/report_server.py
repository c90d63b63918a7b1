"""`seedling serve-reports`: serves the pages of one or more workspaces over HTTP, for the links in Prefect's UI.

Serves only the files in reports/: no other folder, hidden file, symbolic link or folder listing.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from seedling.config.monitoring_params import ReportsParams
from seedling.errors import InputError, SeedlingError
from seedling.serving.http_clients import EVERY_ADDRESS, AllowedHosts
from seedling.serving.report_links import PAGES, remove_server_file, running_server_url, slug, write_server_file
from seedling.workspace import Workspace

DEFAULT_PORT = 4300
START_TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 18
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def named_workspaces(workspaces: Sequence[Path]) -> dict[str, Path]:
    """Maps URL names to workspaces; equal names get a number. Raises InputError if a folder is not a workspace."""
    named: dict[str, Path] = {}
    for workspace in dict.fromkeys(path.resolve() for path in workspaces):
        if not Workspace(workspace).params_file.is_file():
            raise InputError(f"{workspace} is not a Seedling workspace: it has no params.yaml.")
        name, number = slug(workspace.name), 2
        while name in named:
            name, number = f"{slug(workspace.name)}-{number}", number + 1
        named[name] = workspace
    if not named:
        raise InputError("There is no workspace to serve: pass --workspace DIR.")
    return named


def report_application(named: Mapping[str, Path], instance: str) -> Starlette:
    """Builds the application: `/`, `/<workspace>/`, `/<workspace>/<file of reports/>`, `/health`; GET and HEAD only."""
    # Imported here because it loads SciPy, which would delay a run without changes.
    from seedling.report.pages import environment

    template = environment("workspaces.html.jinja").get_template("workspaces.html.jinja")

    def index(listed_workspaces: Mapping[str, Path], prefix: str) -> Response:
        entries = [
            (
                workspace.name,
                prefix.format(name=name),
                [(title, file) for title, file in PAGES.items() if (Workspace(workspace).reports / file).is_file()],
            )
            for name, workspace in listed_workspaces.items()
        ]
        return HTMLResponse(template.render(workspaces=entries), headers=SECURITY_HEADERS)

    async def root(_: Request) -> Response:
        return index(named, "{name}/")

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "instance": instance, "workspaces": sorted(named)})

    async def workspace_index(request: Request) -> Response:
        name = request.path_params["name"]
        return index({name: named[name]}, "") if name in named else _not_found()

    def page(request: Request) -> Response:  # not async: files are read in a thread
        workspace = named.get(request.path_params["name"])
        file = None if workspace is None else open_report_file(workspace, request.path_params["file"])
        return _not_found() if file is None else _streamed(file, request.path_params["file"], request.method)

    routes: list[tuple[str, Callable[[Request], Awaitable[Response] | Response]]] = [
        ("/", root),
        ("/health", health),
        ("/{name}/", workspace_index),
        ("/{name}/{file:path}", page),
    ]
    return Starlette(routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in routes])


def open_report_file(workspace: Path, name: str) -> int | None:
    """Opens a regular file below reports/ without following symbolic links.

    Returns its file descriptor, or None for anything else.
    """
    parts = name.split("/")
    if not name or any(not part or part.startswith(".") or "\0" in part or "\\" in part for part in parts):
        return None
    folder = -1
    try:
        folder = os.open(Workspace(workspace).reports, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    finally:
        if folder >= 0:
            os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        return None
    return file


def _streamed(file: int, name: str, method: str) -> Response:
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    size = os.fstat(file).st_size
    headers = {**SECURITY_HEADERS, "Content-Length": str(size)}
    if method == "HEAD":
        os.close(file)
        return Response(media_type=media_type, headers=headers)

    def chunks() -> Any:
        left = size
        with os.fdopen(file, "rb") as opened:
            while left and (chunk := opened.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk

    return StreamingResponse(chunks(), media_type=media_type, headers=headers)


def _not_found() -> Response:
    return PlainTextResponse("Not found.", status_code=404, headers=SECURITY_HEADERS)


class ReportServer:
    """A page server on its own thread, until `stop` or the end of the process. `url` is the base URL of its links."""

    def __init__(
        self,
        workspaces: Sequence[Path],
        host: str,
        port: int,
        base_url: str | None = None,
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        import uvicorn

        from seedling.serving.http_connections import ConnectionLimits, LimitedConfig
        from seedling.serving.http_guard import GuardedApp, RequestLimits

        self._named, self._instance = named_workspaces(workspaces), secrets.token_hex(8)
        self._socket = _bound(host, port)
        actual_port = self._socket.getsockname()[1]
        self.url = (base_url or f"http://{_reachable(host)}:{actual_port}").rstrip("/")
        hosts = ["127.0.0.1", _reachable(host)] if host in EVERY_ADDRESS else [_bracketed(host)]
        self._probes = [f"http://{name}:{actual_port}/health" for name in hosts]
        names = [*allowed_hosts, *filter(None, [urlsplit(self.url).hostname])]
        application = GuardedApp(
            report_application(self._named, self._instance), AllowedHosts(host, names), RequestLimits()
        )
        config = LimitedConfig(application, ConnectionLimits(), log_level="warning", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="report server", daemon=True
        )

    def start(self) -> None:
        """Starts the server. Raises SeedlingError if it does not start in time."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise SeedlingError(f"The page server did not start at {self.url}: try another --port.")
            time.sleep(0.02)
        for name, workspace in self._named.items():
            write_server_file(workspace, url=f"{self.url}/{name}", probes=self._probes, instance=self._instance)

    def wait(self) -> None:
        """Waits until the server is stopped."""
        while self._thread.is_alive():
            self._thread.join(timeout=0.5)

    def stop(self) -> None:
        """Stops the server. Existing links work again with the next server on the same port."""
        for workspace in self._named.values():
            remove_server_file(workspace, self._instance)
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()


def serve_reports_in_background(
    workspaces: Sequence[Path], host: str = "127.0.0.1", port: int = DEFAULT_PORT, base_url: str | None = None
) -> str:
    """Serves the workspaces' pages from a thread until this process ends. Returns the base URL of the links.

    Raises InputError if the port is taken or a folder is not a workspace.
    """
    import atexit

    server = ReportServer(workspaces, host, port, base_url)
    server.start()
    atexit.register(server.stop)
    return server.url


def serve_reports_beside(workspace: Path, params: ReportsParams, host: str, port: int) -> str | None:
    """Serves the workspace's pages from this process if no other server does. Returns the address of the pages.

    Returns None if `reports.base_url` names another server. If the port is taken, for example by another workspace's
    schedule, a free one is used.
    """
    if params.base_url:
        return None
    if running := running_server_url(workspace):
        return running
    try:
        base_url = serve_reports_in_background([workspace], host, port)
    except InputError:
        if port == 0:
            raise
        base_url = serve_reports_in_background([workspace], host, 0)
    return f"{base_url}/{slug(workspace.resolve().name)}"


def serve_reports(
    workspaces: Sequence[Path], host: str, port: int, base_url: str | None, allowed_hosts: Sequence[str] = ()
) -> None:
    """Serves the workspaces' pages until Ctrl-C or SIGTERM."""
    import signal

    server = ReportServer(workspaces, host, port, base_url, allowed_hosts)
    server.start()
    print(f"Serving the pages at {server.url}/ . Press Ctrl-C to stop.", flush=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.wait()
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        server.stop()
        signal.signal(signal.SIGTERM, before)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"The page server cannot listen on {host}:{port} ({error.strerror or error}): "
            "choose another --port or --host."
        ) from error
    return listener


def _reachable(host: str) -> str:
    """Returns the host for links; for a server on every address, the machine's name, which other machines can use."""
    if host not in EVERY_ADDRESS:
        return _bracketed(host)
    full_name = socket.getfqdn()
    return full_name if "." in full_name and not full_name.startswith("localhost") else socket.gethostname()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
