"""Which way of writing the same mathematics is wanted: for training, or for an exported graph.

A runtime on a CPU pays for each axis that is moved and each short row that is added, and folds what is
computed from weights alone when it loads; autograd pays for other things. Modules that know two ways ask
:func:`exporting`. ``torch.compiler.is_exporting`` is no answer: what PyTorch 2.11 compiles is told so too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_asked = False  # a plain variable: the compiler of PyTorch 2.11 does not read a ContextVar


def exporting() -> bool:
    """Whether this is inside of :func:`as_exported`."""
    return _asked


@contextmanager
def as_exported() -> Iterator[None]:
    """Compute in the way of exported graphs: to export one, make the constants that it needs, or test it."""
    global _asked
    before, _asked = _asked, True
    try:
        yield
    finally:
        _asked = before
