"""The description of what is served, in OpenAPI 3.1, and a page to read and try it."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, NamedTuple

from flask import Blueprint, Flask, Response, current_app, g, render_template, send_from_directory
from flask.typing import ResponseReturnValue
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import override
from werkzeug.exceptions import NotFound, RequestEntityTooLarge
from werkzeug.routing import Rule

from app.api.schemas import EXAMPLE_APP, EXAMPLE_USER
from app.auth.keys import KeysUnavailable
from app.auth.tokens import InvalidToken
from app.domain.values import DASHED_GUID
from app.services.presence import StoreUnavailable
from app.web.answers import JSON, encode
from app.web.bodies import GUID_SCHEMA
from app.web.errors import (
    REFUSALS,
    ErrorBody,
    InvalidArgument,
    InvalidQuery,
    MalformedBody,
    MeWithoutUser,
    NotAcceptable,
    PermissionMissing,
    TooManyRequests,
    WrongMediaType,
)
from app.web.guard import CLIENTS_ID, Access, Contract, public

Json = dict[str, Any]

PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ASSETS = files("flask_swagger_ui") / "dist"
"""Swagger UI as its package brings it: nothing comes from another host."""

IN_ALL = ("request-id", "client-request-id")
HEADERS = {
    "request-id": {"description": "New for each request; the log has it.", "required": True, "schema": GUID_SCHEMA},
    "client-request-id": {
        "description": "The request's own header of that name when it is up to 128 characters of ASCII, none of them "
        "blank; else the same as request-id.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{CLIENTS_ID.pattern}$"},
    },
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "Where tokens come from.", "required": True, "schema": {"type": "string"}},
}
IN_SOME = {
    HTTPStatus.UNAUTHORIZED: ("WWW-Authenticate",),
    HTTPStatus.TOO_MANY_REQUESTS: ("Retry-After",),
    HTTPStatus.SERVICE_UNAVAILABLE: ("Retry-After",),
}

_GUID = DASHED_GUID.pattern
OPTIONS: dict[str, Json] = {
    "$filter": {
        "description": "Whose: `id eq '…'` or `id in ('…','…')`.",
        "schema": {"type": "string", "pattern": f"^id (eq '{_GUID}'|in \\('{_GUID}'(,'{_GUID}')*\\))$"},
        "example": f"id in ('{EXAMPLE_USER}')",
    },
    "$top": {"description": "The most of one page; 650 at most.", "schema": {"type": "integer", "minimum": 1}},
    "$count": {"description": "Whether to count all, too.", "schema": {"type": "boolean"}},
    "$skiptoken": {"description": "Comes with `@odata.nextLink`.", "schema": GUID_SCHEMA},
    "$select": {"description": "The properties to return; all, when absent.", "style": "form", "explode": False},
    "since": {
        "description": "The `next` of an earlier answer.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
    },
    "$expand": {"description": "Taken, and without effect: all there is is there.", "style": "form", "explode": False},
}
PATH_PARAMETERS: dict[str, Json] = {
    "user_id": {"description": "The user's id.", "schema": GUID_SCHEMA, "example": EXAMPLE_USER},
    "user": {
        "description": "The user's id or userPrincipalName.",
        "schema": {"type": "string", "minLength": 1},
        "example": EXAMPLE_USER,
    },
}


class Tokens(NamedTuple):
    """How an application gets the token that it calls with."""

    url: str | None
    """The token endpoint; None: not known here."""
    scope: str

    @property
    def embedded(self) -> bool:
        """True when the endpoint is this server's own, which gives a token to any application with any secret."""
        return self.url is not None and self.url.startswith("/")


def blueprint(mounts: Mapping[str, str], tokens: Tokens, alone: str) -> Blueprint:
    """Return the routes of the document and of the page.

    `mounts` are the blueprints that hold the same routes each, and their prefixes; the routes of the first are read.
    `alone` is one that, where it is there at all, has its routes at the root only.
    """
    bp = Blueprint("openapi", __name__, template_folder="templates")

    @cache
    def written() -> str:
        return encode(document(current_app, mounts, tokens, alone))

    @bp.get("/openapi.json")
    @public()
    def openapi() -> ResponseReturnValue:
        """Return the OpenAPI document, which is the same for as long as the process lives."""
        return Response(written(), content_type=JSON)

    @bp.get("/docs")
    @public()
    def docs() -> ResponseReturnValue:
        """Return the page."""
        page = Response(
            render_template("docs.html", client_id=EXAMPLE_APP if tokens.embedded else None, scope=tokens.scope),
            content_type="text/html; charset=utf-8",
        )
        page.headers["Content-Security-Policy"] = PAGE_POLICY.format(nonce=g.request_id)
        return page

    @bp.get("/docs/<name>")
    @public()
    def asset(name: str) -> ResponseReturnValue:
        """Return a script, a style or an image of the page."""
        return send_from_directory(str(ASSETS), name)

    return bp


