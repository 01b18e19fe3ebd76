"""A gateway process on a free loopback port."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Gateway:
    """Where it listens, its process id, and the seconds from its start to being ready."""

    url: str
    pid: int
    start_s: float


@contextmanager
def gateway(
    bundle: Path,
    threads: int,
    *options: str,
    on_line: Callable[[str], object] = len,
    checkout: Path | None = None,
) -> Iterator[Gateway]:
    """Serve ``bundle`` while the block lasts; ``options`` go to ``serve``, that of ``checkout`` if given.

    ``on_line`` is told every line of the server's log after the one that names its address, in a thread.
    """
    serve = [
        "-m",
        "mtcp_serve",
        "serve",
        "--bundle",
        str(bundle.resolve()),
        "--port",
        "0",
        "--intra-op-threads",
        str(threads),
    ]
    command = [sys.executable, *serve, *options]
    start = time.perf_counter()
    where = {} if checkout is None else {"PYTHONPATH": str(checkout.resolve())}
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=checkout,
        env=os.environ | where,
    ) as process:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)))
        lines = map(on_line, process.stderr)
        drain = threading.Thread(target=deque, args=(lines, 0))  # a full pipe would stop the server
        drain.start()
        try:
            httpx.get(f"{found[0]}/health/ready").raise_for_status()
            yield Gateway(found[0], process.pid, time.perf_counter() - start)
        finally:
            process.terminate()
            drain.join()
