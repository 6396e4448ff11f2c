"""The tables as the models have them: a picture of them, and what a page has to say of each column."""

from html import escape

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from app.db.models import Base

Column = tuple[str, str, str]

ROW, HEAD, GAP, MARGIN = 18, 28, 24, 12
"""Pixels: of a line, of a table's name, between tables, around all."""
CHARACTER = 7.3
"""Pixels: the width of each, at 12 px."""
PLACES = (("presence_session", "directory_user"), ("presence_user",), ("presence_event",))
"""What stands below what, from the left to the right."""
TYPES = {"timestamp with time zone": "timestamptz"}
STYLE = """
    text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #1f2328 }
    .name { font-weight: 600 } .key { font-weight: 600 } .type { fill: #59636e }
    rect { fill: #f6f8fa; stroke: #818b98 } .head { fill: #d1d9e0 }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc } .type { fill: #9198a1 } rect { fill: #151b23; stroke: #656c76 } .head { fill: #2f3742 }
    }
"""


def tables() -> list[Table]:
    """All of them, as the page has them."""
    order = [name for stack in PLACES for name in stack]
    return sorted(Base.metadata.tables.values(), key=lambda table: order.index(table.name))


def columns(table: Table) -> list[Column]:
    """Of each column: its name, its type on PostgreSQL, and whether it is of the key or may be null."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    kinds = (str(column.type.compile(dialect)).lower() for column in table.c)
    return [
        (column.name, TYPES.get(kind, kind), "key" if column.primary_key else "null" if column.nullable else "")
        for column, kind in zip(table.c, kinds, strict=True)
    ]


def picture() -> str:
    """An SVG of the tables, each with its columns and their types on PostgreSQL; bold is the key."""
    known = {table.name: columns(table) for table in tables()}
    boxes, x, height = [], MARGIN, 0
    for stack in PLACES:
        y, widest = MARGIN, 0
        for table in stack:
            box, width, tall = _box(x, y, table, known[table])
            boxes += box
            y, widest = y + tall + GAP, max(widest, width)
        x, height = x + widest + GAP, max(height, y - GAP)
    size = f'width="{x - GAP + MARGIN}" height="{height + MARGIN}"'
    body = "\n  ".join(boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>\n'
        "  <title>The tables of the presence store, with their columns</title>\n"
        f"  <style>{STYLE}  </style>\n  {body}\n</svg>\n"
    )


def _box(x: int, y: int, table: str, rows: list[Column]) -> tuple[list[str], int, int]:
    """Return a table's elements, its width and its height."""
    named = round(CHARACTER * (2 + max(len(name) for name, *_ in rows)))
    width = named + round(CHARACTER * max(len(_told(row)) for row in rows)) + 2 * MARGIN
    tall = HEAD + ROW * len(rows) + MARGIN
    box = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{tall}" rx="4"/>',
        f'<rect class="head" x="{x}" y="{y}" width="{width}" height="{HEAD}" rx="4"/>',
        _text(x + MARGIN, y + 19, "name", table),
    ]
    for line, row in enumerate(rows, 1):
        at = y + HEAD + ROW * line
        box.append(_text(x + MARGIN, at, "key" if row[2] == "key" else "", row[0]))
        box.append(_text(x + MARGIN + named, at, "type", _told(row)))
    return box, width, tall


def _told(row: Column) -> str:
    _, kind, said = row
    return f"{kind} null" if said == "null" else kind


def _text(x: int, y: int, kind: str, said: str) -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x}" y="{y}">{escape(said)}</text>'
