"""The tokens that requests bring, good and bad, by the names that templates have for them: {{app}}, {{expired}}, …"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from app.admin.access import Door
from app.emulator.grants import Issuer, SignIn
from app.emulator.tokens import mint
from tests.builders import ADMIN, READ, READ_WRITE, Clock, admin_settings, application, signing_key
from tests.tokens import APP, AUDIENCE, OTHER_APP, OTHER_TENANT, TENANT, USER, assemble, claims, hmac_sha256, rsa_key

BACK = "http://localhost:5000/back"


def good() -> dict[str, str]:
    """Return tokens that hold for a year, each allowing something else."""
    clock = Clock(datetime.now(UTC))
    held = {
        "app": application(clock, TENANT, READ_WRITE, app_id=APP),
        "reader": application(clock, TENANT, READ, app_id=APP),
        "other": application(clock, TENANT, READ_WRITE, app_id=OTHER_APP),
        "elsewhere": application(clock, OTHER_TENANT, READ_WRITE, app_id=APP),
        "nobody": application(clock, TENANT, "Other.Role", app_id=APP),
        "user": application(clock, TENANT, app_id=APP, scp="Presence.ReadWrite", oid=USER, idtyp="user"),
        "watcher": application(clock, TENANT, app_id=APP, scp="Presence.Read.All", oid=USER, idtyp="user"),
    }
    return {name: each.token for name, each in held.items()}


def bad() -> dict[str, str]:
    """Return tokens of which none holds."""
    key, forger, now = signing_key(), rsa_key("forger"), datetime.now(UTC)
    header = {"typ": "JWT", "kid": key.kid}
    hour = int((now + timedelta(hours=1)).timestamp())
    sound = claims(iat=hour - 3600, nbf=hour - 3600, exp=hour)
    return {
        "forged": assemble({**header, "alg": "RS256"}, sound, forger.sign),
        "unknown": assemble({**header, "alg": "RS256", "kid": "unknown"}, sound, forger.sign),
        "none": assemble({**header, "alg": "none"}, sound, lambda _: b""),
        "hs256": assemble({**header, "alg": "HS256"}, sound, hmac_sha256(forger.pem)),
        "cut": mint(sound, key)[:-20],
        "expired": mint({**sound, "exp": hour - 7200}, key),
        "future": mint({**sound, "nbf": hour + 3600}, key),
        "audience": mint({**sound, "aud": "https://management.azure.com"}, key),
        "unserved": mint({**sound, "tid": USER}, key),
        "textual": mint({**sound, "exp": str(hour)}, key),
        "anonymous": mint({**sound, "azp": None}, key),
        "long": "e" * 17_000,
    }


def granted() -> dict[str, str]:
    """Return an authorization code and a refresh token of the development issuer."""
    issuer = Issuer(signing_key, AUDIENCE, TENANT, Clock(datetime.now(UTC)))
    sign_in = SignIn(TENANT, APP, "alice@contoso.com", "openid offline_access Presence.Read", redirect_uri=BACK)
    code = issuer.code(sign_in)
    form = {"grant_type": "authorization_code", "code": code, "client_id": APP, "client_secret": "any"}
    tokens = issuer.tokens(TENANT, {**form, "redirect_uri": BACK})
    return {"code": code, "refresh_token": str(tokens["refresh_token"])}


def signed_in() -> dict[str, str]:
    """Return the cookie of who has signed in to the admin site, and what the forms bring back."""
    settings = admin_settings()
    door = Door(dict(settings["admin_users"]), settings["admin_secret_key"].get_secret_value())
    visit = door.visit(datetime.now(UTC), ADMIN)
    return {"visit": door.write(visit), "form_token": door.form_token(visit)}


def words() -> dict[str, str]:
    """Return all of them."""
    return {**good(), **bad(), **granted(), **signed_in()}


def filled(request: bytes, words: Mapping[str, str]) -> bytes:
    """Put words in for their names, and the length of the body for {{length}}."""
    for name, word in words.items():
        request = request.replace(b"{{%s}}" % name.encode(), word.encode())
    return request.replace(b"{{length}}", b"%d" % len(request.partition(b"\r\n\r\n")[2]))
