"""The errors lab3 raises on purpose; everything else is a bug and keeps its traceback.

Lab3Error
├── ConfigError     exit 78  an experiment file, an option or the place to write is wrong
│   └── RunStateError    78  a run folder is missing, or does not fit what was asked
│       └── RunExistsError 78  there is one already
├── DataError       exit 65  images or labels that cannot be used
├── ModelError      exit 65  a model file that cannot be used
├── RunLockedError  exit 75  another process works on this run; try again later
├── RecordError     exit 65  a run folder is not what its own record says, or a run repeated gives something else
├── UnfinishedError exit 75  a run that has not come to its end; resume it first
├── ServerError     exit 75  W&B's server cannot be reached or is not up to date; try again later
└── StoppedError    exit 75 or 130  a signal asked to stop; what was computed is kept

A message says what the rule is, what was received, and what to do.
"""

import errno
import re
from collections.abc import Sequence
from pathlib import Path


class Lab3Error(Exception):
    """Base of all expected errors. `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(Lab3Error):
    """An experiment file, an option or a place to write that cannot be used."""

    exit_code = 78


class RunStateError(ConfigError):
    """A run folder that exists, is missing, or does not fit what was asked."""


class RunExistsError(RunStateError):
    """A run that is to be new has the folder of another."""


class DataError(Lab3Error):
    """Images or labels that cannot be used."""

    exit_code = 65


class ModelError(Lab3Error):
    """A model file that cannot be used."""

    exit_code = 65


class RunLockedError(Lab3Error):
    """Another process holds the run's lock."""

    exit_code = 75


class RecordError(Lab3Error):
    """A run folder that is not what its own record says, or a run that gives something else when it is repeated."""

    exit_code = 65


class UnfinishedError(Lab3Error):
    """A run that has not come to its end."""

    exit_code = 75


class ServerError(Lab3Error):
    """W&B's server cannot be reached, or does not show what it was sent."""

    exit_code = 75


class StoppedError(Lab3Error):
    """A signal asked to stop: SIGTERM ends with 75, try again later, SIGINT with 130.

    `resumable` is the folder of the run or group that `lab3 resume` goes on with, None where nothing was written.
    """

    def __init__(self, message: str, exit_code: int, resumable: Path | None = None) -> None:
        super().__init__(message)
        self.exit_code, self.resumable = exit_code, resumable


def exit_code_of(error: OSError) -> int:
    """What a disk's or a name's error ends with: 78 where a name or what stands there is wrong, else 74, wait for room.

    >>> exit_code_of(OSError(errno.ENOSPC, "no room"))
    74
    """
    is_name = error.errno in (
        errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT, errno.EEXIST
    )  # fmt: skip
    return 78 if is_name else 74


def shown(value: object) -> str:
    """`value` as a message shows what it got: at most 60 characters.

    >>> shown(None)
    'null'
    """
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first_few(items: Sequence[object]) -> str:
    """`items` as a message names them: the first five.

    >>> first_few(range(7))
    '0, 1, 2, 3, 4 and 2 more'
    """
    named = ", ".join(map(str, items[:5])) or "none"
    return f"{named} and {len(items) - 5} more" if len(items) > 5 else named


def counted(n: int, unit: str) -> str:
    """A number as a message has it.

    >>> counted(1, "point"), counted(1200, "epoch")
    ('1 point', '1,200 epochs')
    """
    return f"{n:,} {unit}{'s' * (n != 1)}"


def one_line(error: Exception) -> str:
    """What a library says of a file, in one line; names in it can be the file's own."""
    # Keras sets parts of its messages in bold, and shows a layer's whole configuration before the reason.
    text = re.sub(r"\x1b\[\d*m", "", str(error)).rpartition("Exception encountered: ")[2]
    text = " ".join(text.split()) or type(error).__name__
    text = text if len(text) <= 300 else f"{text[:140]} ... {text[-155:]}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def printable(text: str) -> str:
    """untrusted `text`, such as the name of a layer, in one line: what would steer a terminal is escaped.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
