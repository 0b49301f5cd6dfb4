"""Remember which run has written a file of predictions, so that no other run continues it.

The record is an extended attribute of the file: the format of the rows does not change, and nothing
lies beside the results. Where the system has no such attributes, it is a hidden file beside them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from catordog.errors import CatordogError
from catordog.escaping import encodable, json_text
from catordog.files import write_text

Settings = Mapping[str, str | float | None]
"""What rows depend on: `model`, a digest, and the options that decide verdicts."""

_ATTRIBUTE = "user.catordog"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What has written the rows of a file.

    Attributes:
        settings: see `Settings`.
        folder: the one that relative paths in the rows start from.
    """

    settings: dict[str, str | float | None]
    folder: str

    @classmethod
    def of(cls, settings: Settings) -> RunRecord:
        """The record of a run with these settings in the current folder."""
        return cls(dict(settings), encodable(Path.cwd()))

    def check(self, settings: Settings, file: Path) -> None:
        """Refuse to continue a file with other settings.

        Raises:
            CatordogError: a setting differs.
        """
        names = self.settings.keys() | settings.keys()
        for name in sorted(names, key=lambda name: (name != "model", name)):
            before, now = self.settings.get(name), settings.get(name)
            if before == now:
                continue
            if name == "model":
                difference = "rows of another model"
            else:
                difference = (
                    f"rows with {_words(name, before)}, and this run has {_words(name, now)}"
                )
            raise CatordogError(
                f"{encodable(file)} has {difference}: resume it with the same options, or give "
                "another --out"
            )


def _words(option: str, value: str | float | None) -> str:
    return f"no {option}" if value is None else f"{option} {value}"


def read_record(rows: Path, target: Path) -> RunRecord | None:
    """Return the record of a file; None if it has none, as files of older versions.

    Args:
        rows: the file with the rows, complete or partial.
        target: the complete file.
    """
    text: bytes | None = None
    if sys.platform == "linux":
        with suppress(OSError):
            text = os.getxattr(rows, _ATTRIBUTE)
    if text is None:
        with suppress(OSError):
            text = _beside(target).read_bytes()
    try:
        return RunRecord(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        return None


def write_record(record: RunRecord, rows: Path, target: Path) -> None:
    """Attach a record to a file; see `read_record`."""
    text = json_text(asdict(record))
    if sys.platform == "linux":
        with suppress(OSError):
            os.setxattr(rows, _ATTRIBUTE, text.encode())
            _beside(target).unlink(missing_ok=True)
            return
    with suppress(CatordogError):  # a file without a record can be resumed, too
        write_text(_beside(target), text)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.run")
