"""Requests that no sound client sends, and what each is answered; none may change a row.

`{{app}}` stands for a token that allows everything, `{{length}}` for the length of the body. USER has a session of APP.
"""

import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tests.tokens import APP, USER

Hostile = dict[str, tuple[bytes, list[int]]]
"""By name: what is sent on one connection, and the statuses of all answers to it."""

CLEAR, SET = (f"/v1.0/users/{USER}/presence/{action}Presence".encode() for action in ("clear", "set"))
BODY = json.dumps({"sessionId": APP}).encode()
TOKEN = b"Authorization: Bearer {{app}}\r\n"
LENGTH, CHUNKED = b"Content-Length: {{length}}\r\n", b"Transfer-Encoding: chunked\r\n"


def request(
    *headers: bytes,
    line: bytes = b"POST " + CLEAR + b" HTTP/1.1",
    host: bytes = b"Host: presence.test\r\n",
    token: bytes = TOKEN,
    body: bytes = BODY,
) -> bytes:
    """Put together a request that would clear the session if nothing were wrong with it; `headers` frame the body."""
    return b"".join((line, b"\r\n", host, token, b"Content-Type: application/json\r\n", *headers, b"\r\n", body))


SOUND = request(b"Content-Length: %d\r\n" % len(BODY))
"""A sound one: what an attacker wants to be taken out of the body of another."""


def chunked(body: bytes, *headers: bytes) -> bytes:
    return request(CHUNKED, *headers, body=body)


