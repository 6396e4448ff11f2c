"""The issuer's signing keys: one thread per key set fetches them, everybody else looks them up."""

import http.client
import io
import ipaddress
import json
import logging
import math
import os
import socket
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

logger = logging.getLogger(__name__)

TENANT = "{tenantid}"
"""Stands for the tenant's id in issuers and in the place of the keys, as in Entra's own documents."""

KEY_BITS = range(2048, 8192 + 1)
"""Shorter is weak; longer costs more CPU per token than a stranger may spend."""


class KeysUnavailable(Exception):
    """Nobody can tell now whether a key is the issuer's; ask again after `retry_after_seconds`."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("The issuer's signing keys cannot be read at the moment.")
        self.retry_after_seconds = retry_after_seconds


class FetchFailed(Exception):
    """No JWKS document could be read from a place; the message names the place and the reason."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key that may verify RS256 signatures."""

    kid: str
    public_key: RSAPublicKey
    issuer: str | None
    """The only issuer it signs for, perhaps with `{tenantid}`; None: any that publishes it."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The last good set. Replaced as a whole and never changed, so that readers need no lock."""

    keys: Mapping[str, VerificationKey]
    fetched_at: float
    """When its fetch began, on the monotonic clock."""


class KeySet:
    """The keys that one issuer publishes, fetched by a thread of its own and looked up by any number of others.

    The thread starts at the first question, so after gunicorn's fork. It fetches every `refresh`; after `cooldown`
    already when the last fetch failed or somebody asked for a key that is not there; never sooner. A fetch that fails
    leaves the last good set in use for `max_stale`. A caller waits for a fetch for `patience` at most, and not at all
    while the last one failed, so that forged tokens cannot tie up the server while the issuer hangs. `fetched` is told
    of each fetch whether it was any good.
    """

    def __init__(
        self,
        fetch: Callable[[], Mapping[str, object]],
        *,
        refresh: timedelta = timedelta(seconds=60),
        cooldown: timedelta = timedelta(seconds=30),
        max_stale: timedelta = timedelta(hours=24),
        patience: timedelta = timedelta(seconds=6),
        monotonic: Callable[[], float] = time.monotonic,
        fetched: Callable[[bool], None] | None = None,
    ) -> None:
        self._fetch = fetch
        self._fetched = fetched
        self._refresh = refresh.total_seconds()
        self._cooldown = min(cooldown, refresh).total_seconds()
        self._max_stale = max_stale.total_seconds()
        self._patience = patience.total_seconds()
        self._monotonic = monotonic
        self._begin()
        _key_sets.add(self)

    def _begin(self) -> None:
        """Know nothing and run no thread: so a key set begins, and so it begins again in a forked process."""
        self._known = _Known({}, -math.inf)
        self._changed = threading.Condition()  # guards all that follows
        self._thread: threading.Thread | None = None
        self._attempted_at = -math.inf
        self._started = self._ended = 0  # fetches
        self._asked = self._failed = False

    def current(self, kid: str) -> VerificationKey | None:
        """Return a key of the last good set, without waiting; None when it is not there or the set is too old.

        A key that a refresh brings again unchanged stays the same object.
        """
        known = self._known
        if self._monotonic() - known.fetched_at > self._max_stale:
            return None
        return known.keys.get(kid)

    def get(self, kid: str) -> VerificationKey | None:
        """Return the issuer's key of this id, or None when the issuer has no such key.

        A known key is returned at once. For another a fetch is awaited, if one is running or the cool-down allows it.

        Raises:
            KeysUnavailable: the key is not known, and the issuer cannot be asked.
        """
        key = self.current(kid)
        if key is not None:
            return key
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="signing-keys", daemon=True)
                self._thread.start()
            self._asked = True
            self._changed.notify_all()
            awaited = self._started + (self._due_in() <= 0)
            if not self._failed:
                self._changed.wait_for(lambda: self._ended >= awaited, self._patience)
            key = self.current(kid)
            stale = self._monotonic() - self._known.fetched_at > self._max_stale
            if key is None and (self._failed or self._ended < awaited or stale):
                raise KeysUnavailable(math.ceil(max(1, self._attempted_at + self._cooldown - self._monotonic())))
            return key

    def _due_in(self) -> float:
        """Return the seconds until the next fetch; none are left when it is 0 or less."""
        pause = self._cooldown if self._asked or self._failed else self._refresh
        return self._attempted_at + pause - self._monotonic()

    def _run(self) -> None:
        while True:
            with self._changed:
                while (pause := self._due_in()) > 0:
                    self._changed.wait(pause)
                self._asked = False
                self._attempted_at = self._monotonic()
                self._started += 1
            failed = not self._renew()
            if self._fetched:
                self._fetched(not failed)
            with self._changed:
                self._failed = failed
                self._ended += 1
                self._changed.notify_all()

    def _renew(self) -> bool:
        """Replace the set by what the issuer publishes now; False, and the old one stays, when that is no good."""
        try:
            keys = usable_keys(self._fetch())
        except Exception as error:  # whatever it is, it must not end the thread
            if not self._failed:
                logger.warning("Signing keys cannot be fetched, those known stay in use: %.300r", error)
            return False
        if self._failed:
            logger.warning("Signing keys can be fetched again.")
        before = self._known.keys
        keys = {kid: before[kid] if before.get(kid) == key else key for kid, key in keys.items()}
        self._known = _Known(keys, self._attempted_at)
        return True