def document(app: Flask, mounts: Mapping[str, str], tokens: Tokens, alone: str) -> Json:
    """Return the OpenAPI document of the routes that each of the `mounts` has and of those of `alone`.

    It is made from their contracts.

    Raises:
        AttributeError: a route of theirs declares none.
    """
    described = _Described(app, tokens)
    mount, prefix = next(iter(mounts.items()))
    paths: dict[str, Json] = {}
    for rule in app.url_map.iter_rules():
        name = rule.endpoint.partition(".")[0]
        if name in {mount, alone}:
            path = _path(rule, prefix.rstrip("/") if name == mount else "")
            if name == alone:
                paths.setdefault(path, {"servers": [{"url": "/"}]})
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                paths.setdefault(path, {})[method.lower()] = described.operation(rule, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Presence",
            "version": "v1.0",
            "description": "Microsoft Graph's presence API, self-hosted. The three servers are one: what is set at one "
            "is read at the others.",
        },
        "servers": [{"url": each} for each in mounts.values()],
        "paths": paths,
        "components": described.components,
    }


class _Titleless(GenerateJsonSchema):
    """Schemas whose members have no title: it would be their name again."""

    @override
    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False."""
        return False


class _Described:
    """Operations, one after the other, and the components that they share."""

    def __init__(self, app: Flask, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens
        self._schemas: dict[int, Json] = {}
        self.components: Json = {
            "schemas": {},
            "responses": {},
            "headers": HEADERS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An operation names the permissions of which one is needed.",
                },
            },
        }
        if tokens.url:
            scopes = {tokens.scope: "All that the application has been granted."}
            flow = {"tokenUrl": tokens.url, "scopes": scopes}
            self.components["securitySchemes"]["application"] = {
                "type": "oauth2",
                "flows": {"clientCredentials": flow},
            }

    def operation(self, rule: Rule, path: str) -> Json:
        """Return the operation of a route."""
        view: Any = self._app.view_functions[rule.endpoint]
        contract: Contract = view.contract
        access: Access | None = view.access if isinstance(view.access, Access) else None
        summary, _, details = (view.__doc__ or "").strip().partition("\n")
        on_me = MeWithoutUser in contract.get("refuses", ())
        described: Json = {
            "operationId": _camel(rule.endpoint.rpartition(".")[2]),
            "tags": [path.split("/")[1]],
            "summary": summary,
            "description": "\n\n".join(filter(None, (details.strip(), *_permissions(access, on_me=on_me)))),
            "security": self._security(access, on_me=on_me),
        }
        parameters = [
            {
                "name": _camel(name),
                "in": "path",
                "required": True,
                **PATH_PARAMETERS.get(name, {"schema": {"type": "string"}}),
            }
            for name in sorted(rule.arguments)
        ]
        answer = self._schema(contract["answer"]) if "answer" in contract else None
        for name in contract.get("options", ()):
            option = OPTIONS[name]
            if "schema" not in option and answer is not None:
                names = contract.get("selectable", self._members(answer))
                option = {**option, "schema": {"type": "array", "items": {"enum": list(names)}}}
            parameters.append({"name": name, "in": "query", **option})
        if parameters:
            described["parameters"] = parameters
        if "body" in contract:
            model = contract["body"]
            described["requestBody"] = {
                "description": f"At most {contract.get('most_bytes', self._app.config['MAX_CONTENT_LENGTH'])} bytes.",
                "required": any(field.is_required() for field in model.model_fields.values()),
                "content": {JSON: {"schema": self._schema(model)}},
            }
        described["responses"] = dict(self._responses(contract, _facts(rule, contract, access), answer))
        return described

    def _responses(
        self, contract: Contract, facts: Iterable[type[Exception]], answer: Json | None
    ) -> Iterator[tuple[str, Json]]:
        done: Json = {"description": "Done." if answer is None else "What was asked for.", "headers": _headers(IN_ALL)}
        if answer is not None:
            if "$select" in contract.get("options", ()):
                answer = self._selectable(answer)
            done["content"] = {contract.get("media_type", JSON): {"schema": answer}}
        yield "200", done
        by_status: dict[HTTPStatus, list[type[Exception]]] = {}
        for fact in facts:
            by_status.setdefault(REFUSALS[fact].status, []).append(fact)
        for status, stated in sorted(by_status.items()):
            name = "-".join([str(status.value), *(fact.__name__ for fact in stated)])
            self.components["responses"][name] = self._refusal(status, stated)
            yield str(status.value), {"$ref": f"#/components/responses/{name}"}

    def _refusal(self, status: HTTPStatus, facts: list[type[Exception]]) -> Json:
        """Return the response that these facts of one status are told by."""
        codes = list(dict.fromkeys(REFUSALS[fact].code for fact in facts))
        narrowed = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
        return {
            "description": "\n".join(f"* `{REFUSALS[fact].code}`: {_when(fact)}" for fact in facts),
            "headers": _headers((*IN_ALL, *IN_SOME.get(status, ()))),
            "content": {JSON: {"schema": {"allOf": [self._schema(ErrorBody), narrowed]}}},
        }

    def _security(self, access: Access | None, *, on_me: bool) -> list[Json]:
        """Return the alternatives: one permission each, and a token got by the application itself. None: no token."""
        if access is None:
            return []
        delegated = dict.fromkeys(access.own + access.everybody)
        wanted = delegated if on_me else dict.fromkeys((*access.roles, *delegated))
        alternatives: list[Json] = [{"bearer": [permission]} for permission in wanted]
        if access.signed_in or not alternatives:
            alternatives.append({"bearer": []})
        if self._tokens.url and not on_me:
            alternatives.append({"application": [self._tokens.scope]})
        return alternatives

    def _schema(self, kind: Any) -> Json:
        """Return a type's schema, a reference when it has a name, and keep what it refers to."""
        if id(kind) in self._schemas:
            return self._schemas[id(kind)]
        keyed, kept = TypeAdapter.json_schemas(
            [(0, "validation", TypeAdapter(kind))],
            ref_template="#/components/schemas/{model}",
            schema_generator=_Titleless,
        )
        self.components["schemas"].update(kept.get("$defs", {}))
        self._schemas[id(kind)] = dict(keyed[0, "validation"])
        return self._schemas[id(kind)]

    def _named(self, schema: Json) -> Json:
        found: Json = self.components["schemas"][schema["$ref"].rpartition("/")[2]]
        return found

    def _members(self, answer: Json) -> list[str]:
        """Return the members of a resource, or of the resources in a list, that can be selected."""
        properties = self._named(answer)["properties"]
        if "value" in properties:
            properties = self._named(properties["value"]["items"])["properties"]
        return [name for name in properties if not name.startswith("@")]

    def _selectable(self, answer: Json) -> Json:
        """Return the schema of an answer of which `$select` may leave out any member."""
        whole = {name: said for name, said in self._named(answer).items() if name != "required"}
        value = whole["properties"].get("value")
        if value is None:
            return whole
        items = {name: said for name, said in self._named(value["items"]).items() if name != "required"}
        return {
            **whole,
            "required": ["value"],
            "properties": {**whole["properties"], "value": {**value, "items": items}},
        }


