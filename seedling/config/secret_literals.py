"""Finds literal secrets in params.yaml, which git tracks and dvc.lock repeats, and references to environment variables.

A value is a secret if its name suggests it (`Authorization`, `api_key`, `sig`), if it has the format of a known
service's token, or if it is a long random string. A reference `${NAME}` to a variable is not a literal secret.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from seedling.errors import InputError

VARIABLE = re.compile(r"\$\{(\w*)\}")
BARE_VARIABLE = re.compile(r"\$[A-Za-z_]\w*")
# The keys of a source whose values are sent to its site.
REQUEST_KEYS = ("start", "url", "query", "body", "graphql", "variables", "headers")
SEEDLING_PREFIX = "SEEDLING_"
REMEDY = (
    "put it into an environment variable whose name begins with SEEDLING_, write ${SEEDLING_…} in its place, and "
    "revoke a secret that was committed"
)

STRONG_NAMES = re.compile(
    r"(?:^|_)(?:authorization|(?:[a-z]*)token|(?:[a-z]*)secret|passw(?:or)?d|pwd|passphrase|credentials?"
    r"|(?:api|access|private|auth|app|subscription|account|client|master|admin|service|licen[sc]e)_?key"
    r"|signature|session|session_?id|jsessionid|phpsessid|jwt|bearer|sas)(?:$|_)"
)
WEAK_NAMES = re.compile(r"(?:^|_)(?:key|sig|auth|cookie|sid|code|pass|hmac|login|appid|pin)(?:$|_)")
NOT_SECRET_NAMES = re.compile(
    r"(?:^|_)(?:(?:next|page|continuation|sync|start)_token|(?:sort|order|group|partition)_key)$"
)
HARMLESS_HEADERS = re.compile(
    r"^(?:accept.*|content_.*|user_agent|referer|origin|host|cache_control|pragma|from|dnt|te|range|if_.*|sec_.*"
    r"|x_requested_with)$"
)
KNOWN_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
    r"|xapp-[\w-]{10,}|[sr]k[-_](?:live|test|proj|ant)?[-_]?[\w-]{16,}|hf_[A-Za-z0-9]{16,}"
    r"|A(?:KIA|SIA)[A-Z0-9]{12,}|AIza[\w-]{20,}|ya29\.[\w-]{20,}"
    r"|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{16,}|SG\.[\w-]{10,}\.[\w-]{10,}|dop_v1_[a-f0-9]{32,}|shp[a-z]{2}_[a-fA-F0-9]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)|(?<!\d)\d{6,}:[A-Za-z0-9_-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
AUTHENTICATION = re.compile(r"^\s*(?:bearer|basic|token|apikey|digest|jwt)\s+\S{6,}", re.IGNORECASE)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
MAX_LINE_CHARACTERS = 500  # in a message; the search time is quadratic in the length of a word
MIN_RANDOM_CHARACTERS = 20
MIN_HEX_CHARACTERS = 32
MIN_BITS_PER_CHARACTER = 3.0
MIN_WEAK_CHARACTERS = 6


def variables_in(source: Mapping[Any, Any]) -> list[str]:
    """Return the names of the variables in the values that a source sends, each once, in order of appearance."""
    request_values = [source[key] for key in REQUEST_KEYS if key in source]
    return list(dict.fromkeys(name for _, text in _texts(request_values, ()) for name in VARIABLE.findall(text)))


def check_sources(sources: Any, path: object) -> None:
    """Raise InputError for the first literal secret in a source; the message has its key and never its value.

    sources: `scrape.sources` as parsed from YAML, before validation, since a validation error would print values.
    path: the file, for the message.
    """
    for number, source in enumerate(sources if isinstance(sources, list) else []):
        if isinstance(source, Mapping) and (keys := find_secret(source)):
            key_path = ".".join(["scrape", "sources", str(number), *keys])
            raise InputError(f"{path}, which git tracks, holds a secret in '{key_path}': {REMEDY}.")


def find_secret(source: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """Return the path of keys to the first literal secret in a source; None if it has none."""
    for keys, text in _texts(source, ()):
        key, name = keys[0], _snake_case(keys[-1])
        if key == "headers" and len(keys) > 1:
            has_secret = _header_has_secret(name, text)
        elif key in {"query", "body", "variables"} and len(keys) > 1:
            has_secret = _is_secret(name, text)
        elif "://" in text or key in {"url", "start"}:
            has_secret = _url_has_secret(text)
        else:
            has_secret = KNOWN_TOKENS.search(text) is not None
        if has_secret or _userinfo_has_secret(text):
            return keys
    return None


def mask_secrets(text: str) -> str:
    """Mask secrets in an excerpt of a file for a message: known tokens, and the rest of a line after a secret name."""
    lines = []
    for line in text.splitlines():
        line = line[:MAX_LINE_CHARACTERS]
        for match in re.finditer(r"([\w-]+)[\"']?\s*[:=]\s*[\"']?(?=\S)", line):
            name = _snake_case(match[1])
            if STRONG_NAMES.search(name) or WEAK_NAMES.search(name):
                line = line[: match.end()] + "…"
                break
        lines.append(KNOWN_TOKENS.sub("…", line))
    return "\n".join(lines)


def _texts(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each scalar in a nested value as text, with the keys that lead to it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, (*keys, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for item in value:
            yield from _texts(item, keys or ("",))
    elif value is not None and not isinstance(value, bool):
        yield keys or ("",), str(value)


def _snake_case(name: str) -> str:
    """Convert a name to snake case: `X-ApiKey` → `x_api_key`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def _is_secret(name: str, value: str) -> bool:
    """Whether a value is a literal secret. name: in snake case."""
    if KNOWN_TOKENS.search(value):
        return True
    rest = VARIABLE.sub("", value).strip()
    if not rest:
        return False
    if rest != value.strip():  # part of the value is a variable; the rest may be a scheme or a prefix
        return any(_is_mixed(word) for word in re.split(r"[\s,;:=\"']+", rest))
    if AUTHENTICATION.search(rest):
        return True
    if NOT_SECRET_NAMES.search(name):
        return False
    if STRONG_NAMES.search(name):
        return True
    if WEAK_NAMES.search(name):
        return (
            _is_mixed(rest)
            or UUID.fullmatch(rest) is not None
            or (len(rest) >= MIN_RANDOM_CHARACTERS and " " not in rest)
        )
    return _is_random(rest)


