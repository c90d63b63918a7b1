"""A temporary Prefect server: `seedling run` and `seedling schedule` start one if PREFECT_API_URL is not set.

The server is a child process in its own session, so that Ctrl-C does not reach it. Its parent opens and keeps the
listening socket: if the server dies, clients wait in the socket's queue until the next server accepts them. The server
does not inherit standard input or output, writes to a log file, and ends with its parent, also after kill -9.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import seedling
from seedling.errors import SeedlingError
from seedling.terminal.notices import state_once
from seedling.workspace import Workspace

START_TIMEOUT_SECONDS = 180.0
STOP_TIMEOUT_SECONDS = 6.0
API_TIMEOUT_SECONDS = 4.0
SUPERVISION_SECONDS = 30.0
MAX_LOG_BYTES = 10_000_000
LISTEN_BACKLOG = 2048
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
HTTP_SCHEMES, SOCKS_SCHEMES = frozenset({"http", "https"}), frozenset({"socks5", "socks5h"})

NOT_INHERITED = ("PREFECT_API_URL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")  # a run silences its own console only

# Prefect's settings for an ephemeral server, which one process uses: no user interface, no scheduler.
TEMPORARY = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT_API_BLOCKS_REGISTER_ON_START": "0"}


class PrefectServer:
    """A Prefect server in a child process, which is restarted if it dies.

    Args:
        log_path: the log file of the server's output; the previous one is kept as `.1`.
        announce: called with one sentence if the server has died, and is restarted or not.
        port: the port; 0 is any free port.
        environment: additional environment variables of the child process.
    """

    def __init__(
        self,
        log_path: Path,
        announce: Callable[[str], None],
        *,
        port: int = 0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.log_path = log_path
        self._announce = announce
        self._environment = environment or {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._listener = _listening_socket(port)
        self.api_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"

    def start(self, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Starts the server and waits until it answers. Otherwise stops it and raises SeedlingError."""
        _rotate(self.log_path)
        try:
            self._spawn()
            self._wait_until_healthy(timeout_seconds)
        except BaseException:
            self.stop()
            raise
        threading.Thread(target=self._supervise, name="prefect-server-supervisor", daemon=True).start()

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """Stops the server, by SIGKILL if it does not end in time."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._listener.close()

    def _spawn(self) -> None:
        package_root = str(Path(seedling.__file__).parents[1])
        import_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        environment = {
            **{name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
            **self._environment,
            "PREFECT__SERVER_FINAL": "1",
            "PYTHONPATH": import_path,
        }
        descriptor = self._listener.fileno()
        # -P: a folder named "seedling" in the workspace must not hide the package.
        command = [sys.executable, "-P", "-m", "seedling.flows.server_process", str(descriptor), str(os.getpid())]
        with self._lock, self.log_path.open("ab") as log:
            if self._stopping.is_set():
                return
            self._process = subprocess.Popen(  # noqa: S603  (our own module)
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(descriptor,),
                start_new_session=True,
            )

    def _wait_until_healthy(self, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not answers(self.api_url):
            if self._stopping.is_set():
                return
            code = None if self._process is None else self._process.poll()
            if code is not None:
                reason = last_line(self.log_path)
                raise SeedlingError(
                    f"The Prefect server did not start (exit code {code}){f': {reason}' if reason else ''}. "
                    f"Its log is {self.log_path}."
                )
            if time.monotonic() > deadline:
                raise SeedlingError(
                    f"The Prefect server did not answer within {timeout_seconds:.0f} s: see {self.log_path}, "
                    "or start one with `prefect server start` and set PREFECT_API_URL."
                )
            time.sleep(0.1)

    def _supervise(self) -> None:
        """Restarts the server each time it dies, until a restart fails."""
        while self._process is not None:
            code = self._await_exit()
            if self._stopping.is_set():
                return
            self._announce(
                f"The Prefect server ended ({_exit_text(code)}) and is restarted. Its log is {self.log_path}."
            )
            try:
                self._spawn()
                self._wait_until_healthy(START_TIMEOUT_SECONDS)
            except (SeedlingError, OSError) as error:
                self.stop()  # also closes the socket: clients fail immediately instead of waiting in its queue
                self._announce(f"Prefect is no longer available. {error}")
                return

    def _await_exit(self) -> int:
        assert self._process is not None  # noqa: S101  (checked by the caller)
        while True:
            try:
                return self._process.wait(SUPERVISION_SECONDS)
            except subprocess.TimeoutExpired:
                if self.log_path.exists() and self.log_path.stat().st_size > MAX_LOG_BYTES:
                    shutil.copyfile(self.log_path, self.log_path.with_name(f"{self.log_path.name}.1"))
                    os.truncate(self.log_path, 0)


@contextmanager
def temporary_server(workspace: Path, announce: Callable[[str], None]) -> Iterator[bool]:
    """Connects this process to the server of PREFECT_API_URL, or starts a temporary one in parallel with the block.

    Yields whether the server is temporary. It is ready when the block ends, and runs until this process ends.
    PREFECT_API_URL is set to its address from the start of the block.
    Raises SeedlingError if no server can be reached or started.
    """
    check_prefect_home()
    bypass_proxies_for_loopback()
    api_url = configured_api_url()
    if api_url is not None:
        check_api(api_url)
        yield False
        return
    server = PrefectServer(Workspace(workspace).prefect_server_log, announce, environment=TEMPORARY)
    atexit.register(server.stop)  # after Prefect's exit handlers, which send the last logs and events
    failures: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except BaseException as error:  # noqa: BLE001  (raised below, in the calling thread)
            failures.append(error)

    starter = threading.Thread(target=start, daemon=True)
    starter.start()
    use_api(server.api_url)
    yield True
    while starter.is_alive():
        starter.join(0.5)  # a join without a timeout would delay Ctrl-C
    if failures:
        raise failures[0]


def configured_api_url() -> str | None:
    """Returns the API address of the environment or Prefect's profile, if any."""
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    return None if url is None else str(url)


