"""Where the parts of the admin site's pictures are."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from app.admin.charts import MOST_TICKS, bars, picture
from app.domain.timeline import Timeline
from tests.builders import START

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def test_a_bar_is_as_high_as_its_count_beside_the_largest() -> None:
    counted = [(START + n * MINUTE, count) for n, count in enumerate((0, 2, 8, 4))]
    drawn = bars(counted)
    assert [(bar.at, bar.value) for bar in drawn] == counted
    assert [bar.height for bar in drawn] == [0, 25, 100, 50]
    assert [bar.x for bar in drawn] == [0, 25, 50, 75]
    assert {bar.width for bar in drawn} == {20}


@pytest.mark.parametrize("counted", [[], [(START, 0)]])
def test_where_nothing_was_counted_no_bar_has_a_height(counted: list[tuple[datetime, int]]) -> None:
    assert [bar.height for bar in bars(counted)] == [0] * len(counted)


@pytest.mark.parametrize(
    ("length", "step"),
    [
        (20 * MINUTE, 5 * MINUTE),
        (HOUR, 15 * MINUTE),
        (5 * HOUR, HOUR),
        (30 * HOUR, 6 * HOUR),
        (3 * 24 * HOUR, 12 * HOUR),
    ],
)
def test_the_axis_has_the_round_moments(length: timedelta, step: timedelta) -> None:
    start = datetime(2026, 3, 2, 7, 1, 30, tzinfo=UTC)
    drawn = picture(Timeline(start, start + length / 2, start + length, [], [], []))
    moments = [at for _, at in drawn.ticks]
    assert 3 <= len(moments) <= MOST_TICKS
    assert {later - at for at, later in pairwise(moments)} == {step}
    assert {(at - datetime(2026, 3, 1, tzinfo=UTC)) % step for at in moments} == {timedelta(0)}
    assert moments[0] - start < step
    assert start + length - moments[-1] <= step
    assert [x for x, _ in drawn.ticks] == pytest.approx([100 * ((at - start) / length) for at in moments], abs=0.001)