def _header_has_secret(name: str, value: str) -> bool:
    if HARMLESS_HEADERS.search(name):
        return KNOWN_TOKENS.search(value) is not None
    if name in {"cookie", "set_cookie"}:
        pairs = (pair.partition("=") for pair in value.split(";"))
        return any(_is_secret(_snake_case(key), content.strip()) for key, _, content in pairs)
    return _is_secret(name, value) or UUID.fullmatch(value.strip()) is not None


def _url_has_secret(address: str) -> bool:
    """Whether a URL has a secret in its query, its fragment, or in its path after a segment that names one."""
    if KNOWN_TOKENS.search(unquote(address)):
        return True
    path, *parameters = re.split(r"[?&;#]", address)
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if equals and _is_secret(_snake_case(unquote(name)), unquote(value)):
            return True
    segments = path.split("/")
    return any(
        STRONG_NAMES.search(_snake_case(name)) is not None and _is_secret("key", unquote(value))
        for name, value in itertools.pairwise(segments)
    )


def _userinfo_has_secret(text: str) -> bool:
    """Whether a URL has a password, or a token instead of a user name."""
    if "://" not in text:
        return False
    try:
        parts = urlsplit(text.strip())
        user, password = parts.username or "", parts.password or ""
    except ValueError:  # not a URL; the source that reads it reports this
        return "@" in text
    return bool(VARIABLE.sub("", password)) or _is_secret("key", unquote(user))


def _is_mixed(word: str) -> bool:
    """Whether a word has both letters and digits, and is not short."""
    return (
        len(word) >= MIN_WEAK_CHARACTERS
        and re.search(r"[A-Za-z]", word) is not None
        and re.search(r"\d", word) is not None
    )


def _is_random(word: str) -> bool:
    """Whether a word is long and looks random, as tokens do.

    The entropy of its characters, -Σ p log2 p, is at least MIN_BITS_PER_CHARACTER.
    """
    if re.fullmatch(r"[0-9a-fA-F]+", word):
        return len(word) >= MIN_HEX_CHARACTERS and re.search(r"[a-fA-F]", word) is not None
    if len(word) < MIN_RANDOM_CHARACTERS or re.fullmatch(r"[\w.+/=~-]+", word) is None or UUID.fullmatch(word):
        return False
    if not (re.search(r"\d", word) and re.search(r"[a-z]", word) and re.search(r"[A-Z]", word)):
        return False
    counts = Counter(word)
    bits = -sum(count / len(word) * math.log2(count / len(word)) for count in counts.values())
    return bits >= MIN_BITS_PER_CHARACTER
