"""With what status a command ends; one scheme for all of them."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Statuses of ``mtcp-serve``, ``python -m training``, ``export`` and ``benchmarks``."""

    DONE = 0
    """All is done, all is well."""
    FAILED = 1
    """It was begun and could not be finished, some of it failed and the rest is done, or a check found
    something."""
    NOTHING_DONE = 2
    """Nothing was done: a wrong option, setting, input or bundle."""
    CANNOT_HERE = 3
    """This machine cannot: the port is taken, a package or a device is missing."""
    INTERRUPTED = 130
    """Interrupted from the keyboard; one that SIGTERM ends has 143."""
