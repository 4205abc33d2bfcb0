import pytest

from tests.ghz import durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("250ms", 250_000_000),
        ("1m30s", 90_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("2h", 7_200_000_000_000),
        ("3us", 3_000),
        ("3µs", 3_000),
        ("7ns", 7),
    ],
)
def test_durations_are_written_as_in_go(text: str, expected: int) -> None:
    assert durations.parse(text) == expected


@pytest.mark.parametrize("text", ["", "5", "5 s", "-1s", "1s2", "s", "1d", "１s", "9999999999h"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer"):
        durations.parse(text)


@pytest.mark.parametrize(
    ("duration_ns", "expected"), [(999, "999 ns"), (1_234_567, "1.23 ms"), (2_500_000_000, "2.50 s")]
)
def test_people_read_the_unit_that_fits(duration_ns: int, expected: str) -> None:
    assert durations.show(duration_ns) == expected