def use_api(url: str) -> None:
    """Makes Prefect use this API in this process and its child processes."""
    os.environ["PREFECT_API_URL"] = url
    if "prefect" in sys.modules:
        importlib.import_module("prefect.context").refresh_global_settings_context()


def check_prefect_home() -> None:
    """Raises SeedlingError if Prefect's folder is not writable; Prefect itself reports it late and with a traceback."""
    home = Path(os.environ.get("PREFECT_HOME") or Path("~") / ".prefect").expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise SeedlingError(
            f"Prefect's folder {home} is not writable ({error.strerror}): make it writable, or set PREFECT_HOME to a "
            "writable folder."
        ) from error


def check_api(url: str) -> None:
    """Raises SeedlingError if no Prefect API answers at the address in time."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

    settings = get_current_settings().api
    key = settings.key.get_secret_value() if settings.key else None
    login = settings.auth_string.get_secret_value() if settings.auth_string else None
    failure: Any
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        try:
            with SyncPrefectClient(
                url, api_key=key, auth_string=login, httpx_settings={"timeout": API_TIMEOUT_SECONDS}
            ) as client:
                failure = client.api_healthcheck()
        except Exception as error:  # noqa: BLE001  (any error of the address is reported to the user)
            failure = error
    if failure is not None:
        raise SeedlingError(
            f"No Prefect server answers at {url} ({str(failure) or type(failure).__name__}): start it with `prefect "
            "server start`, correct PREFECT_API_URL, or unset it to let Seedling start a server."
        )


def bypass_proxies_for_loopback() -> None:
    """Adds this machine to NO_PROXY, so that requests to a local server do not use HTTP_PROXY.

    Prefect's client opens a transport for every proxy of the environment, even if it does not use it. A proxy of an
    unsupported kind, such as SOCKS, is removed from this process's environment, with a notice.
    """
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join([*hosts, *(host for host in LOOPBACK_HOSTS if host not in hosts)])
    for name in [name for name in os.environ if name.lower() in PROXY_VARIABLES]:
        scheme = urlsplit(os.environ[name]).scheme.lower() if "://" in os.environ[name] else "http"
        is_usable = scheme in HTTP_SCHEMES or (
            scheme in SOCKS_SCHEMES and importlib.util.find_spec("socksio") is not None
        )
        if not is_usable:
            del os.environ[name]
            state_once(
                f"{name} names a proxy of the kind {scheme}, which Prefect's client does not support: this run ignores "
                "it."
            )


def answers(api_url: str) -> bool:
    """Whether a healthy Prefect API answers at this loopback address."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{api_url}/health", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def last_line(log_path: Path) -> str:
    """Returns the last line of a log file that is not blank, or an empty string."""
    try:
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _listening_socket(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise SeedlingError(
            f"The Prefect server cannot listen on port {port} of 127.0.0.1 ({error.strerror}): free the port, or set "
            "PREFECT_SERVER_API_PORT to another one."
        ) from error
    return listener


def _rotate(log_path: Path) -> None:
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        if log_path.exists():
            log_path.replace(log_path.with_name(f"{log_path.name}.1"))
    except OSError as error:
        raise SeedlingError(
            f"The log {log_path} is not writable ({error.strerror}): change its owner or mode."
        ) from error


def _exit_text(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
