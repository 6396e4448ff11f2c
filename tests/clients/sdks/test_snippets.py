"""What the README tells to paste works, for the clients that `make test-clients` installs."""

from pathlib import Path

import pytest

from tests.clients import snippets, test_snippets
from tests.clients.conftest import Served
from tests.clients.sdks import test_toolkit


@pytest.mark.parametrize("client", sorted(snippets.SNIPPETS.keys() - {*test_snippets.QUICK, test_toolkit.TOOLKIT}))
def test_the_readmes_snippet_does_what_it_says(client: str, served: Served, tmp_path: Path) -> None:
    snippets.check(client, served, tmp_path)
