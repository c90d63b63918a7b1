"""Proxies of the environment stop no request to this machine, whatever their kind."""

from __future__ import annotations

import http.server
import importlib.util
import os
import threading

import httpx
import pytest

from seedling.flows.temporary_server import PROXY_VARIABLES, answers, bypass_proxies_for_loopback

SOCKS = importlib.util.find_spec("socksio") is not None


class Health(http.server.BaseHTTPRequestHandler):
    """Answers 200 to every GET."""

    def do_GET(self) -> None:
        """As Prefect's health check does."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "proxy",
    ["http://127.0.0.1:9", "127.0.0.1:9", "socks5://127.0.0.1:9", "socks4://127.0.0.1:9", "ftp://127.0.0.1:9", ""],
)
def test_a_server_on_loopback_is_reached_past_every_kind_of_proxy(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Prefect's client library; what it cannot use as a proxy is no error."""
    for name in (*PROXY_VARIABLES, *(name.upper() for name in PROXY_VARIABLES)):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.delenv("no_proxy", raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        bypass_proxies_for_loopback()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with httpx.Client() as client:
            assert client.get(f"{url}/health").status_code == 200
        assert answers(url)
        assert "intranet.example" in os.environ["NO_PROXY"].split(",")
        usable = not proxy.startswith(("socks4", "ftp")) and not (proxy.startswith("socks5") and not SOCKS)
        assert ("HTTP_PROXY" in os.environ) == usable
    finally:
        server.shutdown()
        server.server_close()
