import base64
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.caller import Caller
from app.auth.keys import KeySet, KeysUnavailable
from app.auth.tokens import (
    EXPIRED,
    MAX_TOKEN_LENGTH,
    NOT_A_JWT,
    NOT_YET_VALID,
    WRONG_AUDIENCE,
    InvalidToken,
    TokenVerifier,
)
from app.emulator.keys import SigningKey
from app.emulator.tokens import app_only_claims, mint
from tests.tokens import (
    ABSENT,
    APP,
    AUDIENCE,
    NOW,
    OTHER_APP,
    OTHER_TENANT,
    READ,
    TENANT,
    USER,
    V1,
    V2,
    WRITE,
    Key,
    assemble,
    claims,
    delegated_claims,
    es256,
    hmac_sha256,
    jwks,
    rsa_key,
    signed,
    v1_claims,
)

API = "api://presence"
EPOCH = int(NOW.timestamp())
LEEWAY = 60
OURS, THEIRS, FORGER = rsa_key("ours"), rsa_key("theirs"), rsa_key("forger")


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


class Issuer:
    """What each tenant's issuer publishes, and the key sets that read it."""

    def __init__(self) -> None:
        self.published: dict[str, Any] = {TENANT: jwks(OURS), OTHER_TENANT: jwks(THEIRS)}
        self.moment = 0.0
        self.sets = {
            tenant: KeySet(lambda tenant=tenant: self.published[tenant], monotonic=lambda: self.moment)  # type: ignore[misc]
            for tenant in self.published
        }

    def publish(self, *keys: Key | dict[str, Any], tenant: str = TENANT) -> None:
        """Publish other keys, and have them read."""
        self.published[tenant] = jwks(*keys)
        self.moment += 61
        self.sets[tenant].get("a key that nobody has")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def verifier_of(issuer: Issuer, clock: Callable[[], datetime], **options: Any) -> TokenVerifier:
    served = {
        "issuers": (V1, V2),
        "audiences": frozenset({AUDIENCE, API}),
        "tenants": frozenset({TENANT, OTHER_TENANT}),
    }
    return TokenVerifier(issuer.sets.__getitem__, clock=clock, **{**served, **options})


@pytest.fixture
def verifier(issuer: Issuer, clock: Clock) -> TokenVerifier:
    return verifier_of(issuer, clock)


@pytest.fixture(scope="module")
def shared() -> TokenVerifier:
    """Return a verifier that many tokens are shown to, none of which may be remembered."""
    return verifier_of(Issuer(), Clock())


