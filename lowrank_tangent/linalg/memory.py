"""Refuses arrays that this process cannot hold, before the operating system does it less politely."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

_GIB = 2.0**30
#: Where Linux says of which control groups a process is a member, and where it keeps them.
_MEMBERSHIP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def physical_memory() -> float:
    """Bytes of main memory, or infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


@functools.cache  # reading takes a millisecond, and limits of a process do not change
def cgroup_limit(membership: Path = _MEMBERSHIP, groups: Path = _GROUPS) -> float:
    """Bytes that containers and batch systems leave to this process by control groups; infinity without a limit.

    A group has no more than the groups that it is in. A container may see its own group as the root.

    Parameters
    ----------
    membership : Path
        One line a hierarchy, ``number:controllers:path``; those of version 2 have no controllers.
    groups : Path
        Folder of the hierarchies: ``memory/<path>/memory.limit_in_bytes`` in version 1, ``<path>/memory.max`` or
        ``unified/<path>/memory.max`` in version 2.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return math.inf
    limits = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            limits += _limits(groups / "memory", path, "memory.limit_in_bytes")
        elif not controllers:
            limits += [*_limits(groups, path, "memory.max"), *_limits(groups / "unified", path, "memory.max")]
    return min(limits)


def _limits(root: Path, path: str, name: str) -> Iterator[float]:
    """Limits of a group and of those that it is in, as far as there are files of that name."""
    inside = PurePosixPath(path.lstrip("/"))
    for group in (inside, *inside.parents):
        try:
            # "max" is no limit.
            yield float((root / group / name).read_text(encoding="utf-8").strip().replace("max", "inf"))
        except (OSError, ValueError):
            continue


def address_space_limit() -> float:
    """Bytes of address space that this process may have (``ulimit -v``), or infinity."""
    try:
        import resource  # there is none on Windows
    except ImportError:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if soft == resource.RLIM_INFINITY else float(soft)


def available_memory() -> float:
    """Bytes that this process may have: the least of main memory and of what limits it."""
    return min(physical_memory(), cgroup_limit(), address_space_limit())


def check_fits_in_memory(
    shape: Sequence[int],
    what: str,
    itemsize: int = 8,
    remedy: str = "Use fewer samples, or outputs='shared', whose kernel is n x n.",
) -> None:
    """Refuse arrays that exceed the memory of this process, before they are made.

    Parameters
    ----------
    shape : sequence of int
        Of an array, or of several of the same shape with their number in front.
    what : str
        Name of the array in the message.
    itemsize : int, default=8
        Bytes of a number.
    remedy : str
        What to do in place of it.

    Raises
    ------
    MemoryError
        With the size, the memory and the remedy.
    """
    size = math.prod(shape) * itemsize
    available = available_memory()
    if size > available:
        raise MemoryError(
            f"{what} of shape {tuple(shape)} needs {size / _GIB:,.1f} GiB and this machine has "
            f"{available / _GIB:,.1f} GiB for this process. {remedy}"
        )
