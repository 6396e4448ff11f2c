"""`make docs`: print into the documents what comes out of the code. The tests fail when that has not been done."""

from tests.docs import schema
from tests.docs.explained import EXAMPLES
from tests.servers import ROOT

EXPLAIN = ROOT / "docs" / "explain.md"
DATABASE = ROOT / "docs" / "database.md"
SCHEMA = ROOT / "docs" / "img" / "schema.svg"


def explained(page: str) -> str:
    """The page with each example's text in the block below its heading."""
    for heading, example in EXAMPLES.items():
        above, title, below = page.partition(f"\n## {heading}\n")
        prose, fence, rest = below.partition("```text\n")
        _, end, rest = rest.partition("```\n")
        page = "".join((above, title, prose, fence, example.text(), "\n", end, rest))
    return page


if __name__ == "__main__":
    for path, after in ((EXPLAIN, explained(EXPLAIN.read_text())), (SCHEMA, schema.picture())):
        as_it_was = path.exists() and path.read_text() == after
        path.write_text(after)
        print(f"{path.relative_to(ROOT)}: {'as it was' if as_it_was else 'renewed'}")
