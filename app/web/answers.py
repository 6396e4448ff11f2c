"""How an answer with a body is written."""

import json
from collections.abc import Mapping

from flask import Response

JSON = "application/json"
ODATA_JSON = f"{JSON};odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"
"""What Graph labels its resources with."""

encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def json_answer(body: Mapping[str, object], status: int = 200, content_type: str = JSON, **headers: str) -> Response:
    """Return a JSON response; an underscore in the name of a header stands for a dash."""
    response = Response(encode(body), status, content_type=content_type)
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = value
    return response