def _facts(rule: Rule, contract: Contract, access: Access | None) -> Iterator[type[Exception]]:
    """Return what a route can refuse a request with: what the door states for its like, then what it states itself."""
    if access:
        yield from (InvalidToken, TooManyRequests, KeysUnavailable, StoreUnavailable)
        if not access.any_token:
            yield PermissionMissing
    if rule.arguments:
        yield NotFound  # of an id with a slash in it
    if "user_id" in rule.arguments or "body" in contract:
        yield InvalidArgument
    if "body" in contract:
        yield from (MalformedBody, WrongMediaType, RequestEntityTooLarge)
    if access and "options" in contract:
        yield InvalidQuery
    if access and "answer" in contract and "media_type" not in contract:
        yield NotAcceptable
    yield from contract.get("refuses", ())


def _when(fact: type[Exception]) -> str:
    """Return what an error of this kind says: the one message that it always has, or its own description."""
    if (message := REFUSALS[fact].message) is not None:
        return message.format(segment="…", max_bytes="…")
    return (fact.__doc__ or "").partition("\n")[0]


def _permissions(access: Access | None, *, on_me: bool) -> Iterator[str]:
    if access is None:
        yield "No token."
        return
    if access.any_token:
        yield "Any valid token."
        return
    roles = () if on_me else access.roles
    yield f"Application permissions: {' or '.join(roles) or 'not supported'}."
    own = tuple(dict.fromkeys(access.own + access.everybody)) if on_me else access.own
    delegated = [f"{' or '.join(own)} for what is one's own"] if own else []
    if access.everybody and not on_me:
        delegated.append(f"{' or '.join(access.everybody)} for what is anybody's")
    supported = "any, or none" if access.signed_in else ", ".join(delegated) or "not supported"
    yield f"Delegated permissions: {supported}."


def _headers(names: Iterable[str]) -> Mapping[str, Json]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _path(rule: Rule, prefix: str) -> str:
    """Return a route's path below its mount, as OpenAPI writes it."""
    path = rule.rule.removeprefix(prefix)
    for name in rule.arguments:
        path = path.replace(f"<{name}>", f"{{{_camel(name)}}}")
    return path


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))
