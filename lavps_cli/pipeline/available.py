"""How much memory there is, and how much is taken."""

import os
import resource
import sys
from pathlib import Path

import torch


def resident(device: torch.device) -> int:
    """Return what is held already: of this process, or by PyTorch on the device."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return peak(device)
    return pages * resource.getpagesize()


def available(device: torch.device) -> int | None:
    """Return what this process may hold in all, None where nothing tells.

    On the CPU the least of what the machine has, the limits of its control groups and `ulimit -v`
    leave; what the process holds already counts as available.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + int(torch.cuda.memory_reserved(device))
    if device.type != "cpu":
        return None
    free_now = [each for each in (_of_machine(), *_of_groups(), _of_limit()) if each is not None]
    if free_now:
        return max(min(free_now), 0) + resident(device)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _of_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_groups(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Return what each control group of this process leaves, of version 2 or 1."""
    found: list[int] = []
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return found
    for line in lines:
        _, kind, path = line.split(":", 2)
        if kind and "memory" not in kind.split(","):
            continue
        top = root / "memory" if kind else root
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if kind
            else (
                "memory.max",
                "memory.current",
            )
        )
        folder = top / path.strip("/")
        for each in (folder, *folder.parents):
            if each == root.parent:
                break
            left = _left(each, *names)
            if left is not None:
                found.append(left)
    return found


def _left(folder: Path, limit: str, usage: str) -> int | None:
    """Return what a control group leaves, with the pages of files that it would give up."""
    try:
        most, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit, usage))
    except (OSError, ValueError):  # "max" is no limit.
        return None
    given_up = 0
    try:
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                given_up = int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return most - used + given_up


def _of_limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return int(soft) - pages * resource.getpagesize()


def peak(device: torch.device) -> int:
    """Return the most bytes so far: of a CUDA device since its `rest`, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
