"""Sends a run's events to a webhook or a Prefect notification block, as `notify` in params.yaml sets it.

A delivery has a short timeout and up to three attempts. A failed delivery is logged and does not fail the run.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
from jinja2 import TemplateError

from seedling.config.monitoring_params import NotifyParams
from seedling.config.public_addresses import is_public
from seedling.errors import InputError
from seedling.flows.events import EVENT_NAMES, TITLES, RunEvent
from seedling.flows.message_template import render

MAX_ATTEMPTS = 3
PAUSE_SECONDS = 1.0
MAX_MESSAGE_CHARACTERS = 4000
DEFAULT_TEMPLATE = """\
{{ title }}: {{ workspace }}
{{ sentence }}
{%- if result %}
Model in use: {{ result }}{% endif %}
Run: {{ run }}
{%- for name, address in links.items() %}
{{ name }}: {{ address }}{% endfor %}
"""


class DeliveryError(Exception):
    """A message was not delivered; the text contains no secret."""


def notify(
    workspace: Path, params: NotifyParams | None, events: Sequence[RunEvent], context: Mapping[str, Any]
) -> list[str]:
    """Sends the events that params select. Returns one sentence per failed delivery.

    context: `run`, the run's name; `links`, page → address; `result`, the headline or an empty string.
    """
    if params is None:
        return []
    problems = []
    for event in events:
        if event.kind not in params.events:
            continue
        try:
            message = rendered(workspace, params, event, context)
        except InputError as error:
            problems.append(str(error))
            continue
        for deliver in (_to_webhook, _to_block):
            try:
                deliver(params, event, message, {"workspace": workspace.resolve().name, **context})
            except DeliveryError as error:
                problems.append(f"The notification '{EVENT_NAMES[event.kind]}' was not delivered: {error}.")
    return problems


def rendered(workspace: Path, params: NotifyParams, event: RunEvent, context: Mapping[str, Any]) -> str:
    """Renders the message of one event. Raises InputError if the template is not valid."""
    values = {
        "title": TITLES[event.kind],
        "event": EVENT_NAMES[event.kind],
        "kind": event.kind,
        "sentence": event.sentence,
        "details": event.details,
        "workspace": workspace.resolve().name,
        **{"run": "", "links": {}, "result": "", **context},
    }
    try:
        return render(params.template or DEFAULT_TEMPLATE, values).strip()[:MAX_MESSAGE_CHARACTERS]
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise InputError(
            f"params.yaml: notify.template cannot be rendered: {error}. docs/monitoring.md lists its values."
        ) from error


def _to_webhook(params: NotifyParams, event: RunEvent, message: str, context: Mapping[str, Any]) -> None:
    """POSTs {text, event, workspace, run, …} as JSON; chat services display the key `text`. Raises DeliveryError."""
    if params.webhook is None:
        return
    variable = params.webhook[2:-1]
    address = os.environ.get(variable, "")
    if not address:
        raise DeliveryError(f"the environment variable {variable} is not set in the environment of the run")
    body = {
        "text": message,
        "event": EVENT_NAMES[event.kind],
        "sentence": event.sentence,
        "details": event.details,
        **{name: context.get(name) for name in ("workspace", "run", "links", "result")},
    }
    problem = ""
    for number in range(MAX_ATTEMPTS):
        if number:
            time.sleep(PAUSE_SECONDS * number)
        try:
            status = _post(address, body, params)
        except (httpx.HTTPError, OSError) as error:
            problem = f"{type(error).__name__} at {variable}"
            continue
        except (httpx.InvalidURL, ValueError) as error:
            raise DeliveryError(f"{variable} does not hold an http or https address") from error
        if status < 300:
            return
        problem = f"{variable} answered {status}"
        if status < 500 and status != 429:
            break
    raise DeliveryError(problem)


def _post(address: str, body: Mapping[str, Any], params: NotifyParams) -> int:
    """Returns the response's status. The host is resolved once and checked, so that its address cannot change."""
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an http or https address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    resolved = [str(entry[4][0]) for entry in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)]
    if not params.allow_private and not all(is_public(ip_address) for ip_address in resolved):
        raise DeliveryError("the webhook has a private address; `notify.allow_private: true` allows it")
    pinned = f"[{resolved[0]}]" if ":" in resolved[0] else resolved[0]
    target = urlunsplit((parts.scheme, f"{pinned}:{port}", parts.path or "/", parts.query, ""))
    host = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    certificates = httpx.create_ssl_context(trust_env=True)  # without a proxy, which would resolve the host again
    with httpx.Client(
        timeout=params.timeout_seconds, follow_redirects=False, trust_env=False, verify=certificates
    ) as client:
        answer = client.post(target, json=body, headers={"Host": host}, extensions={"sni_hostname": parts.hostname})
    return answer.status_code


def _to_block(params: NotifyParams, event: RunEvent, message: str, context: Mapping[str, Any]) -> None:
    """Sends through a Prefect notification block. Raises DeliveryError."""
    if params.block is None:
        return
    from prefect.blocks.core import Block

    try:
        block: Any = Block.load(params.block)
        block.notify(message, subject=f"{TITLES[event.kind]}: {context['workspace']}")
    except Exception as error:  # a block may use any library, and its error may contain its secret
        raise DeliveryError(f"block {params.block}: {type(error).__name__}") from error
