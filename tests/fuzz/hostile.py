"""What parts of a request are replaced by."""

from typing import Any

from tests.fuzz import credentials
from tests.tokens import APP, OTHER_APP, USER

# fmt: off
# ruff: noqa: E501, SIM905  # words in lines, as they are read

ID = USER.encode()
METHODS = b"GET GET POST POST PUT PATCH DELETE HEAD OPTIONS TRACE CONNECT BREW".split()
SEGMENTS = (
    b"", b"a" * 3000, ID, ID.upper(), b"{%s}" % ID, b"urn:uuid:" + ID, ID.replace(b"-", b""), ID + b"%0A",
    ID[:-1] + b"%D9%A7", APP.encode(), b"{{app}}",
    *b". .. %2e%2e %2f %5c %00 %0a %0d%0aX:%20y %c0%af %ff %ed%a0%80 %E2%80%AE % %2 %zz %40 @ ~ * ' (' ('x') ('')".split(),
    *b"('''')) ;a=b x;jsessionid=1 me users presence v1.0 BETA $batch $count communications getPresencesByUserId".split(),
    *b"microsoft.graph.clearPresence setPresence emulator snapshot oauth2 token authorize common bob@contoso.com".split(),
)
QUERIES = (
    b"$select=" + b"id," * 300, b"$filter=id%%20in%%20(%s)" % b",".join([b"'%s'" % ID] * 60), b"$skiptoken=" + ID,
    b"$filter=id%%20eq%%20'%s'" % ID, b"a" * 2000,
    *b"$select=id $select= $select=%00 $expand=x $top=0 $top=1 $top=99999999999 $top=-1 $top=%D9%A1".split(),
    *b"$top=1&$top=2 $count=true $count=yes $skiptoken=x $filter= $filter=id%20in%20('x') $orderby=id $search=x".split(),
    *b"$format=xml access_token={{app}} %ff=%fe &&=& %24select=id since=99999999999 since=-1".split(),
    *b"login_hint=%00&prompt=none state=%0d%0aX:y redirect_uri=javascript:alert(1) redirect_uri=http://[".split(),
    b"redirect_uri=http://a:x", b"q=%00", b"q=%ff", b"q=" + b"a" * 2000, b"after=%s/%s" % (ID, ID), b"before=" + b"9" * 18,
    *b"q=' q=%25 q=%C4%B0 tenant=x availability=x after=x after=/ before=0 before=-1 hours=0 ended=x next=//evil".split(),
)
HEADERS = tuple((name, value) for name, values in {
    b"Host": (b"", b"a b", b"[", b"[::1", b"x" * 300, b"\xff", b"evil.example", b"a:b:c", b"a/b", b"a:99999"),
    b"Content-Type": (
        b"", b"text/plain", b"application/json; charset=utf-16", b"application/jso", b"multipart/form-data", b"\xe9",
        b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded", b"application/json; charset=x",
    ),
    b"Content-Encoding": (b"gzip", b"br", b"deflate", b"gzip, gzip", b"", b"identity", b"\xff"),
    b"Content-Length": (b"0", b"-1", b"+5", b"1e1", b"5, 5", b"99999999", b"\xb2", b"0x10", b"1"),
    b"Transfer-Encoding": (b"chunked", b"Chunked", b"gzip", b"chunked, chunked", b"x", b""),
    b"Authorization": (
        b"", b"Bearer", b"Bearer ", b"bearer {{app}}", b"Basic OjA=", b"Basic \xff", b'Digest x="', b"Bearer\t{{app}}",
        b"Bearer {{app}}, Bearer {{app}}", b"Bearer {{app}} {{app}}",
    ),
    b"Accept": (b"", b"text/html", b"*/*;q=0", b"application/xml, image/*", b";;;", b"a" * 5000),
    b"client-request-id": (b"", b"x", ID, b"{%s}" % ID, b"\xe9" * 40),
    b"Origin": (b"null", b"https://evil.example", b"\xff", b"*", b"a" * 2000),
    b"X-Forwarded-Proto": (b"https", b"gopher", b"https, http", b""),
    b"Expect": (b"100-continue", b"x"),
    b"Range": (b"bytes=0-1", b"bytes=9-1", b"x=-"),
    b"If-None-Match": (b"*",),
    b"If-Modified-Since": (b"Thu, 01 Jan 1970 00:00:00 GMT", b"x"),
    b"Cookie": (
        b"a=\xff; b", b"presence-admin={{visit}}", b"presence-admin=", b"presence-admin=\xff", b"presence-admin={{visit}}x",
        b'presence-admin="\\377{{visit}}"', b"presence-admin=W10.x; presence-admin={{visit}}",
    ),
    b"X-HTTP-Method-Override": (b"DELETE",),
    b"X-Original-URL": (b"/emulator/reset",),
    b"Connection": (b"Upgrade", b"close, keep-alive"),
    b"Upgrade": (b"h2c", b"websocket"),
    b"HTTP2-Settings": (b"AAMAAABk",),
    b"SCRIPT_NAME": (b"/x", b"/v1.0"),
    b"Content_Length": (b"5",),
    b"Access-Control-Request-Headers": (b"\xff, a b",),
    b"Prefer": (b"return=minimal",),
    b"Trailer": (b"Authorization",),
}.items() for value in values)
BODIES = (
    b"", b"{", b"[]", b"null", b"0", b'""', b"{}{}", b"\xef\xbb\xbf{}", b"\xff\xfe{\0}\0", b"\0", b"{}\0", b"[" * 60_000,
    b'{"a":' * 5_000, b'{"a":' + b"9" * 5_000 + b"}", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b"x" * 70_000,
    b'{"sessionId": "\\ud800"}', b'{"sessionId": "\\u0000"}', b'{"\\ud800": 1}', b'{"sessionId": 1e400}',
    b'{"requests": []}',
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, 429, 503, 10_000,
    "", " ", "\0", "\ud800", "x" * 300, "é", "\N{RIGHT-TO-LEFT OVERRIDE}", "\U0001f600" * 141, "İ",
    [], [None], [[]], ["1"], ["2", "1"], ["1", "1"], [{}] * 21, {}, {"": {}}, {"sessionId": APP}, {"content": "x"},
    APP, OTHER_APP, USER, APP.upper(), f"{{{APP}}}", f"{APP}\n", APP[:-1] + "\u0667",
    *"Busy busy Available InACall Offline text html office GET post TRACE gzip 1 ? # \\ UTC Europe/Berlin e30=".split(),
    "PT\u0665M", "PT1H\n", *"PT5M PT4H PT0S P365D PT4H0.000001S P999999999D P1Y -PT1H PT1e3S".split(),
    *"0001-01-01T00:00:00 9999-12-31T23:59:59.9999999 2099-02-30T00:00:00 2026-03-02T08:00:00Z".split(),
    *"9999-12-31T23:59:59Z 0001-01-01T00:00:00Z 9999-12-31T23:59:59-23:59 0001-01-01T00:00:00+23:59".split(),
    "Pacific Standard Time", "../UTC", "a/" * 200, "/etc/passwd", "X Y", "Bearer {{other}}", f"/users/{USER}/presence",
    *"/me/presence //evil/x http://evil.example/v1.0/me http://127.0.0.1:8000/v1.0/me http://[ http://a:x/".split(),
    *"$batch /$batch ../emulator/reset /healthz /emulator/clock /me?$select=\ud7ff".split(),
    *({name: value} for name, value in {
        "Content-Type": "application/json", "content-type": "text/plain", "content-encoding": "gzip", "Host": "x",
        "Authorization": "Bearer x", "Transfer-Encoding": "chunked", "Content-Length": "1", "a b": "c", "A": "\n",
    }.items()),
)
NAMES = (
    "", "\ud800", "\0", "a" * 200,
    *"sessionId SessionId availability activity expirationDuration statusMessage message content contentType".split(),
    *"expiryDateTime dateTime timeZone workLocationType placeId ids requests id method url headers body".split(),
    *"dependsOn now advance frozen tables path times status retryAfter @odata.type __proto__".split(),
)
GOOD_TOKENS = tuple(name.encode() for name in credentials.good())
TOKENS = (*GOOD_TOKENS, *(name.encode() for name in (*credentials.bad(), "code", "refresh_token")))
