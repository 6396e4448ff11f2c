"""How an answer with a body is written."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response
from typing_extensions import override

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

JSON = "application/json"
ODATA_JSON = f"{JSON};odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"
"""What Graph labels its resources with."""

ALWAYS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
"""Headers of every answer. One that says how it may be kept says so itself."""
IDS = "app.ids"
"""The environ's place for the headers that name the request."""

encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Answer(Response):
    """An answer as it is sent: with ALWAYS and the IDS, and without a label when it has no body to label.

    Clients parse what is labelled, and choke on an empty text.
    """

    @override
    def get_wsgi_response(self, environ: "WSGIEnvironment") -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Return body, status and headers. werkzeug copies and mends the headers; ours are right."""
        headers = list(self.headers)
        named = dict(headers)
        body: Iterable[bytes]
        if self.is_sequence and self.status_code == HTTPStatus.OK:
            body = [*self.iter_encoded()]
            if "Content-Length" not in named:
                headers.append(("Content-Length", str(sum(map(len, body)))))
            if environ["REQUEST_METHOD"] == "HEAD":
                body = ()
        else:
            body, _, headers = super().get_wsgi_response(environ)
        if self.response in ([], [b""]):
            headers = [(name, value) for name, value in headers if name != "Content-Type"]
        headers += ALWAYS[1:] if "Cache-Control" in named else ALWAYS
        headers += environ.get(IDS, ())
        return body, self.status, headers


def json_answer(body: Mapping[str, object], status: int = 200, content_type: str = JSON, **headers: str) -> Response:
    """Return a JSON response; an underscore in the name of a header stands for a dash."""
    response = Answer([encode(body).encode()], status, content_type=content_type)
    for name, value in headers.items():
        response.headers.add(name.replace("_", "-"), value)
    return response
