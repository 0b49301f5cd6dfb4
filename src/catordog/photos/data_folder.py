"""Where data sets and what is made from them lie."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """`data/` here, or where the environment variable CATORDOG_DATA says."""
    return Path(os.environ.get("CATORDOG_DATA") or "data")