def posted(path: bytes, body: object, *headers: bytes, query: bytes = b"") -> bytes:
    """Send JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(LENGTH, *headers, line=b"POST " + path + query + b" HTTP/1.1", body=data)


def got(target: bytes, *headers: bytes) -> bytes:
    return request(*headers, line=b"GET " + target + b" HTTP/1.1", body=b"")


ONE_CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
CHUNKS = ONE_CHUNK + b"0\r\n\r\n"

FRAMING: Hostile = {
    # two lengths
    "Content-Length, then Transfer-Encoding": (request(LENGTH, CHUNKED, body=b"0\r\n\r\n" + SOUND), [400]),
    "Transfer-Encoding, then Content-Length": (request(CHUNKED, LENGTH, body=b"0\r\n\r\n" + SOUND), [400]),
    "two Content-Lengths that agree": (request(LENGTH, LENGTH), [400]),
    "two Content-Lengths that differ": (request(b"Content-Length: 0\r\n", LENGTH, body=SOUND), [400]),
    "a list of Content-Lengths": (request(b"Content-Length: 53, 53\r\n"), [400]),
    "Content-Length with a plus": (request(b"Content-Length: +53\r\n"), [400]),
    "Content-Length with a minus": (request(b"Content-Length: -53\r\n"), [400]),
    "Content-Length in hex": (request(b"Content-Length: 0x35\r\n"), [400]),
    "Content-Length with an underscore": (request(b"Content-Length: 5_3\r\n"), [400]),
    "Content-Length with a fraction": (request(b"Content-Length: 53.0\r\n"), [400]),
    "Content-Length in another script": (request("Content-Length: ٥٣\r\n".encode()), [400]),
    "Content-Length that is a superscript": (request(b"Content-Length: \xb2\r\n"), [400]),
    "Content-Length that is empty": (request(b"Content-Length:\r\n"), [400]),
    "Content-Length of 5,000 digits": (request(b"Content-Length: " + b"9" * 5_000 + b"\r\n"), [400]),
    "Content-Length too short, a request behind it": (
        request(b"Content-Length: 9\r\n", body=b'{"a": 1}' + SOUND),
        [400, 405],
    ),
    "Content-Length too long, and silence": (request(b"Content-Length: 999\r\n"), [400]),
    "Content-Length with zeros before it, too long": (request(b"Content-Length: 00000000000999\r\n"), [400]),
    "a body cut short": (request(b"Content-Length: 53\r\n", body=BODY[:-9]), [400]),
    # encodings
    "Transfer-Encoding gzip": (request(b"Transfer-Encoding: gzip\r\n"), [400]),
    "Transfer-Encoding identity": (request(b"Transfer-Encoding: identity\r\n", LENGTH), [400]),
    "Transfer-Encoding chunked, then gzip": (request(b"Transfer-Encoding: chunked, gzip\r\n", body=CHUNKS), [400]),
    "Transfer-Encoding gzip, then chunked": (request(b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKS), [400]),
    "Transfer-Encoding chunked twice in one": (
        request(b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKS),
        [400],
    ),
    "Transfer-Encoding chunked twice": (request(CHUNKED, CHUNKED, body=CHUNKS), [400]),
    "Transfer-Encoding xchunked": (request(b"Transfer-Encoding: xchunked\r\n", body=CHUNKS), [501]),
    "Transfer-Encoding with a vertical tab": (request(b"Transfer-Encoding: \x0bchunked\r\n", body=CHUNKS), [400]),
    "Transfer-Encoding in quotes": (request(b'Transfer-Encoding: "chunked"\r\n', body=CHUNKS), [501]),
    "Transfer-Encoding that is empty": (request(b"Transfer-Encoding:\r\n", LENGTH), [501]),
    "Transfer-Encoding with a blank before the colon": (request(b"Transfer-Encoding : chunked\r\n", LENGTH), [400]),
    "Transfer-Encoding in HTTP/1.0": (
        request(CHUNKED, line=b"POST " + CLEAR + b" HTTP/1.0", body=b"0\r\n\r\n" + SOUND),
        [400],
    ),
    # chunks
    "a chunk size that is no number": (chunked(b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size with 0x": (chunked(b"0x35\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size with a plus": (chunked(b"+35\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size with a minus": (chunked(b"-35\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size with an underscore": (chunked(b"3_5\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size with a blank before it": (chunked(b" 35\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size with a blank after it": (chunked(b"35 \r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size that is empty": (chunked(b"\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size beyond 64 bits": (chunked(b"f" * 20 + b"\r\n" + BODY), [400]),
    "a chunk size line of 20,000 bytes": (chunked(b"35;" + b"a" * 20_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk that is too short": (chunked(b"30\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk that is too long": (chunked(b"40\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk ended by a bare LF": (chunked(b"35\r\n" + BODY + b"\n0\r\n\r\n"), [400]),
    "a chunk size ended by a bare LF": (chunked(b"35\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk size ended by a bare CR": (chunked(b"35\r" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk extension with a CR": (chunked(b"35;a=\rb\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk extension with a LF": (chunked(b"35;a=\nb\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk extension without a name": (chunked(b"35;=b\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "a chunk extension with a NUL": (chunked(b"35;a=\0\r\n" + BODY + b"\r\n0\r\n\r\n"), [400]),
    "no last chunk": (chunked(ONE_CHUNK), [400]),
    "no end of the trailers": (chunked(ONE_CHUNK + b"0\r\n"), [400]),
    "a trailer that is folded": (chunked(ONE_CHUNK + b"0\r\nA: b\r\n c\r\n\r\n"), [400]),
    "a trailer without a colon": (chunked(ONE_CHUNK + b"0\r\nA\r\n\r\n"), [400]),
    "a trailer ended by a bare LF": (chunked(ONE_CHUNK + b"0\r\nA: b\n\r\n"), [400]),
    "a request behind a malformed chunk": (chunked(b"zz\r\n\r\n" + SOUND), [400]),
    "a request in a chunk": (chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(SOUND), SOUND)), [400]),
    # headers
    "a folded header": (request(LENGTH, b"X-A: b\r\n c\r\n"), [400]),
    "a folded Content-Length": (request(b"Content-Length:\r\n 53\r\n"), [400]),
    "a blank before a colon": (request(b"Content-Length : 53\r\n"), [400]),
    "a tab before a colon": (request(b"Content-Length\t: 53\r\n"), [400]),
    "a header without a colon": (request(LENGTH, b"X-A\r\n"), [400]),
    "a header without a name": (request(LENGTH, b": b\r\n"), [400]),
    "a blank before the first header": (request(LENGTH, host=b" Host: presence.test\r\n"), [400]),
    "a name with a control character": (request(LENGTH, b"X-\x01A: b\r\n"), [400]),
    "a name with a blank": (request(LENGTH, b"X A: b\r\n"), [400]),
    "a name beyond ASCII": (request(LENGTH, "X-\N{LATIN SMALL LETTER E WITH ACUTE}: b\r\n".encode()), [400]),
    "a value with a NUL": (request(LENGTH, b"X-A: \0\r\n"), [400]),
    "a value with a bare CR": (request(LENGTH, b"X-A: b\rX-C: d\r\n"), [400]),
    "a value with a bare LF": (request(LENGTH, b"X-A: b\nX-C: d\r\n"), [400]),
    "a value with a control character": (request(LENGTH, b"X-A: \x07\r\n"), [400]),
    "a value with DEL": (request(LENGTH, b"X-A: \x7f\r\n"), [400]),
    "lines that end with LF alone": (request(LENGTH).replace(b"\r\n", b"\n"), [400]),
    "no Host": (request(LENGTH, host=b""), [400]),
    "two Hosts": (request(LENGTH, b"Host: evil.test\r\n"), [400]),
    "two Content-Types": (request(LENGTH, b"Content-Type: text/plain\r\n"), [400]),
    "an Expect that is not known": (request(LENGTH, b"Expect: a-miracle\r\n"), [417]),
    "65 headers": (request(LENGTH, *(b"X-%d: x\r\n" % number for number in range(61))), [431]),
    "a header of 8,191 bytes": (request(LENGTH, b"X-A: " + b"a" * (8_191 - 7) + b"\r\n"), [431]),
    "a token of 9,000 bytes": (request(LENGTH, token=b"Authorization: Bearer " + b"e" * 9_000 + b"\r\n"), [431]),
    # the request line
    "a line of 4,095 bytes": (got(b"/" + b"a" * (4_095 - 14)), [414]),
    "a method in lower case": (request(LENGTH, line=b"post " + CLEAR + b" HTTP/1.1"), [400]),
    "a method with a control character": (request(LENGTH, line=b"PO\x01ST " + CLEAR + b" HTTP/1.1"), [400]),
    "a method of two letters": (request(LENGTH, line=b"PO " + CLEAR + b" HTTP/1.1"), [400]),
    "a method of 30 letters": (request(LENGTH, line=b"P" * 30 + b" " + CLEAR + b" HTTP/1.1"), [400]),
    "no method": (request(LENGTH, line=b" " + CLEAR + b" HTTP/1.1"), [400]),
    "no target": (request(LENGTH, line=b"POST  HTTP/1.1"), [400]),
    "no version": (request(LENGTH, line=b"POST " + CLEAR), [400]),
    "HTTP/0.9": (b"GET " + CLEAR + b"\r\n", [400]),
    "HTTP/2.0": (request(LENGTH, line=b"POST " + CLEAR + b" HTTP/2.0"), [400]),
    "HTTP/1.10": (request(LENGTH, line=b"POST " + CLEAR + b" HTTP/1.10"), [400]),
    "http/1.1": (request(LENGTH, line=b"POST " + CLEAR + b" http/1.1"), [400]),
    "HTTP/1.1 and more": (request(LENGTH, line=b"POST " + CLEAR + b" HTTP/1.1 x"), [400]),
    "two blanks": (request(LENGTH, line=b"POST  " + CLEAR + b" HTTP/1.1"), [400]),
    "a tab for a blank": (request(LENGTH, line=b"POST\t" + CLEAR + b"\tHTTP/1.1"), [400]),
    "a blank in the target": (request(LENGTH, line=b"POST " + CLEAR + b"?a b HTTP/1.1"), [400]),
    "a NUL in the target": (request(LENGTH, line=b"POST " + CLEAR + b"\0 HTTP/1.1"), [400]),
    "a CR in the target": (request(LENGTH, line=b"POST " + CLEAR + b"\rx HTTP/1.1"), [400]),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
    "a TLS hello": (bytes.fromhex("16030100c8010000c40303") + bytes(200) + b"\r\n\r\n", [400]),
    "the method CONNECT": (request(LENGTH, line=b"CONNECT presence.test:443 HTTP/1.1"), [404]),
    "the method TRACE": (request(LENGTH, line=b"TRACE " + CLEAR + b" HTTP/1.1"), [405]),
    "an asterisk for a target": (request(LENGTH, line=b"POST * HTTP/1.1"), [400]),
    "another method in a header": (got(CLEAR, b"X-HTTP-Method-Override: POST\r\n"), [405]),
    # one request behind another
    "a sound request behind an unknown version": (request(LENGTH, line=b"POST / HTTP/3.0") + SOUND, [400]),
    "a sound request behind a folded header": (request(LENGTH, b"A: b\r\n c\r\n") + SOUND, [400]),
    "a sound request behind two lengths": (
        request(b"Content-Length: 0\r\n", CHUNKED, body=b"0\r\n\r\n") + SOUND,
        [400],
    ),
    "a sound request behind HTTP/1.0": (
        request(b"Content-Length: 0\r\n", line=b"GET / HTTP/1.0", body=b"") + SOUND,
        [404],
    ),
    "a sound request behind a close": (got(b"/", b"Connection: close\r\n") + SOUND, [404]),
}

OTHER = b"Authorization: Bearer {{other}}\r\n"
TOKENS: Hostile = {
    "a second Authorization, the same": (request(LENGTH, TOKEN), [401]),
    "a second Authorization, a worse one before": (request(LENGTH, TOKEN, token=OTHER), [401]),
    "a second Authorization, a worse one behind": (request(LENGTH, OTHER), [401]),
    "two tokens in one header": (request(LENGTH, token=b"Authorization: Bearer {{app}}, Bearer {{app}}\r\n"), [401]),
    "two tokens with a blank": (request(LENGTH, token=b"Authorization: Bearer {{app}} {{app}}\r\n"), [401]),
    "Authorization with an underscore": (request(LENGTH, token=b"Authorization_: Bearer {{app}}\r\n"), [401]),
    "a token in the query": (
        posted(CLEAR, {"sessionId": APP}, query=b"?access_token={{app}}").replace(TOKEN, b""),
        [401],
    ),
    "a token in the body": (
        request(
            LENGTH,
            token=b"",
            body=b"access_token={{app}}",
        ),
        [401],
    ),
    "a token in a cookie": (request(LENGTH, token=b"Cookie: Authorization=Bearer%20{{app}}\r\n"), [401]),
    "a token in quotes": (request(LENGTH, token=b'Authorization: Bearer "{{app}}"\r\n'), [401]),
    "a token by another scheme": (request(LENGTH, token=b"Authorization: Basic {{app}}\r\n"), [401]),
    "a token without a scheme": (request(LENGTH, token=b"Authorization: {{app}}\r\n"), [401]),
    "a token for another header": (request(LENGTH, token=b"Proxy-Authorization: Bearer {{app}}\r\n"), [401]),
    "no token": (request(LENGTH, token=b""), [401]),
    "somebody else's session": (request(LENGTH, token=OTHER), [403]),
    "the same application elsewhere": (request(LENGTH, token=b"Authorization: Bearer {{elsewhere}}\r\n"), [404]),
    "a reader": (request(LENGTH, token=b"Authorization: Bearer {{reader}}\r\n"), [403]),
    "nobody": (request(LENGTH, token=b"Authorization: Bearer {{nobody}}\r\n"), [403]),
    "a user": (request(LENGTH, token=b"Authorization: Bearer {{user}}\r\n"), [403]),
    **{
        f"the token {{{{{name}}}}}": (request(LENGTH, token=b"Authorization: Bearer {{%s}}\r\n" % name.encode()), [401])
        for name in (
            "forged",
            "unknown",
            "none",
            "hs256",
            "cut",
            "expired",
            "future",
            "audience",
            "unserved",
            "textual",
        )
    },
}

_USERS = {
    "in braces": f"%7B{USER}%7D",
    "as a URN": f"urn:uuid:{USER}",
    "without dashes": USER.replace("-", ""),
    "with a newline": f"{USER}%0A",
    "with a blank": f"{USER}%20",
    "with an Arabic digit": USER.replace("8", quote("\u0668"), 1),
    "with a fullwidth digit": USER.replace("8", quote("\uff18"), 1),
    "with a NUL": f"{USER}%00",
    "with one letter more": f"{USER}0",
    "with one letter less": USER[:-1],
    "with a wildcard": f"{USER[:-1]}%25",
    "with a quote": f"{USER}'--",
    "that is a name": "alice@contoso.com",
    "that is me": "me",
    "that is no UTF-8": "%FF%FE",
    "in overlong UTF-8": "%C0%AF",
    "that is a surrogate": "%ED%A0%80",
    "encoded twice": USER.replace("-", "%252D"),
    "of 3,000 letters": "a" * 3_000,
}
_PATHS = {
    "a NUL": f"{CLEAR.decode()}%00",
    "a newline": f"{CLEAR.decode()}%0A",
    "a matrix parameter": f"{CLEAR.decode()};jsessionid=1",
    "a matrix parameter before": f"/v1.0;a=b/users/{USER}/presence/clearPresence",
    "two slashes in front": f"/{CLEAR.decode()}",
    "two slashes within": CLEAR.decode().replace("/users", "//users"),
    "an encoded slash": CLEAR.decode().replace("/presence", "%2F%2Fpresence"),
    "a way up": f"/v1.0/../v1.0/users/{USER}/presence/clearPresence",
    "an encoded way up": f"/v1.0/%2e%2e/v1.0/users/{USER}/presence/clearPresence",
    "a dot": CLEAR.decode().replace("/users", "/./users"),
    "a backslash": CLEAR.decode().replace("/users", "%5Cusers"),
    "half an escape": f"{CLEAR.decode()}%",
    "no escape": f"{CLEAR.decode()}%zz",
    "overlong UTF-8": CLEAR.decode().replace("/users", "%C0%AFusers"),
    "an extension": f"{CLEAR.decode()}.json",
    "another action": f"/v1.0/users/{USER}/presence/dropPresence",
    "no such mount": CLEAR.decode().replace("v1.0", "v2.0"),
    "a mount twice": f"/v1.0{CLEAR.decode()}",
    "the emulator": "/emulator/reset",
    "the development issuer": "/common/oauth2/v2.0/token",
    "the way to a file": "/docs/..%2F..%2Fconfig.py",
}
PATHS: Hostile = {
    **{
        f"a user {how}": (posted(f"/v1.0/users/{user}/presence/clearPresence".encode(), {"sessionId": APP}), [400])
        for how, user in _USERS.items()
    },
    **{f"a path with {what}": (posted(path.encode(), {"sessionId": APP}), [404]) for what, path in _PATHS.items()},
}

_QUERIES = {
    "$select of nothing known": "/v1.0/me/presence?$select=secret",
    "$select with a NUL": f"/v1.0/users/{USER}/presence?$select=%00",
    "$select that is no UTF-8": f"/v1.0/users/{USER}/presence?$select=%FF",
    "$filter on presence": f"/v1.0/users/{USER}/presence?$filter=id%20eq%20'x'",
    "an option that is not known": f"/v1.0/users/{USER}/presence?$format=xml",
    "an option that is encoded": f"/v1.0/users/{USER}/presence?%24format=xml",
    "$filter with an injection": "/v1.0/communications/presences?$filter=id%20eq%20'x'%20or%201%20eq%201",
    "$filter with an id that is none": "/v1.0/communications/presences?$filter=id%20in%20('x')",
    "$filter of nothing": "/v1.0/communications/presences?$filter=",
    "$top of 0": "/v1.0/communications/presences?$top=0",
    "$top below 0": "/v1.0/communications/presences?$top=-1",
    "$top beyond 9 digits": "/v1.0/communications/presences?$top=9999999999",
    "$top in another script": "/v1.0/communications/presences?$top=%D9%A1",
    "$count that is neither": "/v1.0/communications/presences?$count=1",
    "$skiptoken that no link had": "/v1.0/communications/presences?$skiptoken=x",
    "$orderby": "/v1.0/communications/presences?$orderby=id",
    "$search": "/v1.0/users/x?$search=y",
}
QUERIES: Hostile = {name: (got(target.encode()), [400]) for name, target in _QUERIES.items()}


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


BODIES: Hostile = {
    "no JSON": (posted(CLEAR, b"sessionId"), [400]),
    "half of JSON": (posted(CLEAR, BODY[:-1]), [400]),
    "JSON and more": (posted(CLEAR, BODY + b"x"), [400]),
    "JSON twice": (posted(CLEAR, BODY + BODY), [400]),
    "JSON and a NUL": (posted(CLEAR, BODY + b"\0"), [400]),
    "a byte order mark": (posted(CLEAR, b"\xef\xbb\xbf" + BODY), [400]),
    "UTF-16": (posted(CLEAR, BODY.decode().encode("utf-16")), [400]),
    "Latin-1": (posted(CLEAR, BODY[:-1] + b', "a": "\xe9"}'), [400]),
    "overlong UTF-8": (posted(CLEAR, BODY[:-1] + b', "a": "\xc0\xaf"}'), [400]),
    "a surrogate as UTF-8": (posted(CLEAR, BODY[:-1] + b', "a": "\xed\xa0\x80"}'), [400]),
    "half of a character": (posted(CLEAR, BODY.replace(APP.encode(), b"\\ud800")), [400]),
    "an escaped NUL": (posted(CLEAR, BODY.replace(b'"}', b'\\u0000"}')), [400]),
    "a control character": (posted(CLEAR, BODY[:-1] + b', "a": "\x01"}'), [400]),
    "NaN": (posted(CLEAR, BODY[:-1] + b', "a": NaN}'), [400]),
    "Infinity": (posted(CLEAR, BODY[:-1] + b', "a": -Infinity}'), [400]),
    "a number of 4,301 digits": (posted(CLEAR, BODY[:-1] + b', "a": ' + b"9" * 4_301 + b"}"), [400]),
    "a member twice": (posted(CLEAR, BODY[:-1] + b', "sessionId": "%s"}' % APP.encode()), [400]),
    "a member twice, spelled with an escape": (posted(CLEAR, BODY[:-1] + b', "session\\u0049d": "x"}'), [400]),
    "a comment": (posted(CLEAR, BODY[:-1] + b"/* */}"), [400]),
    "a comma too many": (posted(CLEAR, BODY[:-1] + b",}"), [400]),
    "single quotes": (posted(CLEAR, BODY.replace(b'"', b"'")), [400]),
    "a list": (posted(CLEAR, [{"sessionId": APP}]), [400]),
    "a text": (posted(CLEAR, APP), [400]),
    "null": (posted(CLEAR, None), [400]),
    "65 objects within each other": (posted(CLEAR, nested(65)), [400]),
    "65 lists within each other": (posted(CLEAR, b'{"a":' + b"[" * 64 + b"]" * 64 + b"}"), [400]),
    "10,000 objects within each other": (posted(CLEAR, nested(10_000)), [400]),
    "60,000 lists begun": (posted(CLEAR, b"[" * 60_000), [400]),
    "64 KiB and a byte": (posted(CLEAR, BODY.ljust(64 * 1024 + 1)), [413]),
    "1 MiB and a byte": (posted(b"/v1.0/$batch", BODY.ljust(1024 * 1024 + 1)), [413]),
    "64 KiB and a byte in chunks": (chunked(b"10001\r\n" + BODY.ljust(64 * 1024 + 1) + b"\r\n0\r\n\r\n"), [413]),
    "a form": (posted(CLEAR, b"sessionId=x").replace(b"application/json", b"application/x-www-form-urlencoded"), [415]),
    "XML": (posted(CLEAR, b"<!DOCTYPE x>").replace(b"application/json", b"application/xml"), [415]),
    "several parts": (posted(CLEAR, BODY).replace(b"application/json", b"multipart/form-data; boundary=x"), [415]),
    "no label": (posted(CLEAR, BODY).replace(b"Content-Type: application/json\r\n", b""), [415]),
    "a torn gzip": (posted(CLEAR, gzip.compress(BODY)[:-5], b"Content-Encoding: gzip\r\n"), [400]),
    "a gzip with a wrong checksum": (
        posted(CLEAR, gzip.compress(BODY)[:-8] + bytes(8), b"Content-Encoding: gzip\r\n"),
        [400],
    ),
    "no gzip": (posted(CLEAR, BODY, b"Content-Encoding: gzip\r\n"), [400]),
    "a gzip of 50 MiB": (posted(CLEAR, gzip.compress(bytes(50 * 1024 * 1024)), b"Content-Encoding: gzip\r\n"), [413]),
    "a gzip in a gzip": (posted(CLEAR, gzip.compress(gzip.compress(BODY)), b"Content-Encoding: gzip\r\n"), [400]),
    "gzip twice": (posted(CLEAR, gzip.compress(BODY), b"Content-Encoding: gzip, gzip\r\n"), [415]),
    "brotli": (posted(CLEAR, BODY, b"Content-Encoding: br\r\n"), [415]),
    "deflate": (posted(CLEAR, BODY, b"Content-Encoding: deflate\r\n"), [415]),
    "an Accept without JSON": (got(b"/v1.0/users/%s/presence" % USER.encode(), b"Accept: text/html\r\n"), [406]),
}

SESSION = {"sessionId": APP, "availability": "Away", "activity": "Away", "expirationDuration": "PT1H"}
PREFERENCE = {"availability": "Away", "activity": "Away", "expirationDuration": "PT1H"}
MESSAGE = {
    "statusMessage": {
        "message": {"content": "x", "contentType": "text"},
        "expiryDateTime": {"dateTime": "2099-09-01T08:00:00", "timeZone": "UTC"},
    }
}
LOCATION = {"workLocationType": "office", "placeId": None}
JSON_HEADERS = {"Content-Type": "application/json"}
PART: dict[str, Any] = {
    "id": "1",
    "method": "POST",
    "url": CLEAR.decode().removeprefix("/v1.0"),
    "body": {"sessionId": APP},
}
PART["headers"] = JSON_HEADERS
_NUMBERS_AND_SUCH: tuple[Any, ...] = (7, True, [], {})
_WRONG: dict[str, tuple[Any, dict[str, tuple[Any, ...]]]] = {
    f"/users/{USER}/presence/setPresence": (
        SESSION,
        {
            "sessionId": (
                *_NUMBERS_AND_SUCH,
                None,
                "",
                f"{{{APP}}}",
                f"{APP}\n",
                f"urn:uuid:{APP}",
                APP[:-1] + "\u0667",
            ),
            "availability": (*_NUMBERS_AND_SUCH, None, "Offline", "Away\0"),
            "activity": (*_NUMBERS_AND_SUCH, None, "Offline"),
            "expirationDuration": (*_NUMBERS_AND_SUCH, "", "PT4M59S", "PT4H1S", "P1M", "-PT1H", "PT\u0665M", "PT1H\n"),
        },
    ),
    f"/users/{USER}/presence/setUserPreferredPresence": (
        PREFERENCE,
        {
            "availability": (7, None, "Nowhere"),
            "activity": (7, None, "InACall"),
            "expirationDuration": (7, "P366D", "PT0S"),
        },
    ),
    f"/users/{USER}/presence/setStatusMessage": (
        MESSAGE,
        {
            "statusMessage": (7, "x", []),
            "statusMessage.message": (7, "x", []),
            "statusMessage.message.content": (7, [], {}, "x" * 281, "\ud800"),
            "statusMessage.message.contentType": (7, "html"),
            "statusMessage.expiryDateTime": (7, "2099-09-01T08:00:00", []),
            "statusMessage.expiryDateTime.dateTime": (7, None, "x", "2099-02-30T00:00:00", "2001-01-01T00:00:00"),
            "statusMessage.expiryDateTime.timeZone": (7, [], "Mars/Olympus", "../UTC", "/etc/passwd", "a" * 500),
        },
    ),
    f"/users/{USER}/presence/setManualLocation": (
        LOCATION,
        {"workLocationType": (7, None, "space", []), "placeId": (7, [], {}, "x" * 257)},
    ),
    "/communications/getPresencesByUserId": (
        {"ids": [USER]},
        {"ids": (7, "x", None, {}, [7], [None], ["x"], [[]], [f"{USER}\n"], [USER] * 651)},
    ),
}


def _members() -> Iterator[tuple[str, tuple[bytes, list[int]]]]:
    for path, (sound, wrong) in _WRONG.items():
        for place, values in wrong.items():
            for number, value in enumerate(values):
                body = json.loads(json.dumps(sound))
                *above, last = place.split(".")
                holder = body
                for name in above:
                    holder = holder[name]
                holder[last] = value
                name = f"{path.rpartition('/')[2]}, {place} number {number}"
                yield name, (posted(f"/v1.0{path}".encode(), body), [400])


MEMBERS: Hostile = dict(_members())


def batch(*parts: object) -> bytes:
    return posted(b"/v1.0/$batch", {"requests": list(parts)})


BATCHES: Hostile = {
    "a batch of nothing": (batch(), [400]),
    "a batch of 21": (batch(*({**PART, "id": f"{number}"} for number in range(21))), [400]),
    "a batch that is a list": (posted(b"/v1.0/$batch", [PART]), [400]),
    "a batch that goes 65 levels down": (
        batch({**PART, "body": json.loads(nested(62))}),
        [400],
    ),
    "a batch of a text": (batch("x"), [400]),
    "an id twice": (batch(PART, PART), [400]),
    "an id twice in other letters": (batch({**PART, "id": "a"}, {**PART, "id": "A"}), [400]),
    "an id that is a number": (batch({**PART, "id": 1}), [400]),
    "no id": (batch({**PART, "id": ""}), [400]),
    "a method that is none": (batch({**PART, "method": "P O"}), [400]),
    "a method with a newline": (batch({**PART, "method": "POST\n"}), [400]),
    "no url": (batch({**PART, "url": ""}), [400]),
    "a url with a NUL": (batch({**PART, "url": "/me\0"}), [200, 404]),
    "headers that are a list": (batch({**PART, "headers": []}), [400]),
    "a header with a newline": (batch({**PART, "headers": {"Content-Type": "application/json\r\nX: y"}}), [400]),
    "a header whose name has a newline": (batch({**PART, "headers": {"A\n": "b"}}), [400]),
    "a header that is a number": (batch({**PART, "headers": {"A": 1}}), [400]),
    "a header beyond Latin-1": (batch({**PART, "headers": {"A": "\u0667"}}), [400]),
    "a body without a label": (batch({**PART, "headers": {}}), [400]),
    "a body that is no base64": (batch({**PART, "headers": {"Content-Type": "text/plain"}, "body": "?"}), [400]),
    "dependsOn that is a text": (batch({**PART, "dependsOn": "1"}), [400]),
    "dependsOn of nobody": (batch({**PART, "dependsOn": ["2"]}), [400]),
    "dependsOn of itself": (batch({**PART, "dependsOn": ["1"]}), [400]),
    "dependsOn in a circle": (batch({**PART, "dependsOn": ["2"]}, {**PART, "id": "2", "dependsOn": ["1"]}), [400]),
    **{
        f"in a batch: {what}": (batch({**PART, **changed}), [200, status])
        for what, changed, status in (
            ("another host", {"url": f"http://evil.test{CLEAR.decode()}"}, 400),
            ("another host without a scheme", {"url": f"//evil.test{CLEAR.decode()}"}, 400),
            ("a file", {"url": "file:///etc/passwd"}, 400),
            ("another mount", {"url": f"http://presence.test/beta{CLEAR.decode()[5:]}"}, 400),
            ("another port", {"url": f"http://presence.test:1{CLEAR.decode()}"}, 400),
            ("another user before the host", {"url": f"http://presence.test@evil.test{CLEAR.decode()}"}, 400),
            ("a url that is none", {"url": "http://["}, 400),
            ("a way up", {"url": "/../emulator/reset"}, 404),
            ("an encoded slash in front", {"url": "/%2Fusers"}, 404),
            ("a batch", {"url": "/$batch", "body": {"requests": [PART]}}, 400),
            ("a batch in other letters", {"url": "/$BATCH", "body": {"requests": [PART]}}, 400),
            ("a method that it has not", {"method": "DELETE"}, 405),
            ("the method TRACE", {"method": "TRACE"}, 405),
            ("a user that is none", {"url": "/users/x/presence/clearPresence"}, 400),
            ("a session of somebody else", {"body": {"sessionId": USER}}, 403),
            ("a body that is a list", {"body": []}, 400),
            ("a body of gzip that is none", {"headers": {**JSON_HEADERS, "Content-Encoding": "gzip"}}, 400),
            ("another type", {"headers": {"Content-Type": "text/plain"}, "body": "eA=="}, 415),
        )
    },
}

READ, READ_MANY = f"/v1.0/users/{USER}/presence".encode(), b"/v1.0/communications/getPresencesByUserId"
IDS = json.dumps({"ids": [USER]}).encode()
READ_PART = {"id": "", "method": "GET", "url": READ.decode().removeprefix("/v1.0")}

AT_A_LIMIT: dict[str, bytes] = {
    "a line of 4,094 bytes": got(READ + b"?" + b"a" * (4_094 - 14 - len(READ))),
    "64 headers": got(READ, *(b"X-%d: x\r\n" % number for number in range(61))),
    "a header of 8,190 bytes": got(READ, b"X-A: " + b"a" * (8_190 - 7) + b"\r\n"),
    "64 objects within each other": posted(READ_MANY, IDS[:-1] + b', "a": ' + nested(63) + b"}"),
    "64 lists within each other": posted(READ_MANY, IDS[:-1] + b', "a": ' + b"[" * 63 + b"]" * 63 + b"}"),
    "brackets in a text": posted(READ_MANY, IDS[:-1] + b', "a": "' + b'[{\\"' * 1_000 + b'"}'),
    "brackets beside each other": posted(READ_MANY, IDS[:-1] + b', "a": [' + b"[]," * 1_000 + b"[]]}"),
    "a number of 4,300 digits": posted(READ_MANY, IDS[:-1] + b', "a": ' + b"9" * 4_300 + b"}"),
    "64 KiB": posted(READ_MANY, IDS.ljust(64 * 1024)),
    "64 KiB in chunks": request(
        CHUNKED,
        line=b"POST " + READ_MANY + b" HTTP/1.1",
        body=b"10000\r\n" + IDS.ljust(64 * 1024) + b"\r\n0\r\n\r\n",
    ),
    "64 KiB in a gzip": posted(READ_MANY, gzip.compress(IDS.ljust(64 * 1024)), b"Content-Encoding: gzip\r\n"),
    "1 MiB": posted(b"/v1.0/$batch", json.dumps({"requests": [READ_PART | {"id": "1"}]}).encode().ljust(1024 * 1024)),
    "650 ids": posted(READ_MANY, {"ids": [USER] * 650}),
    "a batch of 20": batch(*(READ_PART | {"id": f"{number}"} for number in range(20))),
}
"""By name: sound requests that change nothing, each as large as it may be."""

HOSTILE: Hostile = {
    f"{kind}: {name}": row
    for kind, table in {
        "framing": FRAMING,
        "token": TOKENS,
        "path": PATHS,
        "query": QUERIES,
        "body": BODIES,
        "member": MEMBERS,
        "batch": BATCHES,
    }.items()
    for name, row in table.items()
}
