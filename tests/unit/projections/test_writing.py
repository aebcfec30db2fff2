"""New rows as COPY's text, and the same as values."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from projections.projection import NULL, text
from projections.writing import value_of

texts = st.none() | st.text() | st.text(alphabet="\\Nntr\n\t\r\0")


@given(texts)
@example("\\N")
@example("\\\\n")
def test_a_text_is_read_as_it_was(value: str | None) -> None:
    line = text(value)
    assert "\t" not in line
    assert "\n" not in line
    assert value_of(line) == value


def test_nothing_is_no_text() -> None:
    assert value_of(NULL) is None
    assert value_of("") == ""
