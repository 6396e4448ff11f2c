"""What is sent: real requests, changed where their parts are read, and then at any byte."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import hostile

CORPUS = Path(__file__).with_name("corpus.http")
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass
class Parts:
    """A request in its parts; `raw` puts them together, whether or not they fit."""

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def copy(self) -> "Parts":
        return Parts(self.method, self.target, self.version, list(self.headers), self.body)

    def raw(self) -> bytes:
        head = [b" ".join((self.method, self.target, self.version)), *(b": ".join(each) for each in self.headers)]
        return b"\r\n".join(head) + b"\r\n\r\n" + self.body

    def put(self, name: bytes, value: bytes | None) -> None:
        """Let a header have this value, or not be there."""
        self.headers = [each for each in self.headers if each[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))

    def holds(self, name: bytes) -> bool:
        return any(each[0].lower() == name.lower() for each in self.headers)


def read_corpus() -> dict[str, Parts]:
    """Return the requests of the corpus by their titles. Its lines end as a text's do; a chunked body's as HTTP's."""
    return {
        title: _read(request)
        for title, _, request in (part.partition("\n") for part in CORPUS.read_text().split("### ")[1:])
    }


def _read(request: str) -> Parts:
    head, _, body = request.partition("\n\n")
    first, *lines = head.encode().split(b"\n")
    method, target, version = first.split(b" ")
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    parts = Parts(method, target, version, headers, body.removesuffix("\n").encode())
    if parts.holds(b"Transfer-Encoding"):
        parts.body = body.replace("\n", "\r\n").encode()
    return parts


SEEDS = read_corpus()


def _other_method(draw: Draw, parts: Parts) -> None:
    parts.method = draw(st.sampled_from(hostile.METHODS))


def _other_path(draw: Draw, parts: Parts) -> None:
    path, mark, query = parts.target.partition(b"?")
    segments = path.split(b"/")
    at = draw(st.integers(1, len(segments)))
    replaced = draw(st.booleans())
    segments[at : at + replaced] = [draw(st.sampled_from(hostile.SEGMENTS))]
    parts.target = b"/".join(segments) + mark + query


def _percent(draw: Draw, parts: Parts) -> None:
    at = draw(st.integers(0, max(0, len(parts.target) - 1)))
    parts.target = parts.target[:at] + b"%%%02x" % parts.target[at] + parts.target[at + 1 :] if parts.target else b"%"


def _other_target(draw: Draw, parts: Parts) -> None:
    forms = (b"*", b"http://127.0.0.1:8000" + parts.target, b"//evil.example" + parts.target, b"", b"http://[")
    parts.target = draw(st.sampled_from(forms))


def _other_query(draw: Draw, parts: Parts) -> None:
    path, mark, query = parts.target.partition(b"?")
    added = draw(st.sampled_from(hostile.QUERIES))
    parts.target = path + b"?" + (query + b"&" + added if mark and draw(st.booleans()) else added)


def _other_token(draw: Draw, parts: Parts) -> None:
    name = draw(st.sampled_from(hostile.TOKENS) | st.sampled_from(hostile.GOOD_TOKENS))
    parts.put(b"Authorization", b"Bearer {{%s}}" % name)


def _other_header(draw: Draw, parts: Parts) -> None:
    name, value = draw(st.sampled_from(hostile.HEADERS))
    if draw(st.integers(0, 3)):
        parts.put(name, value)
    else:
        parts.headers.append((name, value))


def _less_headers(draw: Draw, parts: Parts) -> None:
    if parts.headers:
        del parts.headers[draw(st.integers(0, len(parts.headers) - 1))]


def _more_headers(draw: Draw, parts: Parts) -> None:
    parts.headers += [(b"X-%d" % number, b"x") for number in range(draw(st.sampled_from((40, 58, 64))))]


def _other_version(draw: Draw, parts: Parts) -> None:
    parts.version = draw(st.sampled_from((b"HTTP/1.0", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"")))


def _other_body(draw: Draw, parts: Parts) -> None:
    parts.body = draw(st.sampled_from(hostile.BODIES) | st.sampled_from([seed.body for seed in SEEDS.values()]))
    if not parts.holds(b"Content-Length"):
        parts.put(b"Content-Length", b"{{length}}")


