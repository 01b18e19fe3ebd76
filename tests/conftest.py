"""Tests run one thread a process, spread over the cores; what is random is the same every time."""

import signal
from typing import Any

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.load_profile("ci")  # the same examples every time, and a busy machine is no fault

# A shell that runs the tests in the background has them ignore SIGINT, and the commands they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test and its fixtures draw the same numbers whichever tests the process ran before."""
    torch.manual_seed(0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Of a worker that died pytest-xdist says only that it did: the signal or status tells how."""
    if error:
        status = node.gateway._io.popen.wait(timeout=60)
        print(f"worker {node.gateway.id} ended with status {status} (a negative one is a signal)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file comes first: with it last, one core would work at the end and the others wait."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