_key_sets: weakref.WeakSet[KeySet] = weakref.WeakSet()


def _begin_again() -> None:
    """Let a forked process start its own threads: those of its parent, and the locks they held, are not in it."""
    for key_set in _key_sets:
        key_set._begin()


os.register_at_fork(after_in_child=_begin_again)


class KeyDirectory:
    """The key set of every tenant: one for each when the place names the tenant, else one for all.

    So a key that one tenant's issuer publishes verifies no token of another tenant, whatever its id.
    `location` is what `fetch_jwks` reads, with `{tenantid}` or without; `tenants` are those served, None means any.
    `key_set` makes a key set from its fetch: `partial(KeySet, refresh=...)` brings other times.

    Raises:
        ValueError: keys must not be read from `location`, or it names the tenant and any is served.
    """

    def __init__(
        self,
        location: str,
        *,
        tenants: frozenset[str] | None,
        key_set: Callable[[Callable[[], Mapping[str, object]]], KeySet] = KeySet,
    ) -> None:
        check_location(location)
        if TENANT in location and tenants is None:
            raise ValueError(f"signing keys at {location} want a list of the tenants served")
        self._location = location
        places = {location.replace(TENANT, tenant_id) for tenant_id in tenants or ("",)}
        self._sets = {place: key_set(partial(fetch_jwks, place)) for place in places}

    def for_tenant(self, tenant_id: str) -> KeySet:
        """Return the key set for a tenant that is served."""
        return self._sets[self._location.replace(TENANT, tenant_id)]


def usable_keys(document: Mapping[str, object]) -> dict[str, VerificationKey]:
    """Return the keys of a JWKS document that may verify RS256 signatures, by id; the others are passed over.

    Of two with the same id the first counts, as in most libraries.

    Raises:
        ValueError: it is no JWKS document, or has no usable key.
    """
    keys: dict[str, VerificationKey] = {}
    for key in map(_usable_key, _published(document)):
        if key is not None:
            keys.setdefault(key.kid, key)
    if not keys:
        raise ValueError("the JWKS document has no RSA key for RS256 signatures")
    return keys


