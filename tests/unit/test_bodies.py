"""How deep a JSON text goes is found without parsing it."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.web.bodies import is_deeper

texts = st.text(alphabet='[]{}"\\\\,:u0\x00é')
documents = st.recursive(
    st.none() | st.integers() | texts, lambda inside: st.lists(inside) | st.dictionaries(texts, inside), max_leaves=20
)


def depth(document: Any) -> int:
    if not isinstance(document, dict | list):
        return 0
    return 1 + max(map(depth, document.values() if isinstance(document, dict) else document), default=0)


@given(documents, st.booleans(), st.integers(0, 8))
def test_a_text_is_deeper_than_what_it_is_not_as_deep_as(document: Any, ascii_only: bool, most: int) -> None:
    assert is_deeper(json.dumps(document, ensure_ascii=ascii_only).encode(), most) is (depth(document) > most)


@given(st.binary() | st.text(alphabet='[]{}"\\\\').map(str.encode))
def test_any_bytes_are_deeper_or_not(text: bytes) -> None:
    assert is_deeper(text, len(text)) is False
