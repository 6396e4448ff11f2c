"""Microsoft's SDKs for Python, made of Graph's own description: v1.0 over https, beta over http."""

import asyncio
import ssl
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import httpx
import pytest
from azure.identity import ClientSecretCredential
from kiota_authentication_azure.azure_identity_authentication_provider import AzureIdentityAuthenticationProvider
from msgraph_core import GraphClientFactory
from msgraph_core.requests.batch_request_builder import BatchRequestBuilder
from msgraph_core.requests.batch_request_content import BatchRequestContent

from app.domain.values import DASHED_GUID
from tests.builders import new_id
from tests.clients.conftest import Served

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # their own, of one another


@dataclass(frozen=True)
class Sdk:
    """One of the two, as one application has it."""

    package: str
    client: Any
    adapter: Any
    app_id: str
    loop: asyncio.Runner

    def await_(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(coroutine)

    def new(self, module: str, **values: object) -> Any:
        """Return a model; its class has its module's name."""
        name = "".join(word.capitalize() for word in module.rpartition(".")[2].split("_"))
        return getattr(import_module(f"{self.package}.generated.{module}"), name)(**values)

    @property
    def error(self) -> type[Any]:
        found: type[Any] = import_module(f"{self.package}.generated.models.o_data_errors.o_data_error").ODataError
        return found

    def at(self, user: str) -> Any:
        """Return the requests that there are for a user's presence."""
        return self.client.users.by_user_id(user).presence

    def seen(self, user: str) -> Any:
        return self.await_(self.at(user).get())

    def acts(self, action: str, user: str, **values: object) -> None:
        """Post to an action."""
        body = self.new(f"users.item.presence.{action}.{action}_post_request_body", **values)
        self.await_(getattr(self.at(user), action).post(body))

    def shows(self, user: str, availability: str, activity: str) -> None:
        how = {"availability": availability, "activity": activity, "expiration_duration": "PT1H"}
        self.acts("set_presence", user, session_id=self.app_id, **how)

    def clears(self, user: str) -> None:
        self.acts("clear_presence", user, session_id=self.app_id)


@pytest.fixture(params=["msgraph", "msgraph_beta"])
def sdk(request: pytest.FixtureRequest, served: Served, app_id: str) -> Iterator[Sdk]:
    package = request.param
    credential = ClientSecretCredential(
        served.tenant_id,
        app_id,
        "any",
        authority=served.https,
        disable_instance_discovery=True,
        connection_verify=str(served.certificate),
    )
    trusting = ssl.create_default_context(cafile=str(served.certificate))
    transport = httpx.AsyncHTTPTransport(verify=trusting)
    http = GraphClientFactory.create_with_default_middleware(client=httpx.AsyncClient(transport=transport))
    module = import_module(package)
    adapter = module.GraphRequestAdapter(AzureIdentityAuthenticationProvider(credential), client=http)
    adapter.base_url = f"{served.https}/v1.0" if package == "msgraph" else f"{served.http}/beta"
    with credential, asyncio.Runner() as loop:
        yield Sdk(package, module.GraphServiceClient(request_adapter=adapter), adapter, app_id, loop)
        loop.run(transport.aclose())  # the client, once it has middleware, no longer does it


def test_a_session_is_set_read_and_cleared(sdk: Sdk, alice: str) -> None:
    sdk.shows(alice, "Busy", "InACall")
    seen = sdk.seen(alice)
    assert (seen.id, seen.availability, seen.activity) == (alice, "Busy", "InACall")
    sdk.clears(alice)
    seen = sdk.seen(alice)
    assert (seen.availability, seen.activity) == ("Offline", "Offline")


def test_many_are_read_at_once(sdk: Sdk, alice: str) -> None:
    sdk.shows(alice, "Away", "Away")
    ids = [alice, new_id()]
    module = "communications.get_presences_by_user_id"
    body = sdk.new(f"{module}.get_presences_by_user_id_post_request_body", ids=ids)
    seen = sdk.await_(sdk.client.communications.get_presences_by_user_id.post(body))
    assert [(user.id, user.activity) for user in seen.value] == list(zip(ids, ("Away", "Offline"), strict=True))
    one = sdk.await_(sdk.client.communications.presences.by_presence_id(alice).get())
    assert one.activity == "Away"


def test_what_a_user_prefers_goes_over_it_until_it_is_cleared(sdk: Sdk, alice: str) -> None:
    sdk.shows(alice, "Available", "Available")
    preferred = {"availability": "DoNotDisturb", "activity": "DoNotDisturb", "expiration_duration": "PT8H"}
    sdk.acts("set_user_preferred_presence", alice, **preferred)
    assert sdk.seen(alice).availability == "DoNotDisturb"
    sdk.await_(sdk.at(alice).clear_user_preferred_presence.post())  # with no body and no Content-Type
    assert sdk.seen(alice).availability == "Available"


def test_a_status_message_is_shown_with_its_times(sdk: Sdk, alice: str) -> None:
    ends = f"{datetime.now(UTC) + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}"
    said = sdk.new("models.item_body", content="Zurück um drei", content_type="text")
    until = sdk.new("models.date_time_time_zone", date_time=ends, time_zone="UTC")
    message = sdk.new("models.presence_status_message", message=said, expiry_date_time=until)
    sdk.acts("set_status_message", alice, status_message=message)
    shown = sdk.seen(alice).status_message
    assert shown.message.content == "Zurück um drei"
    assert shown.expiry_date_time.date_time.startswith(ends)
    assert abs(shown.published_date_time - datetime.now(UTC)) < timedelta(minutes=1)


def test_an_error_has_its_code_message_and_request_id(sdk: Sdk, alice: str) -> None:
    with pytest.raises(sdk.error) as caught:
        sdk.clears(alice)
    error = caught.value
    assert (error.response_status_code, error.error.code) == (404, "NotFound")
    assert "session" in error.error.message
    inner = error.error.inner_error
    assert DASHED_GUID.fullmatch(inner.request_id)
    assert inner.request_id == error.response_headers["request-id"]
    assert abs(inner.date.replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_timedelta_is_sent_as_no_duration_and_the_error_names_the_form(sdk: Sdk, alice: str) -> None:
    call = {"availability": "Busy", "activity": "InACall", "expiration_duration": timedelta(hours=1)}
    with pytest.raises(sdk.error) as caught:
        sdk.acts("set_presence", alice, session_id=sdk.app_id, **call)
    assert (caught.value.response_status_code, caught.value.error.code) == (400, "InvalidArgument")
    assert "PT1H" in caught.value.error.message


def test_a_throttled_write_is_repeated(sdk: Sdk, served: Served, alice: str) -> None:
    with served.throttling(f"*/{alice}/presence/setPresence"):
        sdk.shows(alice, "Busy", "InAConferenceCall")
    assert served.emulator.presence_of(alice) == ("Busy", "InAConferenceCall")


def test_a_batch_is_answered_request_by_request(sdk: Sdk, alice: str) -> None:
    sdk.shows(alice, "Busy", "InACall")
    batch = BatchRequestContent()
    for user in (alice, "nobody"):
        batch.add_request_information(sdk.at(user).to_get_request_information())
    answers = sdk.await_(BatchRequestBuilder(sdk.adapter).post(batch))
    assert sorted(answers.get_response_status_codes().values()) == [200, 400]
