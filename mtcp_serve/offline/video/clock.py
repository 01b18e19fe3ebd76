"""Time stamps of frames that go back, as where two recordings were joined, made to go on."""

from fractions import Fraction
from typing import Final

_SLACK_S: Final = Fraction(1, 2)
_SLACK_FRAMES: Final = 16  # of H.264, in a container that has its frames in the order of decoding


class Clock:
    """When frames are shown, in units of ``time_base`` (seconds) from 0, each after the one before.

    ``start`` is the time stamp of the first frame, ``step`` what is between two, in the same units. Time
    stamps that go back by more than frames are reordered by are of a clock that was set anew: the frame
    follows the one before by a step, and later ones by what their stamps differ.
    """

    def __init__(self, start: int, step: int, time_base: Fraction) -> None:
        self._start, self._step = start, step
        self._slack = max(round(_SLACK_S / time_base), _SLACK_FRAMES * step)
        self._before: int | None = None
        self._last = -1
        self.restarts = 0
        """How often the time stamps went back."""

    def shown(self, index: int, stamp: int | None) -> int:
        """When frame ``index`` is shown, whose time stamp is ``stamp``, where it has one."""
        time = index * self._step if stamp is None else self._of(stamp)
        self._last = max(time, self._last + 1)
        return self._last

    def _of(self, stamp: int) -> int:
        time = stamp - self._start
        if self._last - time > self._slack:
            self._before, self._start = self._start, stamp - self._last - self._step
            self.restarts += 1
        elif (
            self._before is not None
            and time - self._last > self._slack
            and abs(stamp - self._before - self._last) <= self._slack
        ):  # only the stamp before was wrong
            self._start, self._before = self._before, None
            self.restarts -= 1
        return stamp - self._start