def _other_member(draw: Draw, parts: Parts) -> None:
    """Change what is in a body of JSON: a value, the name of a member, whether it is there, and how often."""
    try:
        document = json.loads(parts.body)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict | list):
        holder: Any = document
        while inner := [each for each in _inside(holder) if isinstance(each, dict | list) and each]:
            if draw(st.integers(0, 2)) == 0:
                break
            holder = draw(st.sampled_from(inner))
        value = draw(st.sampled_from(hostile.VALUES))
        places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        change = draw(st.sampled_from(("replace", "replace", "remove", "add", "again")))
        if change in {"replace", "remove"} and places:
            place = draw(st.sampled_from(places))
            if change == "replace":
                holder[place] = value
            else:
                del holder[place]
        elif isinstance(holder, list):
            holder.append(holder[0] if change == "again" and holder else value)
        else:
            holder[draw(st.sampled_from(hostile.NAMES))] = value
    parts.body = json.dumps(document, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def _inside(holder: Any) -> list[Any]:
    return list(holder.values()) if isinstance(holder, dict) else holder


def _packed(draw: Draw, parts: Parts) -> None:
    packed = gzip.compress(parts.body, mtime=0)
    damage = draw(st.sampled_from(("none", "none", "cut", "checksum", "twice", "bomb")))
    parts.body = {
        "none": packed,
        "cut": packed[:-5],
        "checksum": packed[:-8] + bytes(8),
        "twice": packed + packed,
        "bomb": gzip.compress(bytes(2_000_000), mtime=0),
    }[damage]
    parts.put(b"Content-Encoding", b"gzip")
    parts.put(b"Content-Length", b"{{length}}")


def _chunked(draw: Draw, parts: Parts) -> None:
    half = len(parts.body) // 2
    size = draw(st.sampled_from((b"%x" % half, b"%X" % half, b"0%x" % half, b"0x%x" % half, b"-1", b"", b"f" * 20)))
    extension = draw(st.sampled_from((b"", b"", b";a=b", b';a="\r"', b" ;a", b"; =", b";" + b"a" * 9000)))
    end = draw(st.sampled_from((b"\r\n", b"\r\n", b"\n", b"", b"xx")))
    last = draw(
        st.sampled_from((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\n", b"", b"0\r\nAuthorization: x\r\n\r\n", b"00\r\n\r\n"))
    )
    rest = parts.body[half:]
    parts.body = size + extension + b"\r\n" + parts.body[:half] + end + b"%x\r\n%s\r\n" % (len(rest), rest) + last
    parts.put(b"Content-Length", None)
    parts.put(b"Transfer-Encoding", b"chunked")


def _in_a_batch(draw: Draw, parts: Parts) -> None:
    """Send it, and another one or two, in a batch."""
    others = draw(st.lists(st.sampled_from([*SEEDS.values()]), max_size=2))
    requests = [_as_part(str(at), each) for at, each in enumerate((parts, *others))]
    for request in requests[1:]:
        if draw(st.booleans()):
            request["dependsOn"] = ["0"]
    batch = SEEDS["a batch"].copy()
    batch.target = draw(st.sampled_from((b"/$batch", b"/v1.0/$batch", b"/beta/$batch")))
    batch.body = json.dumps({"requests": requests}).encode()
    parts.method, parts.target, parts.headers, parts.body = batch.method, batch.target, batch.headers, batch.body


def _as_part(key: str, parts: Parts) -> dict[str, Any]:
    url = parts.target.decode("latin-1").removeprefix("/v1.0").removeprefix("/beta")
    part: dict[str, Any] = {"id": key, "method": parts.method.decode("latin-1"), "url": url}
    if parts.body:
        part["headers"] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in parts.headers if b"ontent-T" in name
        }
        try:
            part["body"] = json.loads(parts.body)
        except (ValueError, RecursionError):
            part["body"] = parts.body.decode("latin-1")
    return part


def _followed(draw: Draw, parts: Parts) -> None:
    """Send another request behind it on the same connection."""
    parts.body += draw(st.sampled_from([*SEEDS.values()])).raw().replace(b"{{length}}", b"0")


OFTEN, NOW_AND_THEN = 4, 1
CHANGES: tuple[tuple[int, Callable[[Draw, Parts], None]], ...] = (
    (OFTEN, _other_member),
    (OFTEN, _other_path),
    (OFTEN, _other_token),
    (OFTEN, _other_header),
    (2, _in_a_batch),
    (2, _other_query),
    (2, _other_body),
    (2, _chunked),
    (NOW_AND_THEN, _other_method),
    (NOW_AND_THEN, _percent),
    (NOW_AND_THEN, _other_target),
    (NOW_AND_THEN, _less_headers),
    (NOW_AND_THEN, _more_headers),
    (NOW_AND_THEN, _other_version),
    (NOW_AND_THEN, _packed),
    (NOW_AND_THEN, _followed),
)
_CHANGE = st.sampled_from([change for weight, change in CHANGES for _ in range(weight)])
_BYTES = st.binary(min_size=1, max_size=4) | st.sampled_from((b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\xff", b"%"))


def _at_a_byte(draw: Draw, raw: bytes) -> bytes:
    first = draw(st.sampled_from((0, len(raw.partition(b"\r\n\r\n")[0]))))  # the body as often as all of it
    at = draw(st.integers(first, len(raw)))
    upto = min(len(raw), at + draw(st.sampled_from((0, 0, 1, 2, 8, 64))))
    put: bytes = draw(_BYTES | st.just(b"") | st.just(raw[at:upto] * 2))
    return raw[:at] + put + raw[upto:]


@st.composite
def requests(draw: Draw) -> bytes:
    """Make a request: one of the corpus, changed three times at most, and at up to three bytes."""
    parts: Parts = draw(st.sampled_from([*SEEDS.values()])).copy()
    for change in draw(st.lists(_CHANGE, max_size=3)):
        change(draw, parts)
    raw = parts.raw()
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 1, 2, 3)))):
        raw = _at_a_byte(draw, raw)
    return raw


conversations = st.lists(requests(), min_size=1, max_size=4)
"""Up to four requests, one after the other."""