def _usable_key(jwk: object) -> VerificationKey | None:
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or jwk.get("alg", "RS256") != "RS256":
        return None
    kid, issuer = jwk.get("kid"), jwk.get("issuer")
    if not isinstance(kid, str) or not kid or not isinstance(issuer, str | None):
        return None
    try:
        public_key = RSAAlgorithm.from_jwk({name: jwk[name] for name in ("kty", "n", "e")})  # never a private part
    except (jwt.InvalidKeyError, KeyError, TypeError, ValueError):
        return None
    if not isinstance(public_key, RSAPublicKey) or public_key.key_size not in KEY_BITS:
        return None
    return VerificationKey(kid, public_key, issuer)


def check_location(location: str) -> None:
    """Refuse a place that keys must not come from: they are trusted as the connection is.

    Raises:
        ValueError: it is neither https, nor http to this machine, nor a file.
    """
    url = urlsplit(location)
    allowed = {"https": bool(url.hostname), "http": _is_loopback(url.hostname), "file": url.netloc in {"", "localhost"}}
    if not allowed.get(url.scheme, "://" not in location):
        raise ValueError(f"signing keys are read by https, by http from this machine, or from a file, not: {location}")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def fetch_jwks(
    location: str, *, timeout: timedelta = timedelta(seconds=5), max_bytes: int = 512 * 1024
) -> Mapping[str, object]:
    """Read the JWKS document at an http(s) URL, a file URL or a path.

    Redirects are not followed. Proxies are taken from the environment, except for this machine. `timeout` bounds the
    connection, the TLS handshake, and the whole answer however slowly it trickles in; name resolution is not bounded.

    Raises:
        FetchFailed: it cannot be read in time, is longer than `max_bytes`, or is no JWKS document.
        ValueError: `check_location` refuses the place.
    """
    check_location(location)
    url = urlsplit(location)
    try:
        if url.scheme in {"http", "https"}:
            body = _read_url(location, timeout.total_seconds(), max_bytes + 1)
        else:
            path = urllib.request.url2pathname(url.path) if url.scheme == "file" else location
            with open(path, "rb") as file:
                body = file.read(max_bytes + 1)
        return _document(body, max_bytes)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise FetchFailed(f"{location}: {error}") from error


def _document(body: bytes, max_bytes: int) -> Mapping[str, object]:
    if len(body) > max_bytes:
        raise ValueError(f"longer than {max_bytes} bytes")
    document: Mapping[str, object] = json.loads(body)
    _published(document)
    return document


def _published(document: object) -> list[object]:
    match document:
        case {"keys": list(published)}:
            return published
    raise ValueError('not a JWKS document: an object with a list "keys" is wanted')


def _read_url(url: str, timeout_seconds: float, most_bytes: int) -> bytes:
    loopback = _is_loopback(urlsplit(url).hostname)
    opener = urllib.request.OpenerDirector()  # build_opener() would add redirects, files and FTP
    opener.add_handler(urllib.request.ProxyHandler({} if loopback else None))
    opener.add_handler(_TimedHandler(time.monotonic() + timeout_seconds))
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    opener.addheaders = [("Accept", "application/json"), ("User-Agent", "graph-presence")]
    try:
        with opener.open(url, timeout=timeout_seconds) as response:
            body: bytes = response.read(most_bytes)
            return body
    except urllib.error.HTTPError as error:
        error.close()
        raise


class _TimedHandler(urllib.request.AbstractHTTPHandler):
    """Opens http and https; every answer must have arrived by a deadline on time.monotonic()."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connection, http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connection, http.client.HTTPSConnection), request)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _connection(self, kind: type[http.client.HTTPConnection], host: str, **options: Any) -> Any:
        deadline = self._deadline

        class TimedResponse(http.client.HTTPResponse):
            def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
                super().__init__(sock, *args, **options)
                self.fp.close()  # which has read nothing yet
                self.fp = io.BufferedReader(_TimedSocket(sock, deadline))

        connection = kind(host, **options)
        connection.response_class = TimedResponse
        return connection


class _TimedSocket(io.RawIOBase):
    """What HTTPResponse reads from a socket, until a deadline: a socket's own timeout starts anew with every byte."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._bytes = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the answer took too long")
        self._socket.settimeout(remaining)
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()
