"""Tests run one thread a process; the processes are spread over the cores."""

import signal

import pytest
import torch

torch.set_num_threads(1)

# A shell that runs the tests in the background has them ignore SIGINT, and the commands they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file comes first: with it last, one core would work at the end and the others wait."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
