"""Whether a folder can hold runs: locks, replacing a file in one step, and appending."""

import fcntl
import os
import secrets
from pathlib import Path

from lab3.errors import ConfigError

# File systems whose locks other machines see, if they are mounted without an option that says otherwise.
_SHARED = ("nfs", "nfs4", "ceph", "lustre", "gpfs", "beegfs")
_LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs", "ramfs", "9p", "virtiofs")


def check_storage(folder: Path) -> str | None:
    """Try what a run needs of the file system; returns a warning where other machines do not see its locks.

    Raises `ConfigError` if a lock does not keep a second process off, or a file cannot be replaced or appended to, as
    on some mounted buckets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{secrets.token_hex(4)}.probe"
    failed = ""
    try:
        probe.mkdir()
        for what, attempt in (
            ("locks a folder", _locks), ("replaces a file", _replaces), ("appends to a file", _appends)
        ):  # fmt: skip
            try:
                does = attempt(probe)
            except OSError as error:
                does, what = False, f"{what} ({os.strerror(error.errno or 0)})"
            if not does:
                failed = what
                break
    finally:
        for path in (*probe.glob("*"), probe) if probe.exists() else ():
            path.rmdir() if path.is_dir() else path.unlink()
    kind, options = mount_of(folder)
    if failed:
        raise ConfigError(
            f"the folder of runs must be on a file system that {failed}, got {folder} on {kind}; give a local disk or "
            "NFS with --out, and copy finished runs to the bucket"
        )
    has_local_locks = any(each in options for each in ("nolock", "local_lock=all", "local_lock=flock"))
    if kind in _LOCAL or (kind in _SHARED and not has_local_locks):
        return None
    return (
        f"{folder} is on {kind}, whose locks other machines may not see: let the scheduler start one job at a time for "
        "a folder (concurrencyPolicy: Forbid)"
    )


def mount_of(folder: Path, mounts: str | None = None) -> tuple[str, list[str]]:
    """The type of the file system that holds `folder`, and the options it is mounted with.

    `mounts`: the lines of /proc/mounts.
    """
    lines = (mounts if mounts is not None else Path("/proc/mounts").read_text()).splitlines()
    found = [line.split() for line in lines]
    place = folder.absolute()
    # The last of several on one folder is what is seen. A blank in a path stands there as \040.
    fitting = [fields for fields in found if place.is_relative_to(fields[1].replace("\\040", " "))]
    _, _, kind, options, *_ = max(reversed(fitting), key=lambda fields: len(fields[1]), default=("", "", "unknown", ""))
    return kind, options.split(",")


def _locks(probe: Path) -> bool:
    first, second = (os.open(probe, os.O_RDONLY | os.O_CLOEXEC) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(first)
        os.close(second)
    return False


def _replaces(probe: Path) -> bool:
    old, new = probe / "old", probe / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    new.replace(old)
    return old.read_bytes() == b"new" and not new.exists()


def _appends(probe: Path) -> bool:
    path = probe / "rows"
    for part in (b"1", b"2"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, part)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return path.read_bytes() == b"12"
