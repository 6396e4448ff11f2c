import json
import logging
import os
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import RSAAlgorithm

from app.auth.keys import FetchFailed, KeyDirectory, KeySet, KeysUnavailable, check_location, fetch_jwks, usable_keys
from app.emulator.keys import SigningKey, UnusableKeyFile, load_or_make_key
from tests.tokens import ABSENT, OTHER_TENANT, TENANT, USER, ec_key, jwks, rsa_key

A, B, C = rsa_key("a"), rsa_key("b"), rsa_key("c")
REFRESH, COOLDOWN, MAX_STALE = 60, 30, 24 * 3600
SOON = 10
"""Seconds after which a test that waits for another thread gives up."""


class Issuer:
    """A key server that answers, fails or hangs as a test says, on a clock that the test moves."""

    def __init__(self, *published: Any) -> None:
        self.published: Any = jwks(*published)
        self.moment = 1000.0
        self.fetches = 0
        self.fetching = threading.Semaphore(0)  # released when a fetch begins
        self.answering = threading.Event()
        self.answering.set()

    def fetch(self) -> Any:
        self.fetches += 1
        self.fetching.release()
        assert self.answering.wait(SOON)
        if isinstance(self.published, BaseException):
            raise self.published
        return self.published

    def key_set(self, **options: Any) -> KeySet:
        return KeySet(self.fetch, monotonic=lambda: self.moment, **options)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.answering.clear()
        try:
            yield
        finally:
            self.answering.set()

    def began_a_fetch(self) -> bool:
        return self.fetching.acquire(timeout=SOON)


def wake(key_set: KeySet) -> None:
    """Let the thread look at the clock, which the test has moved."""
    with key_set._changed:
        key_set._changed.notify_all()


def eventually(is_true: Callable[[], bool]) -> bool:
    """Wait for what another thread is about to do."""
    for _ in range(SOON * 200):
        if is_true():
            return True
        threading.Event().wait(0.005)
    return False


def refused(key_set: KeySet, kid: str) -> int:
    """Return the seconds after which to ask again."""
    with pytest.raises(KeysUnavailable) as refusal:
        key_set.get(kid)
    return refusal.value.retry_after_seconds


# Looking keys up


def test_the_first_question_waits_for_the_first_fetch() -> None:
    issuer = Issuer(A, B)
    key_set = issuer.key_set()
    assert (issuer.fetches, key_set.current("a")) == (0, None)
    found = key_set.get("a")
    assert found is not None
    assert (found.kid, found.issuer, found.public_key) == ("a", None, A.private.public_key())
    assert key_set.get("b") is not found
    assert key_set.get("c") is None
    assert issuer.fetches == 1


def test_all_first_questions_share_one_fetch() -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    with ThreadPoolExecutor(32) as pool, issuer.hanging():
        answers = [pool.submit(key_set.get, kid) for kid in ["a", "b"] * 16]
        assert issuer.began_a_fetch()
        issuer.answering.set()
        assert [answer.result(SOON) is not None for answer in answers] == [True, False] * 16
    assert issuer.fetches == 1


def test_a_first_question_is_answered_in_bounded_time_while_the_issuer_hangs() -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set(patience=timedelta(milliseconds=1))
    with issuer.hanging():
        for _ in range(2):
            assert 1 <= refused(key_set, "a") <= COOLDOWN


def test_the_patience_leaves_less_than_15_seconds_by_default() -> None:
    assert KeySet(lambda: jwks(A))._patience < 15


def test_known_keys_are_answered_while_the_issuer_hangs() -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set(patience=timedelta(milliseconds=1))
    known = key_set.get("a")
    issuer.moment += REFRESH
    with issuer.hanging():
        assert refused(key_set, "unknown")
        assert issuer.began_a_fetch()
        assert issuer.began_a_fetch()
        assert key_set.get("a") is key_set.current("a") is known


def test_known_keys_are_answered_without_the_lock() -> None:
    key_set = Issuer(A).key_set()
    known = key_set.get("a")
    with key_set._changed, ThreadPoolExecutor(1) as pool:
        assert pool.submit(key_set.get, "a").result(SOON) is known


# When it fetches


