"""What the README tells to paste works."""

from pathlib import Path

import pytest

from tests.clients import snippets
from tests.clients.conftest import Served


@pytest.mark.parametrize("client", ["msal", "azure-identity", "O365"])
def test_the_readmes_snippet_does_what_it_says(client: str, served: Served, tmp_path: Path) -> None:
    snippets.check(client, served, tmp_path)
