"""Users: as much of the directory as applications need to get from a name to the id that presence goes by."""

from collections.abc import Mapping

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.api.presence import READERS
from app.api.resources import UserAnswer, UserResource
from app.auth.caller import Caller
from app.services.directory import User, UserNotFound
from app.web.answers import encode
from app.web.errors import MeWithoutUser
from app.web.guard import Access, directory, requires
from app.web.odata import graph_answer, selected

bp = Blueprint("directory", __name__)

READ_USER = Access(READERS, signed_in=True)


KNOWN = tuple(UserResource.__annotations__)
_VALUES = (
    "aboutMe", "accountEnabled", "ageGroup", "birthday", "city", "companyName", "consentProvidedForMinor", "country",
    "createdDateTime", "creationType", "deletedDateTime", "department", "employeeHireDate", "employeeId",
    "employeeOrgData", "employeeType", "externalUserState", "externalUserStateChangeDateTime", "faxNumber",
    "givenName", "hireDate", "isResourceAccount", "jobTitle", "lastPasswordChangeDateTime",
    "legalAgeGroupClassification", "mail", "mailboxSettings", "mailNickname", "mobilePhone", "mySite",
    "officeLocation", "onPremisesDistinguishedName", "onPremisesDomainName", "onPremisesExtensionAttributes",
    "onPremisesImmutableId", "onPremisesLastSyncDateTime", "onPremisesSamAccountName", "onPremisesSecurityIdentifier",
    "onPremisesSyncEnabled", "onPremisesUserPrincipalName", "passwordPolicies", "passwordProfile", "postalCode",
    "preferredDataLocation", "preferredLanguage", "preferredName", "refreshTokensValidFromDateTime",
    "showInAddressList", "signInSessionsValidFromDateTime", "state", "streetAddress", "surname", "usageLocation",
    "userType",
)  # fmt: skip
_LISTS = (
    "assignedLicenses", "assignedPlans", "businessPhones", "identities", "imAddresses", "interests",
    "licenseAssignmentStates", "onPremisesProvisioningErrors", "otherMails", "pastProjects", "provisionedPlans",
    "proxyAddresses", "responsibilities", "schools", "skills",
)  # fmt: skip
UNKNOWN: dict[str, object] = {**dict.fromkeys(_VALUES), **dict.fromkeys(_LISTS, ())}
"""Graph's other properties: who selects one is told that it is not set. Source: Graph, "user", "Properties"."""


@bp.get("/users/<user>")
@requires(READ_USER, options=("$select",), selectable=(*KNOWN, *UNKNOWN), answer=UserAnswer, refuses=(UserNotFound,))
def get_user(caller: Caller, user: str, options: Mapping[str, str]) -> ResponseReturnValue:
    """Return who the user with an id or userPrincipalName is."""
    return _answer(caller, user, options)


@bp.get("/me")
@requires(
    READ_USER,
    options=("$select",),
    selectable=(*KNOWN, *UNKNOWN),
    answer=UserAnswer,
    refuses=(MeWithoutUser, UserNotFound),
)
def get_me(caller: Caller, options: Mapping[str, str]) -> ResponseReturnValue:
    """Return who is signed in."""
    if caller.user_id is None:
        raise MeWithoutUser
    return _answer(caller, caller.user_id, options, caller.user_name)


def _answer(caller: Caller, name: str, options: Mapping[str, str], known_as: str | None = None) -> ResponseReturnValue:
    wanted = selected(options, "user", (*KNOWN, *UNKNOWN))
    seen: Mapping[str, object] = resource(directory().find(caller.tenant_id, name, known_as))
    if wanted:
        told = {**UNKNOWN, **seen}
        return graph_answer(f"users({','.join(wanted)})/$entity", encode({each: told[each] for each in wanted}))
    return graph_answer("users/$entity", encode(seen))


def resource(user: User) -> UserResource:
    """Return a user as Graph's resource of that name, of which we know little."""
    return {"id": user.user_id, "userPrincipalName": user.user_principal_name, "displayName": user.display_name}
