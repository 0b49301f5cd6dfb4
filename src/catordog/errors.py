"""What goes wrong in words: every error names the thing, the value, and what to do."""

from __future__ import annotations


class CatordogError(Exception):
    """Something the user can mend: shown as one line on stderr, exit code 2, no traceback."""


class PhotoError(CatordogError):
    """One photo could not be read. A run counts and names it, and goes on.

    Attributes:
        path: the photo, in words that its owner recognises.
        reason: why it could not be read, without the path.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str, str]]:
        """Travel between processes: the default would call the class with one argument."""
        return type(self), (self.path, self.reason)


def missing_package(error: ImportError, extra: str) -> CatordogError:
    """What to say where a package is missing that only some users need."""
    return CatordogError(
        f"{error.name} is not installed: pip install 'catordog[{extra}]' brings what this needs"
    )
