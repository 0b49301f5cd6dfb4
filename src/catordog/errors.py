"""Errors for users: each names the thing, the value, and what to do."""

from __future__ import annotations


class CatordogError(Exception):
    """An error that the user can fix: one line on stderr, exit code 2, no traceback."""


class PhotoError(CatordogError):
    """One photo is unreadable. A run skips it, counts it, and reports it.

    Attributes:
        path: the path that the user knows the photo by.
        reason: why it is unreadable, without the path.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str, str]]:
        """Pickle both arguments: the default would call the class with one."""
        return type(self), (self.path, self.reason)


def missing_package(error: ImportError, extra: str) -> CatordogError:
    """Return the error for a package of an extra that is not installed.

    Args:
        error: of the import that failed.
        extra: the extra of catordog that installs the package.
    """
    return CatordogError(f"{error.name} is not installed: run pip install 'catordog[{extra}]'")
