"""What the figures were measured on, and the memory of a process."""

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path


def machine(threads: int) -> dict[str, object]:
    """The processor, its cores, the ``threads`` of an inference, and the load average before the run."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return {
        "processor": found[1] if found else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": [round(value, 1) for value in os.getloadavg()],
    }


def resident_megabytes(pid: int, peak: bool = False) -> float | None:
    """Resident memory of a process, now or at its ``peak``; None where ``/proc`` does not exist."""
    status = Path(f"/proc/{pid}/status")
    field = "VmHWM" if peak else "VmRSS"
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return round(int(found[1]) / 1024, 1) if found else None


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` has started, and theirs; none where ``/proc`` does not exist."""
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found += [child, *descendants(child)]
    return found


def processor_seconds(pids: Iterable[int]) -> float:
    """What processes have computed so far, together; 0 where ``/proc`` does not exist."""
    total = 0
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            total += sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))
    return total / os.sysconf("SC_CLK_TCK")
