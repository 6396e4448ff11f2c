"""Who may call from a browser: the pages of the origins that were named."""

from collections.abc import Set as AbstractSet

from flask import Flask, Response, request

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
EXPOSED = (
    "ETag, Location, Preference-Applied, Content-Range, request-id, client-request-id, ReadWriteConsistencyToken, "
    "SdkVersion, WWW-Authenticate, x-ms-client-gcc-tenant, Retry-After, presence-hint"
)
"""Source: Graph's recorded answers to pages. Ours: presence-hint, which a development server adds."""
REMEMBERED_SECONDS = 600
"""How long a browser may go by one preflight."""


def mount(app: Flask, origins: AbstractSet[str]) -> None:
    """Let pages of these origins read every answer, errors included; `*` is any origin, and none changes nothing.

    No origin is ever allowed credentials: a page sends its token itself, and there are no cookies.
    Source: Fetch, "HTTP CORS protocol". Header names are allowed as they are asked for, since none does harm.
    """

    def allow(response: Response) -> Response:
        headers = response.headers
        origin = request.headers.get("Origin")
        if "*" not in origins:
            headers.add("Vary", "Origin")
        if origin is None or origins.isdisjoint(("*", origin)):
            return response
        headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else origin
        headers["Access-Control-Expose-Headers"] = EXPOSED
        if request.method == "OPTIONS":
            headers["Access-Control-Allow-Methods"] = METHODS
            headers["Access-Control-Max-Age"] = str(REMEMBERED_SECONDS)
            if asked := request.headers.get("Access-Control-Request-Headers"):
                headers["Access-Control-Allow-Headers"] = asked
        return response

    if origins:
        app.after_request(allow)