@pytest.mark.parametrize(("after", "fetches"), [(COOLDOWN - 0.001, 1), (COOLDOWN, 2)])
def test_an_unknown_kid_causes_a_fetch_once_the_cooldown_is_over(after: float, fetches: int) -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    key_set.get("a")
    issuer.published = jwks(A, B)
    issuer.moment += after
    assert (key_set.get("b") is not None) is (fetches == 2)
    assert issuer.fetches == fetches


def test_any_number_of_unknown_kids_cause_one_fetch_in_a_cooldown() -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    key_set.get("a")
    issuer.moment += COOLDOWN
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(key_set.get, map(str, range(500)))) == [None] * 500
    assert issuer.fetches == 2


def test_a_kid_asked_for_during_a_fetch_is_found_by_it() -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    key_set.get("a")
    assert issuer.began_a_fetch()
    issuer.moment += COOLDOWN
    issuer.published = jwks(A, B)
    with ThreadPoolExecutor(2) as pool, issuer.hanging():
        first = pool.submit(key_set.get, "unknown")
        assert issuer.began_a_fetch()
        second = pool.submit(key_set.get, "b")
        issuer.answering.set()
        assert first.result(SOON) is None
        assert second.result(SOON) is not None
    assert issuer.fetches == 2


def test_a_fetch_that_began_before_the_question_does_not_answer_it_when_another_is_due() -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    key_set.get("a")
    assert issuer.began_a_fetch()
    with ThreadPoolExecutor(1) as pool, issuer.hanging():
        issuer.moment += REFRESH
        wake(key_set)
        assert issuer.began_a_fetch()
        issuer.moment += COOLDOWN  # it hangs so long that the next one is due
        question = pool.submit(key_set.get, "b")
        assert eventually(lambda: key_set._asked)
        issuer.answering.set()
        assert question.result(SOON) is None
    assert issuer.fetches == 3


@pytest.mark.parametrize(("after", "fetches"), [(REFRESH - 0.001, 1), (REFRESH, 2)])
def test_the_set_is_fetched_again_when_it_is_as_old_as_refresh(after: float, fetches: int) -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    key_set.get("a")
    issuer.moment += after
    assert (key_set._due_in() <= 0) is (fetches == 2)
    wake(key_set)
    assert eventually(lambda: issuer.fetches == fetches)


def test_it_is_refreshed_though_nobody_asks() -> None:
    issuer = Issuer(A)
    KeySet(issuer.fetch, refresh=timedelta(milliseconds=1)).get("a")
    assert all(issuer.began_a_fetch() for _ in range(5))


def test_a_withdrawn_key_is_gone_after_a_refresh() -> None:
    issuer = Issuer(A, B)
    key_set = issuer.key_set()
    key_set.get("a")
    issuer.published = jwks(B)
    issuer.moment += REFRESH
    assert key_set.get("c") is None
    assert key_set.current("a") is None
    assert key_set.get("a") is None


def test_an_unchanged_key_stays_the_same_object() -> None:
    issuer = Issuer(A, B.jwk(issuer="https://a.test"), C)
    key_set = issuer.key_set()
    before = [key_set.get(kid) for kid in "abc"]
    issuer.published = jwks(A, B.jwk(issuer="https://b.test"), A.named("c"))
    issuer.moment += REFRESH
    key_set.get("unknown")
    assert [key_set.current(kid) is old for kid, old in zip("abc", before, strict=True)] == [True, False, False]


# When the issuer fails

