"""Which K a sweep visits."""

from collections.abc import Sequence
from itertools import pairwise

from lab3.errors import ConfigError, shown

_MAX_K = 1_000_000


def parse_schedule(schedule: str | Sequence[int], n_channels: int) -> tuple[int, ...]:
    """The K of a sweep in ascending order, each in 0..C-1.

    `schedule` is `"start:stop:step"`, as in a Python range with C standing for the number of channels, or a list of K.
    One channel always stays, so K = C is out of range.

    >>> parse_schedule("0:C:2", 8)
    (0, 2, 4, 6)
    >>> parse_schedule([0, 3, 7], 8)
    (0, 3, 7)

    Raises `ConfigError` for another form, an empty schedule, K out of 0..C-1, or K not in ascending order.
    """
    ks = _parse_range(schedule, n_channels) if isinstance(schedule, str) else tuple(schedule)
    if not ks:
        raise ConfigError(
            f"sweep.schedule must name at least one K, got {shown(schedule)} with C={n_channels}; '0:C:1' is every K"
        )
    outside = [k for k in ks if not 0 <= k < n_channels]
    if outside:
        raise ConfigError(
            f"sweep.schedule must stay in 0..C-1 = 0..{n_channels - 1} (one channel is always left), "
            f"got {shown(schedule)}, which holds K={outside[0]}; '0:C:1' is every K"
        )
    if any(after <= before for before, after in pairwise(ks)):
        raise ConfigError(f"sweep.schedule must ascend without repeats, got {shown(schedule)}")
    return ks


def check_schedule_form(schedule: str | Sequence[int]) -> None:
    """Raise `ConfigError` if `schedule` can be right for no number of channels."""
    if isinstance(schedule, str):
        _parse_range(schedule, n_channels=1)


def _parse_range(schedule: str, n_channels: int) -> tuple[int, ...]:
    parts = [part.strip() for part in schedule.split(":")]
    try:
        if len(parts) not in (2, 3):
            raise ValueError
        start, stop, step = (_parse_bound(part, n_channels) for part in (*parts, "1")[:3])
        if step < 1:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"sweep.schedule must be 'start:stop:step' with integers, a positive step and C for the number of "
            f"channels, or a list of K, got {shown(schedule)}; '0:C:1' is every K"
        ) from None
    if max(abs(start), abs(stop), step) > max(_MAX_K, n_channels):
        raise ConfigError(
            f"sweep.schedule must hold integers of at most {_MAX_K:,}, got {shown(schedule)}; '0:C:1' is every K"
        )
    return tuple(range(start, stop, step))


def _parse_bound(text: str, n_channels: int) -> int:
    return n_channels if text == "C" else int(text)
