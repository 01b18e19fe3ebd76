"""Where what was compiled for this machine is kept for the next start."""

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)


def cache_folder(*parts: str) -> Path | None:
    """``$XDG_CACHE_HOME/mtcp-serve/PARTS``, made if need be; None, with a warning, where it cannot be."""
    home = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    folder = Path(home, "mtcp-serve", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("%s cannot be written (%s): every start compiles again", folder, error.strerror)
        return None
    return folder
