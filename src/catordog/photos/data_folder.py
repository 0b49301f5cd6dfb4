"""Where downloaded datasets and caches are stored."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """The folder that the environment variable CATORDOG_DATA names, or `data` by default."""
    return Path(os.environ.get("CATORDOG_DATA") or "data")
