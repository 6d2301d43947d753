import pytest

from lab3.errors import ConfigError
from lab3.pruning.schedule import parse_schedule


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0:C:1", (0, 1, 2, 3, 4, 5)),
        ("0:C", (0, 1, 2, 3, 4, 5)),
        ("0:C:2", (0, 2, 4)),
        ("3:5", (3, 4)),
        ([0, 5], (0, 5)),
    ],
)
def test_schedule_names_every_k(schedule: str | list[int], expected: tuple[int, ...]) -> None:
    assert parse_schedule(schedule, 6) == expected


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("0:7", "must stay in 0..C-1 = 0..5 (one channel is always left), got '0:7', which holds K=6"),
        ([6], "must stay in 0..C-1 = 0..5"),
        ([-1, 2], "which holds K=-1"),
        ("5:5", "must name at least one K"),
        ([], "must name at least one K"),
        ([2, 1], "must ascend without repeats, got [2, 1]"),
        ([1, 1], "must ascend without repeats"),
        ("0:C:0", "a positive step"),
        ("all", "must be 'start:stop:step'"),
        ("1:2:3:4", "must be 'start:stop:step'"),
    ],
)
def test_a_wrong_schedule_says_why(schedule: str | list[int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedule(schedule, 6)
    assert message in str(caught.value)
