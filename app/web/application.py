"""Flask, without what every request would pay for and none needs: coroutines, and hosts with routes of their own."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from flask import Flask, Request, current_app, request
from typing_extensions import override
from werkzeug.local import LocalProxy
from werkzeug.routing import MapAdapter

from app.web.answers import Answer

HOSTS_REMEMBERED = 256


# Flask types its proxies as what they stand for.
_request = cast("LocalProxy[Request]", request)
_application = cast("LocalProxy[Flask]", current_app)


def current_request() -> Request:
    """Return the request itself; Flask's proxy finds it anew, in four calls, at each look."""
    return _request._get_current_object()


def current_application() -> Flask:
    """Return the application itself, likewise."""
    return _application._get_current_object()


class Application(Flask):
    """An application whose views are plain functions, and whose routes are the same on every host."""

    response_class = Answer

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        self.url_map.redirect_defaults = False
        self.bound_to = lru_cache(HOSTS_REMEMBERED)(self.url_map.bind)

    @override
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself, which is no coroutine; Flask would look anew, nine times a request."""
        return func

    @override
    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what finds the request's route; what it makes of a host's name is remembered."""
        if request is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        here = self.bound_to(request.host.lower(), request.root_path, "", request.scheme)
        return MapAdapter(
            self.url_map,
            here.server_name,
            here.script_name,
            here.subdomain,
            here.url_scheme,
            request.path,
            request.method,
            request.environ.get("QUERY_STRING"),
        )
