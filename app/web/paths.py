"""The other spellings of a path that Graph takes for the one that is routed."""

import re
from collections.abc import Collection, Iterable

from flask import Flask, request
from werkzeug.exceptions import HTTPException, NotFound

_KEY = r"(?:/([^/]+)|\('((?:[^'/]|'')+)'\))"


class Spellings:
    """Paths in any letter case, with keys in parentheses and the last name in full.

    Source: OData 4.01, "URL Conventions": keys in parentheses, a quote in them doubled, the qualified names of bound
    actions. Ours: letter case, since Graph's gateway is known to be lenient. Ids are left as they come.
    """

    def __init__(self, rules: Iterable[str]) -> None:
        self._rules = [(rule, _pattern(rule)) for rule in dict.fromkeys(rules)]

    def canonical(self, path: str) -> str | None:
        """Return a path, whose percent-encoding is undone, as its route spells it; None when no route does."""
        for rule, pattern in self._rules:
            if match := pattern.fullmatch(path):
                found = match.groups()
                keys = (
                    plain or quoted.replace("''", "'") for plain, quoted in zip(found[::2], found[1::2], strict=True)
                )
                return "".join(f"/{next(keys) if part.startswith('<') else part}" for part in _parts(rule))
        return None


def mount(app: Flask, blueprints: Collection[str]) -> None:
    """Take other spellings of all paths that these blueprints route; call it when they are registered.

    A path that is spelled as routed costs no more than a look at `routing_exception`. Paths outside the blueprints keep
    to one spelling, as a proxy may close some of them to the world by their names: so no path has two slashes in front,
    of which werkzeug would overlook one.
    """
    ours = (rule for rule in app.url_map.iter_rules() if rule.endpoint.partition(".")[0] in blueprints)
    spellings = Spellings(rule.rule for rule in ours)

    @app.before_request
    def match_again() -> None:
        if request.environ["PATH_INFO"].startswith("//"):  # request.path has them as one
            raise NotFound
        if isinstance(request.routing_exception, NotFound) and (path := spellings.canonical(request.path)):
            request.path = path
            try:
                rule, keys = app.url_map.bind_to_environ(request).match(path, return_rule=True)
            except HTTPException as error:  # a method that the path does not have
                request.routing_exception = error
            else:
                request.url_rule, request.view_args, request.routing_exception = rule, dict(keys), None


def _pattern(rule: str) -> re.Pattern[str]:
    *before, last = (_KEY if part.startswith("<") else f"/{re.escape(part)}" for part in _parts(rule))
    if last != _KEY:  # an action is always the last
        last = last.replace("/", r"/(?:microsoft\.graph\.)?", 1)
    return re.compile("".join((*before, last)) + "/?", re.ASCII | re.IGNORECASE)


def _parts(rule: str) -> list[str]:
    return rule.strip("/").split("/")
