"""API keys: read from a file and the environment, compared in constant time, never shown.

A line of the file, or a part of ``MTCP_API_KEYS`` (separated by ``,``), is ``KEY`` or ``label: KEY``; the
label stands for the key in the log and the metrics. In the file ``#`` starts a comment.
"""

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mtcp_serve.errors import SettingsError, UnauthorizedError
from mtcp_serve.server.settings import Settings

UNNAMED = "unnamed"
"""Label of a key that has none."""
_SHORTEST = 16
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what RFC 6750 allows in a bearer token
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger(__name__)


class ApiKeys:
    """The keys of ``settings``; without any, requests need none.

    Only digests are kept.

    Raises:
        SettingsError: the file cannot be read, holds no key, or one that is malformed or too short.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._labels = _load(settings)

    def __bool__(self) -> bool:
        """Whether requests need a key."""
        return bool(self._labels)

    def reload(self) -> None:
        """Read the file again.

        Raises:
            SettingsError: it cannot be used; the keys stay as they were.
        """
        self._labels = _load(self._settings)

    def check(self, authorization: str | None, api_key: str | None) -> str:
        """The label of the key in the headers ``Authorization`` and ``X-API-Key``.

        Every key is compared, and digests rather than keys, so that the time tells nothing of them.

        Raises:
            UnauthorizedError: neither holds a key of this server.
        """
        scheme, _, token = (authorization or "").partition(" ")
        given = [token.strip()] if scheme.lower() == "bearer" else []
        if api_key:
            given.append(api_key.strip())
        found = None
        for text in given:
            digest = _digest(text)
            for known, label in self._labels.items():
                if hmac.compare_digest(known, digest):
                    found = label
        if found is None:
            raise UnauthorizedError("the API key is wrong" if given else "the request has no API key")
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _load(settings: Settings) -> dict[bytes, str]:
    labels: dict[bytes, str] = {}
    for place, entry in _entries(settings):
        label, colon, key = entry.rpartition(":")
        label, key = label.strip() if colon else UNNAMED, key.strip()
        if not _LABEL.fullmatch(label):
            raise SettingsError(f"{place}: a label is letters, digits, '.', '_' and '-', 64 at most")
        if not _KEY.fullmatch(key):
            raise SettingsError(f"{place}: an API key is letters, digits and any of ._~+/=-")
        if len(key) < _SHORTEST:
            raise SettingsError(
                f"{place}: the API key has {len(key)} characters, it needs {_SHORTEST}; "
                'python -c "import secrets; print(secrets.token_urlsafe(32))" makes a good one'
            )
        labels[_digest(key)] = label
    return labels


def _entries(settings: Settings) -> Iterator[tuple[str, str]]:
    """Each key as it was written, and a name of its place for messages."""
    if settings.api_keys is not None:
        given = settings.api_keys.get_secret_value().split(",")
        yield from _filled("MTCP_API_KEYS", "part", given)
    if settings.api_keys_file is not None:
        lines = (line.partition("#")[0] for line in _read(settings.api_keys_file).splitlines())
        yield from _filled(str(settings.api_keys_file), "line", lines)


def _filled(source: str, unit: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    empty = True
    for number, text in enumerate(texts, 1):
        if text.strip():
            empty = False
            yield f"{source}, {unit} {number}", text.strip()
    if empty:
        raise SettingsError(f"{source} holds no API key; without one nobody would be authorized")


def _read(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o004:
            _log.warning("every user of this machine can read the API keys in %s; chmod 600 helps", path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the API keys in {path} cannot be read: {error}") from error
