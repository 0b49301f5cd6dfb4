"""`python -m catordog` is `catordog`."""

from catordog.cli import entry

entry()
