"""Inserts the values of environment variables into requests to a source's own site, and masks them in answers."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from seedling.config.secret_literals import BARE_VARIABLE, REMEDY, SEEDLING_PREFIX, VARIABLE, find_secret, variables_in
from seedling.config.sources import ApiSource, CrawlSource, SequenceSource
from seedling.errors import InputError
from seedling.terminal.notices import state_once

IN_ADDRESS = re.compile(r"(?:\$|%24)(?:\{|%7B)(\w+)(?:\}|%7D)", re.IGNORECASE)  # also as libraries quote it
MASK_IN_ADDRESS = "$%7B{}%7D"
MIN_CHARACTERS = 4  # of a value that is masked in addresses
MIN_MIXED_CHARACTERS, MIN_PLAIN_CHARACTERS = 6, 12  # of a value that is masked in texts, with and without digits
Web = CrawlSource | SequenceSource | ApiSource


def addresses_of(source: Web) -> list[str]:
    """Return the source's start addresses."""
    return source.start if isinstance(source, CrawlSource) else [source.url]


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def check_secrets(source: Web) -> None:
    """Raise InputError for a literal secret, and for a variable that is forbidden, not set, or part of a host."""
    _check_literals(source)
    where = f"params.yaml: scrape.sources: the source at {addresses_of(source)[0]}"
    for name in variables_in(source.model_dump()):
        _check_variable(name, source, where)
        if not name.startswith(SEEDLING_PREFIX):
            state_once(
                f"The environment variable {name} is sent to {origin_of(addresses_of(source)[0])}, as `allow_env` in "
                "params.yaml allows."
            )


def _check_literals(source: Web) -> None:
    if secret_path := find_secret(source.model_dump(exclude_defaults=True)):
        raise InputError(
            f"params.yaml, which git tracks, holds a secret in '{'.'.join(secret_path)}' of a source: {REMEDY}."
        )
    where = f"params.yaml: scrape.sources: the source at {addresses_of(source)[0]}"
    for address in addresses_of(source):
        if VARIABLE.search(address.partition("://")[0]) or VARIABLE.search(urlsplit(address).netloc):
            raise InputError(
                f"{where} has a variable in its host: write the host out, and use variables only in what follows it."
            )
    if isinstance(source, ApiSource):
        for name, value in source.headers.items():
            if bare := BARE_VARIABLE.search(value):
                raise InputError(f"{where}: the header {name} names {bare[0]}: write ${{{bare[0][1:]}}}.")


def _check_variable(name: str, source: Web, where: str) -> None:
    if not name.startswith(SEEDLING_PREFIX) and name not in source.allow_env:
        raise InputError(
            f"{where} reads the environment variable {name or '${}'}: only variables whose names begin with "
            f"{SEEDLING_PREFIX} may be read, and those that the source lists, as in `allow_env: [{name or 'NAME'}]`."
        )
    if name not in os.environ:
        raise InputError(f"{where} needs the environment variable {name}, which is not set.")
    if re.search(r"[\x00-\x1f\x7f]", os.environ[name]):
        raise InputError(
            f"{where}: the environment variable {name} holds a line break or another control character: set it again."
        )


@dataclass(frozen=True)
class SecretValues:
    """A source's variables with their values, and the origins that they are sent to: no other site gets a value.

    in_addresses: the variables of the configured addresses; other variables in a page's links are not replaced.
    """

    values: Mapping[str, str]
    in_addresses: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, source: Web) -> SecretValues:
        """Read the values from the environment."""
        names = variables_in(source.model_dump())
        in_addresses = variables_in({"start": addresses_of(source), "query": getattr(source, "query", {})})
        values = {name: os.environ[name] for name in names if name in os.environ}
        return cls(values, frozenset(in_addresses), frozenset(map(origin_of, addresses_of(source))))

    def __bool__(self) -> bool:
        return bool(self.values)

    def sent_to(self, url: str) -> bool:
        """Whether requests to this address carry the values."""
        return bool(self.values) and origin_of(url) in self.origins

    def in_address(self, url: str) -> str:
        """Return the address with the values of its variables."""
        quoted = {name: quote(self.values[name], safe="") for name in self.in_addresses & self.values.keys()}
        return IN_ADDRESS.sub(lambda match: quoted.get(match[1], match[0]), url)

    def in_header(self, value: str) -> str:
        """Return a header's value with the values of its variables."""
        return VARIABLE.sub(lambda match: self.values.get(match[1], match[0]), value)

    def in_json(self, body: bytes) -> bytes:
        """Return a JSON body with the values of its variables."""
        return VARIABLE.sub(
            lambda match: json.dumps(self.values[match[1]])[1:-1] if match[1] in self.values else match[0],
            body.decode("utf-8"),
        ).encode("utf-8")

    def masked_address(self, url: str) -> str:
        """Return the address with variable names instead of values."""
        for name, value in self._longest_first():
            if len(value) >= MIN_CHARACTERS:
                for form in {quote(value, safe=""), quote_plus(value), quote(value), value}:
                    url = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", MASK_IN_ADDRESS.format(name), url)
        return url

    def masked(self, text: str) -> str:
        """Return the text with variable names instead of the values that look like secrets, in any quoting."""
        for form, name in self._forms():
            text = text.replace(form, f"${{{name}}}")
        return text

    def masked_bytes(self, body: bytes) -> bytes:
        """Mask an answer's body, as `masked`."""
        for form, name in self._forms():
            body = body.replace(form.encode(), b"${%s}" % name.encode())
        return body

    def masked_values(self, value: Any) -> Any:
        """Mask each text in a JSON value, as `masked`."""
        if isinstance(value, str):
            return self.masked(value)
        if isinstance(value, dict):
            return {self.masked(key): self.masked_values(member) for key, member in value.items()}
        return [self.masked_values(member) for member in value] if isinstance(value, list) else value

    def _longest_first(self) -> list[tuple[str, str]]:
        return sorted(self.values.items(), key=lambda pair: (-len(pair[1]), pair[0]))

    def _forms(self) -> list[tuple[str, str]]:
        """Return (quoted value, variable name) for each value that looks like a secret.

        A short plain word does not: masked, it would be removed from the rows' texts.
        """
        forms = []
        for name, value in self._longest_first():
            mixed = re.search(r"\d", value) is not None and re.search(r"[^\W\d]", value) is not None
            if " " not in value and len(value) >= (MIN_MIXED_CHARACTERS if mixed else MIN_PLAIN_CHARACTERS):
                quoted = (value, quote(value, safe=""), quote_plus(value), html.escape(value), json.dumps(value)[1:-1])
                forms += [(form, name) for form in dict.fromkeys((*quoted, value.replace("/", r"\/")))]
        return forms
