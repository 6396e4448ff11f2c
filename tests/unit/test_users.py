"""Users whom no directory knows."""

from app.domain.values import derived_user_id
from tests.tokens import APP, OTHER_TENANT, TENANT

ALICE = "alice@contoso.com"


def test_a_user_is_the_same_one_in_any_letter_case_and_another_in_another_tenant() -> None:
    assert derived_user_id(TENANT, ALICE) == derived_user_id(TENANT.upper(), ALICE.upper())
    assert derived_user_id(TENANT, ALICE) == "17f7844c-4765-5ec6-942f-a43b782c7189"  # also in the next release
    others = {derived_user_id(OTHER_TENANT, ALICE), derived_user_id(TENANT, "bob@contoso.com")}
    assert len(others - {derived_user_id(TENANT, ALICE)}) == 2


def test_a_guid_is_itself_the_users_id() -> None:
    assert derived_user_id(TENANT, APP.upper()) == APP
