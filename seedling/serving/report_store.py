"""Copies the workspace's pages to S3 or another store after each run, as `reports.store` in params.yaml sets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seedling.errors import InputError
from seedling.extras import install_command
from seedling.serving.report_links import PAGES, slug
from seedling.workspace import Workspace

UPLOAD_TIMEOUT_SECONDS = 20
STORE_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "azure",
    "az": "azure",
    "ssh": "ssh",
    "sftp": "ssh",
}


def upload_pages(workspace: Path, store: str) -> list[str]:
    """Copies the pages to `<store>/<workspace>/`. Returns their addresses.

    Raises InputError if the store's library is not installed, and the library's own errors if the store is unreachable.
    """
    from fsspec.core import url_to_fs

    scheme = store.partition("://")[0]
    try:
        filesystem, root = url_to_fs(store, **_options(scheme))
    except (ImportError, ValueError) as error:
        extra = STORE_EXTRAS.get(scheme)
        remedy = install_command(extra) if extra else "use s3://, gs:// or az://"
        raise InputError(f"reports.store: {store} cannot be used ({error}): {remedy}.") from error
    folder = f"{root.rstrip('/')}/{slug(workspace.resolve().name)}"
    uploaded = []
    for name in PAGES.values():
        path = Workspace(workspace).reports / name
        if path.is_file():
            filesystem.makedirs(folder, exist_ok=True)
            filesystem.pipe_file(f"{folder}/{name}", path.read_bytes(), **_content_type(scheme))
            uploaded.append(f"{store}/{slug(workspace.resolve().name)}/{name}")
    return uploaded


def _options(scheme: str) -> dict[str, Any]:
    if scheme not in {"s3", "s3a"}:
        return {}
    timeouts = {"connect_timeout": UPLOAD_TIMEOUT_SECONDS / 2, "read_timeout": UPLOAD_TIMEOUT_SECONDS}
    return {"config_kwargs": {**timeouts, "retries": {"max_attempts": 2}}, "skip_instance_cache": True}


def _content_type(scheme: str) -> dict[str, str]:
    """The content type, without which a browser saves the page instead of showing it."""
    return {"ContentType": "text/html; charset=utf-8"} if scheme in {"s3", "s3a"} else {}