FAILURES: list[Any] = [
    OSError("connection refused"),
    FetchFailed("timed out"),
    RecursionError(),
    MemoryError(),
    None,
    [],
    {},
    {"keys": {}},
    {"keys": None},
    jwks(),
    jwks({"kty": "EC", "kid": "a"}),
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_failed_fetch_keeps_the_last_good_set(failure: Any) -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    known = key_set.get("a")
    issuer.published = failure
    issuer.moment += REFRESH
    assert refused(key_set, "b") == COOLDOWN
    assert key_set.get("a") is known


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_first_fetch_that_fails_makes_all_keys_unavailable_for_a_cooldown(failure: Any) -> None:
    issuer = Issuer()
    issuer.published = failure
    key_set = issuer.key_set()
    assert refused(key_set, "a") == COOLDOWN
    issuer.moment += COOLDOWN - 1.5
    assert refused(key_set, "a") == 2
    assert issuer.fetches == 1


def test_nobody_waits_for_an_issuer_that_failed_last_time() -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set(patience=timedelta(hours=1))
    key_set.get("a")
    issuer.published = OSError()
    issuer.moment += REFRESH
    refused(key_set, "b")
    with issuer.hanging():
        issuer.moment += COOLDOWN
        assert refused(key_set, "b") <= COOLDOWN
        assert eventually(lambda: issuer.fetches == 3)
        assert refused(key_set, "b") == COOLDOWN


def test_after_a_failure_it_tries_again_after_the_cooldown_though_nobody_asks() -> None:
    issuer = Issuer()
    issuer.published = OSError()
    key_set = KeySet(issuer.fetch, refresh=timedelta(hours=1), cooldown=timedelta(milliseconds=1))
    refused(key_set, "a")
    assert all(issuer.began_a_fetch() for _ in range(5))
    issuer.published = jwks(A)
    assert eventually(lambda: key_set.current("a") is not None)


@pytest.mark.parametrize(("beyond", "known"), [(0, True), (0.001, False)])
def test_known_keys_outlive_an_outage_for_max_stale(beyond: float, known: bool) -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    key_set.get("a")
    issuer.published = OSError()
    issuer.moment += MAX_STALE + beyond
    if known:
        assert key_set.get("a") is key_set.current("a") is not None
    else:
        assert key_set.current("a") is None
        assert refused(key_set, "a") == COOLDOWN


def test_a_set_that_is_too_old_before_it_is_refreshed_is_unavailable_not_unknown() -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set(max_stale=timedelta(seconds=10))
    key_set.get("a")
    issuer.moment += 11
    assert refused(key_set, "a") == COOLDOWN - 11


def test_failure_and_recovery_are_each_logged_once_and_show_no_key(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer(A)
    key_set = issuer.key_set()
    key_set.get("a")
    caplog.set_level(logging.INFO)
    for document in (FetchFailed("https://keys.test: timed out\nforged line"), jwks(), jwks(A, B)):
        issuer.published = document
        issuer.moment += REFRESH
        before = key_set._ended
        with pytest.raises(KeysUnavailable):
            key_set.get("b")
        assert eventually(lambda before=before: key_set._ended > before)  # type: ignore[misc]
    assert key_set.get("b") is not None
    failed, recovered = (record.getMessage() for record in caplog.records)
    assert failed == (
        "Signing keys cannot be fetched, those known stay in use: "
        "FetchFailed('https://keys.test: timed out\\nforged line')"
    )
    assert recovered == "Signing keys can be fetched again."


FORK = """
import os, sys
from app.auth.keys import KeySet
from tests.tokens import jwks, rsa_key
fetches = []
def fetch():
    fetches.append(os.getpid())
    return jwks(rsa_key("a"))
key_set = KeySet(fetch)
assert key_set.get("a")
key_set._changed.acquire()  # as if a thread held it
child = os.fork()
if not child:
    assert key_set.current("a") is None
    assert key_set.get("a")
    assert fetches == [os.getppid(), os.getpid()]
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_fetches_for_itself() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Which keys are usable


@pytest.mark.parametrize(
    "members",
    [{}, {"use": ABSENT}, {"alg": ABSENT}, {"issuer": "https://a.test"}, {"x5c": ["MIIB"], "x5t": "x"}, {"d": "AQAB"}],
    ids=str,
)
def test_an_rsa_key_for_signatures_is_usable(members: dict[str, Any]) -> None:
    assert usable_keys(jwks(A.jwk(**members)))["a"].public_key == A.private.public_key()


@pytest.mark.parametrize(
    "unusable",
    [
        "a string",
        None,
        {},
        {"kty": "EC", "kid": "b", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "oct", "kid": "b", "k": "c2VjcmV0"},
        B.jwk(kty=ABSENT),
        B.jwk(kty=["RSA"]),
        B.jwk(use="enc"),
        B.jwk(use=None),
        B.jwk(alg="RS512"),
        B.jwk(alg="HS256"),
        B.jwk(kid=ABSENT),
        B.jwk(kid=""),
        B.jwk(kid=1),
        B.jwk(n=ABSENT),
        B.jwk(n=7),
        B.jwk(n="é"),
        B.jwk(n=""),
        B.jwk(e=ABSENT),
        B.jwk(e="AQ"),
        B.jwk(e=None),
        B.jwk(issuer=7),
    ],
)
def test_other_keys_are_passed_over(unusable: Any) -> None:
    assert set(usable_keys({"keys": [unusable, A.jwk()]})) == {"a"}
    with pytest.raises(ValueError, match="no RSA key"):
        usable_keys({"keys": [unusable]})


@pytest.mark.parametrize(("bits", "usable"), [(2047, False), (2048, True), (8192, True), (8193, False)])
def test_a_modulus_has_2048_to_8192_bits(bits: int, usable: bool) -> None:
    numbers = rsa.RSAPublicNumbers(e=65537, n=(1 << (bits - 1)) + 1)
    jwk = {**RSAAlgorithm.to_jwk(numbers.public_key(), as_dict=True), "kty": "RSA", "kid": "b"}
    assert ("b" in usable_keys(jwks(A, jwk))) is usable


def test_of_two_keys_with_one_kid_the_first_counts() -> None:
    assert usable_keys(jwks(A, B.named("a")))["a"].public_key == A.private.public_key()
    assert usable_keys(jwks(A.jwk(use="enc"), B.named("a")))["a"].public_key == B.private.public_key()


# Where keys are read from


@pytest.mark.parametrize(
    "location",
    [
        "https://login.microsoftonline.com/{tenantid}/discovery/v2.0/keys",
        "https://{tenantid}.ciamlogin.com/keys",
        "http://localhost:8000/keys",
        "http://127.0.0.1/keys",
        "http://127.255.0.1/keys",
        "http://[::1]:8000/keys",
        "file:///etc/keys.json",
        "/etc/keys.json",
        "keys/{tenantid}.json",
    ],
)
def test_keys_come_by_https_from_this_machine_or_from_a_file(location: str) -> None:
    check_location(location)


@pytest.mark.parametrize(
    "location",
    [
        "http://login.microsoftonline.com/keys",
        "http://127.0.0.1.evil.test/keys",
        "http://localhost.evil.test/keys",
        "http://localhost@evil.test/keys",
        "http://10.0.0.1/keys",
        "http://0.0.0.0/keys",
        "http:///keys",
        "https:///keys",
        "ftp://127.0.0.1/keys",
        "data://keys",
        "file://evil.test/keys",
    ],
)
def test_keys_come_from_nowhere_else(location: str) -> None:
    for read in (check_location, fetch_jwks, partial(KeyDirectory, tenants=None)):
        with pytest.raises(ValueError, match="signing keys are read by https"):
            read(location)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_keys_are_read_from_a_file(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(jwks(A)))
    assert fetch_jwks(f"{prefix}{path}") == jwks(A)


def test_a_file_url_is_unquoted(tmp_path: Path) -> None:
    (tmp_path / "our keys.json").write_text(json.dumps(jwks(A)))
    assert fetch_jwks(f"file://localhost{tmp_path}/our%20keys.json") == jwks(A)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"keys": {}}', b"\xff\xff\xff", b"[" * 100_000, b'{"keys": ' + b"9" * 5000 + b"}"],
)
def test_what_is_no_jwks_document_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(FetchFailed, match=r"keys\.json"):
        fetch_jwks(str(path))


def test_a_missing_file_is_a_failed_fetch(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="No such file"):
        fetch_jwks(str(tmp_path / "keys.json"))


class Handler(BaseHTTPRequestHandler):
    """A key server, honest and not, by path."""

    protocol_version = "HTTP/1.1"
    body = json.dumps(jwks(A)).encode()
    seen: list[str]
    stop: threading.Event

    def do_GET(self) -> None:
        self.seen.append(self.path)
        match self.path:
            case "/keys":
                self.answer(200, {"Content-Length": str(len(self.body))}, self.body)
            case "/redirect":
                self.answer(302, {"Location": "/keys", "Content-Length": "0"})
            case "/error":
                self.answer(500, {"Content-Length": str(len(self.body))}, self.body)
            case "/cut":
                self.answer(200, {"Content-Length": str(len(self.body))}, self.body[:-1])
            case "/slow-head":
                self.trickle(b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 10_000)
            case "/slow-body":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                self.trickle(b" " * 10_000)
            case "/silence":
                self.stop.wait(SOON)

    def do_CONNECT(self) -> None:
        self.seen.append(f"CONNECT {self.path}")
        self.answer(403, {"Content-Length": "0"})

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def trickle(self, data: bytes) -> None:
        for byte in data:
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                break
            if self.stop.wait(0.01):
                break
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """Run a key server; yields its base URL and the paths asked for."""
    handler: Any = type("_Handler", (Handler,), {"seen": [], "stop": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", handler.seen
    finally:
        handler.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def key_server() -> Iterator[str]:
    with serving() as (url, _seen):
        yield url


def test_keys_are_read_from_a_server(key_server: str) -> None:
    assert fetch_jwks(f"{key_server}/keys") == jwks(A)


def test_a_redirect_is_not_followed() -> None:
    with serving() as (url, seen):
        with pytest.raises(FetchFailed, match="302"):
            fetch_jwks(f"{url}/redirect")
        assert seen == ["/redirect"]


@pytest.mark.parametrize(("path", "said"), [("error", "500"), ("cut", "delimiter")])
def test_an_error_or_half_an_answer_is_refused(key_server: str, path: str, said: str) -> None:
    with pytest.raises(FetchFailed, match=said):
        fetch_jwks(f"{key_server}/{path}")


@pytest.mark.parametrize("path", ["slow-head", "slow-body", "silence"])
def test_a_slow_answer_ends_at_the_deadline(key_server: str, path: str) -> None:
    with pytest.raises(FetchFailed, match=r"time|long"):
        fetch_jwks(f"{key_server}/{path}", timeout=timedelta(milliseconds=200))


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_an_answer_has_a_size_limit(key_server: str, tmp_path: Path, spare: int, fits: bool) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(Handler.body)
    for location in (f"{key_server}/keys", str(path)):
        read = partial(fetch_jwks, location, max_bytes=len(Handler.body) + spare)
        if fits:
            assert read() == jwks(A)
        else:
            with pytest.raises(FetchFailed, match="longer than"):
                read()


def test_nobody_listens() -> None:
    with serving() as (url, _seen):
        pass
    with pytest.raises(FetchFailed, match="refused"):
        fetch_jwks(f"{url}/keys")


def test_a_proxy_is_asked_for_the_world_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as (proxy, asked), serving() as (url, seen):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(FetchFailed, match="403"):
            fetch_jwks("https://keys.test/keys")
        assert fetch_jwks(f"{url}/keys") == jwks(A)
        assert (asked, seen) == (["CONNECT keys.test:443"], ["/keys"])


def test_a_certificate_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "key server")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, ec_key().public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(ec_key(), SHA256())
    )
    pem = tmp_path / "server.pem"
    private = ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with serving(context) as (url, _seen):
        with pytest.raises(FetchFailed, match="CERTIFICATE_VERIFY_FAILED"):
            fetch_jwks(f"{url}/keys")
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert fetch_jwks(f"{url}/keys") == jwks(A)


# One key set per tenant


def test_a_place_that_names_the_tenant_gives_each_a_key_set_of_its_own(tmp_path: Path) -> None:
    for tenant, key in ((TENANT, A), (OTHER_TENANT, B.named("a"))):
        (tmp_path / f"{tenant}.json").write_text(json.dumps(jwks(key)))
    directory = KeyDirectory(f"{tmp_path}/{{tenantid}}.json", tenants=frozenset({TENANT, OTHER_TENANT}))
    ours, theirs = directory.for_tenant(TENANT).get("a"), directory.for_tenant(OTHER_TENANT).get("a")
    assert ours is not None
    assert theirs is not None
    assert (ours.public_key, theirs.public_key) == (A.private.public_key(), B.private.public_key())
    assert directory.for_tenant(TENANT).get("a") is ours


@pytest.mark.parametrize("tenants", [None, frozenset({TENANT, OTHER_TENANT})])
def test_another_place_gives_all_tenants_one_key_set(tmp_path: Path, tenants: frozenset[str] | None) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(jwks(A)))
    directory = KeyDirectory(str(tmp_path / "keys.json"), tenants=tenants)
    assert directory.for_tenant(TENANT) is directory.for_tenant(OTHER_TENANT)
    assert directory.for_tenant(TENANT).get("a") is not None


def test_a_place_that_names_the_tenant_wants_to_know_the_tenants() -> None:
    with pytest.raises(ValueError, match="tenants served"):
        KeyDirectory("https://keys.test/{tenantid}", tenants=None)


def test_a_directory_makes_its_key_sets_as_it_is_told() -> None:
    made: list[Any] = []

    def make(fetch: Callable[[], Any]) -> KeySet:
        made.append(fetch)
        return KeySet(fetch)

    KeyDirectory("https://keys.test/{tenantid}", tenants=frozenset({TENANT, USER}), key_set=make)
    assert len(made) == 2


# The development issuer's key


def test_a_signing_key_is_made_once_for_its_owners_eyes(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "key.pem"
    made = load_or_make_key(path)
    assert made.private_key.key_size == 2048
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["key.pem"]
    assert load_or_make_key(path).private_key.private_numbers() == made.private_key.private_numbers()


def test_processes_that_race_for_a_signing_key_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "instance" / "key.pem"
    make = "import sys, pathlib; from app.emulator.keys import *; sys.stdin.read(1)\n"
    make += "print(load_or_make_key(pathlib.Path(sys.argv[1])).kid)"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", make, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("!")
        racer.stdin.flush()
    assert {racer.communicate(timeout=60)[0].strip() for racer in racers} == {load_or_make_key(path).kid}
    assert os.listdir(path.parent) == ["key.pem"]


def test_a_key_that_somebody_else_made_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, theirs = tmp_path / "key.pem", load_or_make_key(tmp_path / "theirs.pem")
    generate = rsa.generate_private_key

    def while_another_is_faster(**options: int) -> rsa.RSAPrivateKey:
        os.link(tmp_path / "theirs.pem", path)
        return generate(**options)

    monkeypatch.setattr(rsa, "generate_private_key", while_another_is_faster)
    assert load_or_make_key(path).kid == theirs.kid
    assert sorted(os.listdir(tmp_path)) == ["key.pem", "theirs.pem"]


def pem(key: Any) -> bytes:
    encoded: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return encoded


@pytest.mark.parametrize(
    "content",
    [b"", b"not a key", pem(A.private)[:300], A.pem, pem(ec_key()), pem(rsa_key("short", 1024).private)],
    ids=["empty", "text", "truncated", "public", "EC", "short"],
)
def test_a_file_without_a_signing_key_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(UnusableKeyFile, match=str(path)):
        load_or_make_key(path)
    assert path.read_bytes() == content


def test_a_kid_is_the_thumbprint_of_rfc_7638() -> None:
    jwk = {
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi"
        "FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0"
        "zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF"
        "Cur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
    }
    key = SigningKey(A.private)
    key.__dict__["_public_members"] = jwk
    assert key.kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_the_jwks_document_publishes_the_key() -> None:
    key = SigningKey(A.private)
    assert key.jwks() == jwks(A.named(key.kid))
    assert usable_keys(key.jwks())[key.kid].public_key == A.private.public_key()


def test_who_asks_while_there_are_no_keys_is_told_the_shorter_of_the_two_waits() -> None:
    issuer = Issuer()
    issuer.published = OSError()
    key_set = issuer.key_set(refresh=timedelta(seconds=10), cooldown=timedelta(seconds=30))
    assert refused(key_set, "a") <= 10


def test_keys_are_as_old_as_the_question_that_fetched_them() -> None:
    issuer = Issuer(A)
    answer = issuer.fetch

    def slowly() -> Any:
        found = answer()
        issuer.moment += 5
        return found

    issuer.fetch = slowly  # type: ignore[method-assign]  # a server that takes its time, on the test's clock
    long = timedelta(hours=1)
    key_set = issuer.key_set(max_stale=timedelta(seconds=20), refresh=long, cooldown=long)
    asked_at = issuer.moment
    assert key_set.get("a")
    issuer.moment = asked_at + 19.9
    assert key_set.current("a")
    issuer.moment = asked_at + 20.1
    assert key_set.current("a") is None
