"""What the README tells to paste works."""

from pathlib import Path

import pytest

from tests.clients import snippets
from tests.clients.conftest import Served

QUICK = ("msal", "azure-identity", "O365")
"""The clients that are always installed; sdks/test_snippets.py runs the others."""


@pytest.mark.parametrize("client", QUICK)
def test_the_readmes_snippet_does_what_it_says(client: str, served: Served, tmp_path: Path) -> None:
    snippets.check(client, served, tmp_path)


def test_every_heading_has_a_snippet() -> None:
    assert [line[4:] for line in snippets.SECTION.splitlines() if line.startswith("### ")] == list(snippets.SNIPPETS)
