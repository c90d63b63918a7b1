"""An encoder of the Hugging Face Hub, fetched by huggingface_hub from a loopback server with the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "1" * 40
FETCH = """
from pathlib import Path
from seedling.features.pretrained import find_pretrained
from seedling.config.params import EncoderParams
print(find_pretrained(EncoderParams(model="some/encoder", revision="v1"), Path(), "image"))
"""
FETCH_NEWEST = FETCH.replace('revision="v1"', "**PINS")


@pytest.fixture
def hub(of_images: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves the folder as some/encoder; returns the server's URL and the list of requests."""
    requests: list[str] = []
    (of_images / "pytorch_model.bin").write_bytes(b"a pickle, which nobody wants")

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            requests.append(f"{self.command} {path}")
            files = sorted(path for path in of_images.iterdir() if path.is_file())
            if path in {f"/api/models/some/encoder/revision/{revision}" for revision in ("v1", "main")}:
                names = [{"rfilename": file.name} for file in files]
                content = json.dumps({"id": "some/encoder", "sha": COMMIT, "siblings": names}).encode()
            elif path == f"/api/models/some/encoder/tree/{COMMIT}":
                entries = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name} for file in files
                ]
                content = json.dumps(entries).encode()
            elif path.startswith(f"/some/encoder/resolve/{COMMIT}/"):
                content = (of_images / Path(path).name).read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    (of_images / "pytorch_model.bin").unlink()


@pytest.mark.slow
def test_an_encoder_of_the_hub_is_downloaded_once_and_without_pickle_files(
    hub: tuple[str, list[str]], of_images: Path, tmp_path: Path
) -> None:
    """The weights and settings of the pinned revision are complete; a second call requests no file."""
    address, requests = hub
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    folders, sent = [], []
    for _ in range(2):
        requests.clear()
        command = [sys.executable, "-c", FETCH]
        completed = subprocess.run(command, env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert completed.returncode == 0, completed.stderr
        folders.append(Path(completed.stdout.strip()))
        sent.append([request for request in requests if request.startswith("GET /some/encoder/resolve/")])
    assert folders[0] == folders[1]
    weights = "model.safetensors"
    assert (folders[0] / weights).read_bytes() == (of_images / weights).read_bytes()
    assert {Path(request).name for request in sent[0]} >= {weights, "config.json", "preprocessor_config.json"}
    assert not any("pytorch_model" in request for request in sent[0])
    assert sent[1] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pins", "is_warned"),
    [
        ("{}", True),
        ("{'revision': 'main'}", True),
        ("{'revision': 'v1'}", False),
        (f"{{'sha256': {'a' * 64!r}}}", False),
    ],
)
def test_an_unpinned_encoder_logs_a_warning(
    hub: tuple[str, list[str]], tmp_path: Path, pins: str, is_warned: bool
) -> None:
    """The warning has the commit to pin; a revision or a hash of the weights is enough."""
    env = {**os.environ, "HF_ENDPOINT": hub[0], "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", f"PINS = {pins}\n{FETCH_NEWEST}"]
    done = subprocess.run(command, env=env, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (f"encoder.revision: {COMMIT}" in done.stderr) is is_warned, done.stderr
