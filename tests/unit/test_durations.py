"""Edm.Duration, as OData writes it, and what only looks like one."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("PT5M", timedelta(minutes=5)),
        ("PT4H", timedelta(hours=4)),
        ("PT1H30M", timedelta(hours=1, minutes=30)),
        ("PT300S", timedelta(minutes=5)),
        ("PT0S", timedelta(0)),
        ("P0D", timedelta(0)),
        ("P1D", timedelta(days=1)),
        ("P1DT0.5S", timedelta(days=1, seconds=0.5)),
        ("P1DT2H3M4.000005S", timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5)),
        ("PT0.1S", timedelta(milliseconds=100)),
        ("PT0.000001S", timedelta(microseconds=1)),
        ("PT90M", timedelta(hours=1, minutes=30)),
        ("PT005M", timedelta(minutes=5)),
        ("PT000000005M", timedelta(minutes=5)),
        ("P999999999D", timedelta(days=999_999_999)),
    ],
)
def test_a_duration_in_odatas_form_is_taken(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize("text", ["PT0.0000019S", "PT0.000001999999S"])
def test_what_is_finer_than_a_microsecond_is_cut_off(text: str) -> None:
    assert parse_duration(text) == timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("P", id="no part"),
        pytest.param("PT", id="no part after T"),
        pytest.param("P1DT", id="a day and no part after T"),
        pytest.param("PTM", id="no digits"),
        pytest.param("PT5", id="no unit"),
        pytest.param("5M", id="no PT"),
        pytest.param("T5M", id="no P"),
        pytest.param("P5M", id="months"),
        pytest.param("P1Y", id="years"),
        pytest.param("P1W", id="weeks"),
        pytest.param("PT1D", id="days after T"),
        pytest.param("P1H", id="hours before T"),
        pytest.param("PT5M1H", id="parts in the wrong order"),
        pytest.param("PT5M5M", id="a part twice"),
        pytest.param("PT1HT5M", id="T twice"),
        pytest.param("-PT5M", id="minus"),
        pytest.param("+PT5M", id="plus"),
        pytest.param("PT-5M", id="minus inside"),
        pytest.param("pt5m", id="lower case"),
        pytest.param("PT5m", id="unit in lower case"),
        pytest.param("PT5M\n", id="newline after"),
        pytest.param("\nPT5M", id="newline before"),
        pytest.param(" PT5M", id="blank before"),
        pytest.param("PT5M ", id="blank after"),
        pytest.param("PT 5M", id="blank inside"),
        pytest.param("PT5M\x00", id="NUL after"),
        pytest.param("PT\N{ARABIC-INDIC DIGIT FIVE}M", id="Arabic digit"),
        pytest.param("PT\N{FULLWIDTH DIGIT FIVE}M", id="full-width digit"),
        pytest.param("PT\N{SUPERSCRIPT TWO}M", id="superscript digit"),
        pytest.param("PT0.5H", id="fraction of an hour"),
        pytest.param("PT0,5S", id="comma"),
        pytest.param("PT.5S", id="fraction without whole"),
        pytest.param("PT5.S", id="point without fraction"),
        pytest.param("PT1e2S", id="exponent"),
        pytest.param("PT1_0M", id="underscore"),
        pytest.param("PT0x5M", id="hexadecimal"),
        pytest.param("PT1234567890S", id="ten digits"),
        pytest.param("PT0.1234567890123S", id="thirteen digits of fraction"),
        pytest.param("PT0000000005M", id="ten digits, most of them zero"),
        pytest.param("00:05:00", id="a time of day"),
        pytest.param("300", id="seconds alone"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an ISO 8601 duration such as PT1H"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["P999999999DT24H", "P999999999DT999999999H999999999M999999999S"])
def test_a_duration_too_long_for_a_timedelta_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too long a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["P" + "9" * 100_000, "PT" + "5M" * 50_000, "P999999999DT999999999H" + "0" * 99])
def test_a_refusal_repeats_only_the_beginning_of_a_long_text(text: str) -> None:
    with pytest.raises(ValueError, match="duration") as refusal:
        parse_duration(text)
    assert len(str(refusal.value)) < 150


@given(st.timedeltas(min_value=timedelta(0)))
def test_every_length_is_read_back_as_it_was_written(length: timedelta) -> None:
    minutes, seconds = divmod(length.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"P{length.days}DT{hours}H{minutes}M{seconds}.{length.microseconds:06}S"
    assert parse_duration(text) == length


@given(st.text(alphabet="PTDHMS0123456789.,-+ \n\N{ARABIC-INDIC DIGIT FIVE}"))
def test_a_text_is_a_length_or_a_value_error(text: str) -> None:
    try:
        length = parse_duration(text)
    except ValueError:
        return
    assert length >= timedelta(0)
    assert text.startswith("P")
    assert text.isascii()
    assert text == text.strip()