@pytest.fixture
def signature_checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what grows with every signature check."""
    checked: list[str] = []
    decode = jwt.PyJWT.decode

    def counting(self: jwt.PyJWT, token: str, *args: Any, **options: Any) -> Any:
        checked.append(token)
        return decode(self, token, *args, **options)

    monkeypatch.setattr(jwt.PyJWT, "decode", counting)
    return checked


# Who calls


def test_an_application_is_named_by_its_token(verifier: TokenVerifier) -> None:
    caller = verifier.verify(signed(claims(roles=(WRITE, READ)), OURS))
    assert caller == Caller(TENANT, APP, app_only=True, roles=frozenset({WRITE, READ}))


def test_a_v1_token_names_the_same_application(verifier: TokenVerifier) -> None:
    assert verifier.verify(signed(v1_claims(), OURS, x5t=OURS.kid)) == verifier.verify(signed(claims(), OURS))


def test_a_users_token_is_not_app_only_whatever_roles_it_holds(verifier: TokenVerifier) -> None:
    caller = verifier.verify(signed(delegated_claims(roles=[WRITE], oid=USER.upper()), OURS))
    scopes = frozenset({"Presence.ReadWrite", "User.Read"})
    assert caller == Caller(TENANT, APP, app_only=False, roles=frozenset({WRITE}), scopes=scopes, user_id=USER)


@pytest.mark.parametrize(
    ("changed", "app_only"),
    [
        ({"idtyp": "app"}, True),
        ({"idtyp": ABSENT}, True),
        ({"idtyp": "user"}, False),
        ({"idtyp": "App"}, False),
        ({"idtyp": None}, False),
        ({"idtyp": ["app"]}, False),
        ({"scp": "User.Read"}, False),
        ({"scp": ""}, False),
        ({"scp": None}, False),
        ({"scp": ["User.Read"]}, False),
    ],
)
def test_app_only_is_no_scp_and_no_other_idtyp(
    verifier: TokenVerifier, changed: dict[str, Any], app_only: bool
) -> None:
    assert verifier.verify(signed(claims(**changed), OURS)).app_only is app_only


@pytest.mark.parametrize(
    ("roles", "granted"),
    [([WRITE], {WRITE}), ([], set()), (ABSENT, set()), (WRITE, set()), ({WRITE: 1}, set()), ([WRITE, 1], set())],
)
def test_roles_are_a_list_of_strings_or_nothing(verifier: TokenVerifier, roles: Any, granted: set[str]) -> None:
    assert verifier.verify(signed(claims(roles=roles), OURS)).roles == granted


@pytest.mark.parametrize("oid", [ABSENT, "alice", None, 7])
def test_a_user_without_a_guid_is_nobody(verifier: TokenVerifier, oid: Any) -> None:
    assert verifier.verify(signed(delegated_claims(oid=oid), OURS)).user_id is None


@pytest.mark.parametrize(
    "changed",
    [
        {"azp": APP.upper()},
        {"appid": APP},
        {"appid": APP.upper()},
        {"azp": ABSENT, "appid": APP},
        {"tid": TENANT.upper()},
        {"tid": TENANT.upper(), "iss": V2.replace("{tenantid}", TENANT.upper())},
        {"aud": API},
        {"aud": ["someone else", AUDIENCE]},
        {"nbf": ABSENT},
        {"iat": ABSENT},
        {"nbf": ABSENT, "iat": ABSENT},
        {"exp": EPOCH + 0.5},
        {"exp": 10**400},
        {"nbf": -(10**400)},
        {"sub": ABSENT},
        dict.fromkeys(("email", "upn", "preferred_username", "unique_name"), "ceo@contoso.com"),
    ],
    ids=str,
)
def test_what_does_not_matter_is_let_pass(shared: TokenVerifier, changed: dict[str, Any]) -> None:
    assert shared.verify(signed(claims(**changed), OURS)) == Caller(TENANT, APP, True, frozenset({WRITE}))


@pytest.mark.parametrize(
    "header", [{"typ": "at+jwt"}, {"x5t": "x"}, {"x5c": ["x"]}, {"jku": "https://a"}, {"x": 1}], ids=str
)
def test_headers_that_choose_nothing_are_let_pass(shared: TokenVerifier, header: dict[str, Any]) -> None:
    assert shared.verify(signed(claims(), OURS, **header)).app_id == APP


def test_the_embedded_issuers_own_token_is_believed(clock: Clock) -> None:
    key = SigningKey(OURS.private)
    key_set = KeySet(key.jwks)
    verifier = TokenVerifier(
        lambda _tenant: key_set, issuers=[V2], audiences=frozenset({API}), tenants=None, clock=clock
    )
    for tenant in (TENANT, OTHER_TENANT):
        assert verifier.verify(mint(app_only_claims(tenant, APP, API, [], NOW), key)) == Caller(
            tenant, APP, app_only=True, roles=frozenset()
        )


def test_an_issuer_without_a_placeholder_is_compared_as_it_is(issuer: Issuer, clock: Clock) -> None:
    verifier = verifier_of(issuer, clock, issuers=["https://issuer.test"])
    assert verifier.verify(signed(claims(iss="https://issuer.test"), OURS)).tenant_id == TENANT
    with pytest.raises(InvalidToken, match="Invalid issuer"):
        verifier.verify(signed(claims(), OURS))


# What is refused


def test_a_token_for_graph_itself_is_refused_unless_graph_is_listed(issuer: Issuer, clock: Clock) -> None:
    assert verifier_of(issuer, clock).verify(signed(claims(aud=AUDIENCE), OURS))
    verifier = verifier_of(issuer, clock, audiences=frozenset({API}))
    assert verifier.verify(signed(claims(aud=API), OURS))
    for graph in (AUDIENCE, f"{AUDIENCE}/", "00000003-0000-0000-c000-000000000000"):
        with pytest.raises(InvalidToken, match=WRONG_AUDIENCE):
            verifier.verify(signed(claims(aud=graph), OURS))


def tampered(token: str) -> str:
    """Change one letter of the signature, not the last one: there all bits count."""
    return token[:-9] + ("A" if token[-9] != "A" else "B") + token[-8:]


def replaced(token: str, segment: int, by: str) -> str:
    parts = token.split(".")
    parts[segment] = by
    return ".".join(parts)


def with_text(old: str, new: str, **changed: Any) -> bytes:
    """Return a payload that json.dumps would not write."""
    text = json.dumps(claims(**changed))
    assert old in text
    return text.replace(old, new, 1).encode()


def unsigned(_data: bytes) -> bytes:
    return b""


def b64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


GOOD = signed(claims(), OURS)
HEADER = {"typ": "JWT", "kid": OURS.kid}
OWN_KEY = {"kid": FORGER.kid}
SIGNATURE, ISSUER, TENANCY = "Invalid signature", "Invalid issuer", "Invalid tenant"
ALGORITHM, UNKNOWN_KEY = "Invalid signature algorithm", "signing key is not known"
V2_OURS = V2.replace("{tenantid}", TENANT)

UNFIT = {
    # not a JWT
    "empty": ("", NOT_A_JWT),
    "blank": ("   ", NOT_A_JWT),
    "one word": ("token", NOT_A_JWT),
    "dots": ("..", NOT_A_JWT),
    "two segments": (GOOD.rpartition(".")[0], NOT_A_JWT),
    "four segments": (f"{GOOD}.AAAA", NOT_A_JWT),
    "five segments, as encrypted tokens have": ("AAAA.AAAA.AAAA.AAAA.AAAA", NOT_A_JWT),
    "truncated to a broken group": (GOOD[:-1], NOT_A_JWT),
    "a blank before it": (f" {GOOD}", NOT_A_JWT),
    "a newline after it": (f"{GOOD}\n", NOT_A_JWT),
    "a NUL in it": (GOOD.replace(".", ".\0", 1), NOT_A_JWT),
    "a letter beyond ASCII": (f"{GOOD}é", NOT_A_JWT),
    "a lone surrogate": (f"{GOOD}\ud800", NOT_A_JWT),
    "the other base64": (replaced(GOOD, 2, GOOD.split(".")[2][:-2] + "+/"), NOT_A_JWT),
    "junk between the letters": (
        replaced(GOOD, 1, GOOD.split(".")[1][:8] + "!!!!" + GOOD.split(".")[1][8:]),
        NOT_A_JWT,
    ),
    "bits left over in the signature": (GOOD[:-1] + chr(ord(GOOD[-1]) + 1), NOT_A_JWT),
    "header not JSON": (replaced(GOOD, 0, b64("{")), NOT_A_JWT),
    "header not an object": (replaced(GOOD, 0, b64('["RS256"]')), NOT_A_JWT),
    "header not UTF-8": (assemble(b'{"alg":"\xff"}', claims(), OURS.sign), NOT_A_JWT),
    "header a nesting bomb": (replaced(GOOD, 0, b64("[" * 9_000)), NOT_A_JWT),
    "payload not JSON": (signed(b"{", OURS), NOT_A_JWT),
    "payload not an object": (signed(b"[1]", OURS), NOT_A_JWT),
    "payload empty": (signed(b"", OURS), NOT_A_JWT),
    "payload not UTF-8": (signed(b'{"aud":"\xff\xfe"}', OURS), NOT_A_JWT),
    "payload a nesting bomb": (signed(b'{"a":' + b"[" * 9_000, OURS), NOT_A_JWT),
    "payload a balanced nesting bomb": (signed(b'{"a":' + b"[" * 4_500 + b"]" * 4_500 + b"}", OURS), NOT_A_JWT),
    "a huge integer": (signed(with_text(f'"exp": {EPOCH + 3600}', '"exp": ' + "9" * 5_000), OURS), NOT_A_JWT),
    "a claim that stands twice": (signed(with_text('"aud"', '"tid": "x", "aud"'), OURS), NOT_A_JWT),
    "a nested name that stands twice": (signed(with_text('"aud"', '"a": {"b": 1, "b": 2}, "aud"'), OURS), NOT_A_JWT),
    "20 KiB": (signed(claims(aio="x" * 15_000), OURS), "longer than 16384"),
    # algorithms
    "alg none": (assemble({**HEADER, "alg": "none"}, claims(), unsigned), ALGORITHM),
    "alg None": (assemble({**HEADER, "alg": "None"}, claims(), unsigned), ALGORITHM),
    "alg missing": (assemble(HEADER, claims(), OURS.sign), ALGORITHM),
    "alg null": (assemble({**HEADER, "alg": None}, claims(), OURS.sign), ALGORITHM),
    "alg a list": (assemble({**HEADER, "alg": ["RS256"]}, claims(), OURS.sign), ALGORITHM),
    "alg in lower case": (assemble({**HEADER, "alg": "rs256"}, claims(), OURS.sign), ALGORITHM),
    "HS256 with the public key": (assemble({**HEADER, "alg": "HS256"}, claims(), hmac_sha256(OURS.pem)), ALGORITHM),
    "HS256 with the JWK": (
        assemble({**HEADER, "alg": "HS256"}, claims(), hmac_sha256(json.dumps(OURS.jwk()).encode())),
        ALGORITHM,
    ),
    "HS256 with an empty secret": (assemble({**HEADER, "alg": "HS256"}, claims(), hmac_sha256(b"")), ALGORITHM),
    "RS512": (assemble({**HEADER, "alg": "RS512"}, claims(), lambda data: OURS.sign(data, "RS512")), ALGORITHM),
    "RS384": (assemble({**HEADER, "alg": "RS384"}, claims(), lambda data: OURS.sign(data, "RS384")), ALGORITHM),
    "PS256": (assemble({**HEADER, "alg": "PS256"}, claims(), lambda data: OURS.sign(data, "PS256")), ALGORITHM),
    "ES256": (assemble({**HEADER, "alg": "ES256"}, claims(), es256), ALGORITHM),
    "RS256 said, RS512 done": (
        assemble({**HEADER, "alg": "RS256"}, claims(), lambda d: OURS.sign(d, "RS512")),
        SIGNATURE,
    ),
    "RS256 said, HS256 done": (assemble({**HEADER, "alg": "RS256"}, claims(), hmac_sha256(OURS.pem)), SIGNATURE),
    # keys
    "kid missing": (signed(claims(), OURS, kid=ABSENT), "names no signing key"),
    "kid null": (signed(claims(), OURS, kid=None), NOT_A_JWT),
    "kid a number": (signed(claims(), OURS, kid=1), NOT_A_JWT),
    "kid empty": (signed(claims(), OURS, kid=""), UNKNOWN_KEY),
    "kid unknown": (signed(claims(), FORGER), UNKNOWN_KEY),
    "kid in upper case": (signed(claims(), OURS, kid="OURS"), UNKNOWN_KEY),
    "kid a path": (signed(claims(), OURS, kid="../../../../dev/null"), UNKNOWN_KEY),
    "kid a lone surrogate": (signed(claims(), OURS, kid="\ud800"), UNKNOWN_KEY),
    "kid of another tenant's key": (signed(claims(), THEIRS), UNKNOWN_KEY),
    "our key with another tenant's claims": (signed(claims(tenant=OTHER_TENANT), OURS), UNKNOWN_KEY),
    "our kid, a forger's key": (signed(claims(), FORGER.named(OURS.kid)), SIGNATURE),
    "jwk brings the key": (signed(claims(), FORGER.named(OURS.kid), jwk=FORGER.jwk()), SIGNATURE),
    "jwk with a kid of its own": (signed(claims(), FORGER, jwk=FORGER.jwk()), UNKNOWN_KEY),
    "jku names the key": (signed(claims(), FORGER, jku="http://127.0.0.1:9/keys"), UNKNOWN_KEY),
    "x5u names the key": (signed(claims(), FORGER.named(OURS.kid), x5u="http://127.0.0.1:9/cert"), SIGNATURE),
    "x5c brings the key": (signed(claims(), FORGER.named(OURS.kid), x5c=["MIIB"], x5t="x"), SIGNATURE),
    "crit": (signed(claims(), OURS, crit=["exp"], exp=1), NOT_A_JWT),
    "crit empty": (signed(claims(), OURS, crit=[]), NOT_A_JWT),
    "crit with b64 true": (signed(claims(), OURS, crit=["b64"], b64=True), "extension"),
    "b64 false": (signed(claims(), OURS, b64=False), NOT_A_JWT),
    "b64 true": (signed(claims(), OURS, b64=True), "extension"),
    # signatures
    "payload replaced": (replaced(GOOD, 1, signed(claims(app=OTHER_APP), FORGER).split(".")[1]), SIGNATURE),
    "header tampered": (replaced(GOOD, 0, b64(json.dumps({**HEADER, "alg": "RS256", "x": 1}))), SIGNATURE),
    "signature tampered": (tampered(GOOD), SIGNATURE),
    "signature empty": (replaced(GOOD, 2, ""), SIGNATURE),
    "signature truncated": (assemble({**HEADER, "alg": "RS256"}, claims(), lambda d: OURS.sign(d)[:-1]), SIGNATURE),
    "signature too long": (replaced(GOOD, 2, "AAAA" * 200), SIGNATURE),
    # times
    "exp missing": (signed(claims(exp=ABSENT), OURS), "'exp' is missing"),
    "exp null": (signed(claims(exp=None), OURS), "'exp' is missing"),
    "exp a string": (signed(claims(exp=str(EPOCH + 3600)), OURS), "'exp' must be a number"),
    "exp true": (signed(claims(exp=True), OURS), "'exp' must be a number"),
    "exp a list": (signed(claims(exp=[EPOCH + 3600]), OURS), "'exp' must be a number"),
    "exp NaN": (signed(claims(exp=float("nan")), OURS), "'exp' must be a number"),
    "exp Infinity": (signed(claims(exp=float("inf")), OURS), "'exp' must be a number"),
    "exp beyond a double": (
        signed(with_text(f'"exp": {EPOCH + 3600}', '"exp": 1e999'), OURS),
        "'exp' must be a number",
    ),
    "exp long ago": (signed(claims(exp=0), OURS), EXPIRED),
    "exp at the edge": (signed(claims(exp=EPOCH - LEEWAY), OURS), EXPIRED),
    "exp in milliseconds before 1970": (signed(claims(exp=-EPOCH * 1000), OURS), EXPIRED),
    "nbf in the future": (signed(claims(nbf=EPOCH + LEEWAY + 1), OURS), NOT_YET_VALID),
    "nbf in the far future": (signed(claims(nbf=10**400), OURS), NOT_YET_VALID),
    "nbf a string": (signed(claims(nbf=str(EPOCH)), OURS), "'nbf' must be a number"),
    "nbf null": (signed(claims(nbf=None), OURS), "'nbf' must be a number"),
    "nbf -Infinity": (signed(claims(nbf=float("-inf")), OURS), "'nbf' must be a number"),
    "iat in the future": (signed(claims(iat=EPOCH + LEEWAY + 1), OURS), NOT_YET_VALID),
    "iat false": (signed(claims(iat=False), OURS), "'iat' must be a number"),
    "iat an object": (signed(claims(iat={}), OURS), "'iat' must be a number"),
    # audience
    "aud another's": (signed(claims(aud="https://management.azure.com"), OURS), WRONG_AUDIENCE),
    "aud missing": (signed(claims(aud=ABSENT), OURS), "'aud' is missing"),
    "aud empty": (signed(claims(aud=""), OURS), "'aud' is missing"),
    "aud a list without us": (signed(claims(aud=["a", "b"]), OURS), WRONG_AUDIENCE),
    "aud a list with a number": (signed(claims(aud=[AUDIENCE, 1]), OURS), WRONG_AUDIENCE),
    "aud an object": (signed(claims(aud={AUDIENCE: 1}), OURS), WRONG_AUDIENCE),
    "aud with a slash": (signed(claims(aud=f"{AUDIENCE}/"), OURS), WRONG_AUDIENCE),
    "aud a beginning of ours": (signed(claims(aud=AUDIENCE[:-1]), OURS), WRONG_AUDIENCE),
    "aud in upper case": (signed(claims(aud=AUDIENCE.upper()), OURS), WRONG_AUDIENCE),
    "an ID token": (
        signed(claims(aud=OTHER_APP, nonce="n", preferred_username="a@b", azp=ABSENT), OURS),
        WRONG_AUDIENCE,
    ),
    "an ID token for ourselves": (signed(claims(nonce="n", name="Alice", azp=ABSENT), OURS), "application id"),
    # issuer and tenant
    "iss missing": (signed(claims(iss=ABSENT), OURS), ISSUER),
    "iss null": (signed(claims(iss=None), OURS), ISSUER),
    "iss a list": (signed(claims(iss=[V2_OURS]), OURS), ISSUER),
    "iss a template": (signed(claims(iss=V2), OURS), ISSUER),
    "iss of another tenant": (signed(claims(iss=V2.replace("{tenantid}", OTHER_TENANT)), OURS), ISSUER),
    "tid of another tenant": (signed(claims(tid=OTHER_TENANT), OURS), ISSUER),
    "iss continued": (signed(claims(iss=f"{V2_OURS}/"), OURS), ISSUER),
    "iss cut short": (signed(claims(iss=V2_OURS[:-1]), OURS), ISSUER),
    "iss with something before it": (signed(claims(iss=f"https://evil.test/{V2_OURS}"), OURS), ISSUER),
    "iss in upper case": (signed(claims(iss=V2_OURS.upper()), OURS), ISSUER),
    "iss by http": (signed(claims(iss=V2_OURS.replace("https", "http")), OURS), ISSUER),
    "v1 iss without its slash": (signed(v1_claims(iss=f"https://sts.windows.net/{TENANT}"), OURS), ISSUER),
    "tid missing": (signed(claims(tid=ABSENT), OURS), TENANCY),
    "tid null": (signed(claims(tid=None), OURS), TENANCY),
    "tid a domain": (signed(claims(tid="contoso.com", iss=V2.replace("{tenantid}", "contoso.com")), OURS), TENANCY),
    "tid without dashes": (signed(claims(tid=TENANT.replace("-", "")), OURS), TENANCY),
    "tid with a newline": (signed(claims(tid=f"{TENANT}\n"), OURS), TENANCY),
    "tid with Arabic digits": (signed(claims(tid=TENANT.replace("7", "\u0667")), OURS), TENANCY),
    "tid not served": (signed(claims(tenant=USER), OURS), TENANCY),
    "tid a list": (signed(claims(tid=[TENANT]), OURS), TENANCY),
    # application
    "appid and azp differ": (signed(claims(appid=OTHER_APP), OURS), "application id"),
    "appid null beside azp": (signed(claims(appid=None), OURS), "application id"),
    "neither appid nor azp": (signed(claims(azp=ABSENT), OURS), "application id"),
    "azp no GUID": (signed(claims(azp="my-app"), OURS), "application id"),
    "azp in braces": (signed(claims(azp=f"{{{APP}}}"), OURS), "application id"),
    "azp with something after it": (signed(claims(azp=f"{APP}-1"), OURS), "application id"),
    "azp a list": (signed(claims(azp=[APP]), OURS), "application id"),
    "azp empty": (signed(claims(azp=""), OURS), "application id"),
    # claims that PyJWT looks at
    "sub a number": (signed(claims(sub=1), OURS), "validation failure"),
    "jti a number": (signed(claims(jti=1), OURS), "validation failure"),
}


@pytest.mark.parametrize(("token", "said"), UNFIT.values(), ids=UNFIT)
def test_an_unfit_token_is_refused_with_the_check_that_failed(shared: TokenVerifier, token: str, said: str) -> None:
    for _ in range(2):  # nor is it remembered
        with pytest.raises(InvalidToken, match=re.escape(said)) as refusal:
            shared.verify(token)
        assert not any(value in str(refusal.value) for value in (AUDIENCE, API, TENANT, OTHER_TENANT, V2_OURS, APP))


FUZZED = verifier_of(Issuer(), Clock())


@given(
    st.dictionaries(
        st.sampled_from(
            ["aud", "iss", "exp", "nbf", "iat", "tid", "azp", "appid", "roles", "scp", "idtyp", "oid", "sub"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
            max_leaves=4,
        ),
        min_size=1,
    )
)
def test_whatever_stands_in_a_signed_token_it_names_a_caller_or_is_refused(changed: dict[str, Any]) -> None:
    try:
        caller = FUZZED.verify(signed({**claims(), **changed}, OURS))
    except InvalidToken:
        return
    assert caller.tenant_id == TENANT
    assert all(isinstance(role, str) for role in caller.roles)


@given(
    st.text()
    | st.lists(st.binary(max_size=64), min_size=3, max_size=3).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    )
)
def test_garbage_is_an_invalid_token_and_nothing_else(garbage: str) -> None:
    with pytest.raises(InvalidToken):
        FUZZED.verify(garbage)


def test_a_token_may_be_16_kib_long(shared: TokenVerifier) -> None:
    room = (MAX_TOKEN_LENGTH - len(signed(claims(aio=""), OURS, x=""))) * 3 // 4
    tokens = {
        len(token): token
        for header, payload in itertools.product(range(3), range(room - 6, room + 2))  # base64 skips some lengths
        for token in [signed(claims(aio="x" * payload), OURS, x="x" * header)]
    }
    assert shared.verify(tokens[MAX_TOKEN_LENGTH])
    with pytest.raises(InvalidToken, match="longer than 16384"):
        shared.verify(tokens[MAX_TOKEN_LENGTH + 1])


# Times


@pytest.mark.parametrize("claim", ["nbf", "iat"])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_token_may_be_as_young_as_the_leeway(verifier: TokenVerifier, claim: str, beyond: int) -> None:
    changed: dict[str, Any] = {claim: EPOCH + LEEWAY + beyond}
    token = signed(claims(**changed), OURS)
    if beyond:
        with pytest.raises(InvalidToken, match=NOT_YET_VALID):
            verifier.verify(token)
    else:
        assert verifier.verify(token)


@pytest.mark.parametrize("remembered", [False, True])
def test_a_token_ends_at_its_exp_and_the_leeway(verifier: TokenVerifier, clock: Clock, remembered: bool) -> None:
    token = signed(claims(), OURS)
    if remembered:
        verifier.verify(token)
    clock.move(hours=1, seconds=LEEWAY, microseconds=-1)
    assert verifier.verify(token)
    clock.move(microseconds=1)
    with pytest.raises(InvalidToken, match=EXPIRED):
        verifier.verify(token)


def test_a_remembered_token_is_not_valid_before_its_nbf(verifier: TokenVerifier, clock: Clock) -> None:
    token = signed(claims(), OURS)
    verifier.verify(token)
    clock.move(seconds=-LEEWAY)
    assert verifier.verify(token)
    clock.move(microseconds=-1)
    with pytest.raises(InvalidToken, match=NOT_YET_VALID):
        verifier.verify(token)


# Keys


def test_the_same_kid_of_another_tenant_is_another_key(issuer: Issuer, verifier: TokenVerifier) -> None:
    issuer.publish(THEIRS.named("shared"), tenant=OTHER_TENANT)
    issuer.publish(OURS.named("shared"))
    assert verifier.verify(signed(claims(), OURS, kid="shared")).tenant_id == TENANT
    with pytest.raises(InvalidToken, match=SIGNATURE):
        verifier.verify(signed(claims(), THEIRS, kid="shared"))
    with pytest.raises(InvalidToken, match=SIGNATURE):
        verifier.verify(signed(claims(tenant=OTHER_TENANT), OURS, kid="shared"))


@pytest.mark.parametrize(
    ("of_key", "v2_holds", "v1_holds"),
    [
        (V2, True, True),
        (V2_OURS, True, True),
        (V1, False, True),
        (V2.replace("{tenantid}", OTHER_TENANT), False, False),
        (V2.replace("https://login", "https://LOGIN"), True, True),
        ("https://issuer.test", False, False),
        ("", False, False),
        (None, True, True),
    ],
)
def test_a_key_with_an_issuer_signs_for_that_issuer_only(
    issuer: Issuer, verifier: TokenVerifier, of_key: str | None, v2_holds: bool, v1_holds: bool
) -> None:
    issuer.publish(OURS.jwk(issuer=of_key))
    for payload, holds in ((claims(), v2_holds), (v1_claims(), v1_holds)):
        if holds:
            assert verifier.verify(signed(payload, OURS))
        else:
            with pytest.raises(InvalidToken, match="belongs to another issuer"):
                verifier.verify(signed(payload, OURS))


def test_entras_keys_sign_for_no_issuer_but_entra(issuer: Issuer, clock: Clock) -> None:
    verifier = verifier_of(issuer, clock, issuers=[V2, "https://issuer.test"])
    issuer.publish(OURS.jwk(issuer=V2))
    with pytest.raises(InvalidToken, match="belongs to another issuer"):
        verifier.verify(signed(claims(iss="https://issuer.test"), OURS))


def test_without_a_list_of_tenants_every_guid_is_one(issuer: Issuer, clock: Clock) -> None:
    verifier = TokenVerifier(
        lambda _tenant: issuer.sets[TENANT], issuers=[V2], audiences=frozenset({AUDIENCE}), tenants=None, clock=clock
    )
    assert verifier.verify(signed(claims(tenant=USER), OURS)).tenant_id == USER
    with pytest.raises(InvalidToken, match=TENANCY):
        verifier.verify(signed(claims(tid="contoso.com"), OURS))


def test_a_stranger_causes_no_fetch(clock: Clock) -> None:
    asked: list[str] = []

    def keys(tenant_id: str) -> KeySet:
        asked.append(tenant_id)
        raise KeysUnavailable(1)

    verifier = TokenVerifier(
        keys, issuers=[V2], audiences=frozenset({AUDIENCE}), tenants=frozenset({TENANT}), clock=clock
    )
    for payload in (claims(tenant=OTHER_TENANT), claims(iss="https://evil.test"), v1_claims()):
        with pytest.raises(InvalidToken):
            verifier.verify(signed(payload, FORGER))
    assert asked == []
    with pytest.raises(KeysUnavailable):
        verifier.verify(signed(claims(), OURS))
    assert asked == [TENANT]


# Remembering


def test_a_remembered_token_costs_no_signature_check(verifier: TokenVerifier, signature_checks: list[str]) -> None:
    token, another = signed(claims(), OURS), signed(claims(app=OTHER_APP), OURS)
    assert [verifier.verify(token) for _ in range(3)] == [Caller(TENANT, APP, True, frozenset({WRITE}))] * 3
    assert verifier.verify(another).app_id == OTHER_APP
    assert signature_checks == [token, another]


def test_a_remembered_token_is_remembered_to_the_letter(verifier: TokenVerifier) -> None:
    verifier.verify(GOOD)
    with pytest.raises(InvalidToken):
        verifier.verify(tampered(GOOD))


def test_a_remembered_token_stands_while_its_key_is_published(
    issuer: Issuer, verifier: TokenVerifier, signature_checks: list[str]
) -> None:
    verifier.verify(GOOD)
    issuer.publish(OURS, FORGER)
    verifier.verify(GOOD)
    assert signature_checks == [GOOD]


def test_a_remembered_token_falls_with_its_key(issuer: Issuer, verifier: TokenVerifier) -> None:
    verifier.verify(GOOD)
    issuer.publish(FORGER)
    with pytest.raises(InvalidToken, match=UNKNOWN_KEY):
        verifier.verify(GOOD)


def test_a_remembered_token_falls_when_its_kid_becomes_another_key(issuer: Issuer, verifier: TokenVerifier) -> None:
    verifier.verify(GOOD)
    issuer.publish(FORGER.named(OURS.kid))
    with pytest.raises(InvalidToken, match=SIGNATURE):
        verifier.verify(GOOD)


def test_a_remembered_token_falls_when_its_key_gets_another_issuer(issuer: Issuer, verifier: TokenVerifier) -> None:
    verifier.verify(GOOD)
    issuer.publish(OURS.jwk(issuer="https://issuer.test"))
    with pytest.raises(InvalidToken, match="belongs to another issuer"):
        verifier.verify(GOOD)


def test_a_remembered_token_waits_when_the_keys_are_too_old(issuer: Issuer, verifier: TokenVerifier) -> None:
    verifier.verify(GOOD)
    issuer.published[TENANT] = None
    issuer.moment += 24 * 3600
    assert verifier.verify(GOOD)
    issuer.moment += 1
    with pytest.raises(KeysUnavailable):
        verifier.verify(GOOD)


def test_no_more_tokens_are_remembered_than_agreed(issuer: Issuer, clock: Clock, signature_checks: list[str]) -> None:
    verifier = verifier_of(issuer, clock, remembered=2)
    first, second, third = (signed(claims(uti=uti), OURS) for uti in "abc")
    for token in (first, second, first, third, first, second):  # the third drives out the second, not the first
        verifier.verify(token)
    assert signature_checks == [first, second, third, second]


def test_many_threads_share_a_verifier(issuer: Issuer, clock: Clock) -> None:
    verifier = verifier_of(issuer, clock, remembered=4)
    apps = [f"{number:08x}{APP[8:]}" for number in range(8)]
    tokens = [signed(claims(app=app), OURS) for app in apps]
    start = threading.Barrier(64)

    def calls(thread: int) -> Iterator[bool]:
        start.wait(timeout=30)
        return iter([verifier.verify(tokens[(thread + n) % 8]).app_id == apps[(thread + n) % 8] for n in range(50)])

    with ThreadPoolExecutor(64) as pool:
        assert all(all(right) for right in pool.map(calls, range(64)))


# Minting


def test_minted_claims_have_the_shape_of_entras_v2_tokens() -> None:
    minted = app_only_claims(TENANT, APP, API, [WRITE], NOW)
    again = app_only_claims(TENANT, APP, API, [WRITE], NOW)
    assert minted.pop("uti") != again.pop("uti")
    assert minted == again
    assert minted.pop("oid") == minted.pop("sub") != app_only_claims(OTHER_TENANT, APP, API, [], NOW)["oid"]
    assert minted == {
        "aud": API,
        "iss": V2_OURS,
        "iat": EPOCH,
        "nbf": EPOCH,
        "exp": EPOCH + 3600,
        "azp": APP,
        "azpacr": "1",
        "idtyp": "app",
        "roles": [WRITE],
        "tid": TENANT,
        "ver": "2.0",
    }


def test_without_roles_there_is_no_such_claim() -> None:
    assert "roles" not in app_only_claims(TENANT, APP, API, [], NOW)


def test_the_lifetime_can_be_another() -> None:
    assert app_only_claims(TENANT, APP, API, [], NOW, timedelta(minutes=5))["exp"] == EPOCH + 300


def test_a_minted_token_names_its_key() -> None:
    key = SigningKey(OURS.private)
    assert jwt.get_unverified_header(mint(claims(), key)) == {"typ": "JWT", "alg": "RS256", "kid": key.kid}
