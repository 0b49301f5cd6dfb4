"""Errors of wrong settings, in one line: the option, its value, and what it takes.

jsonargparse reports Python types over several lines. Where it refuses settings, the first wrong one
is found again from the type hints of the classes that take them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from catordog.errors import CatordogError
from catordog.training.config import settings_of, split_options

_MAX_LENGTH = 500
_DESCRIPTIONS: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def explain(
    error: Exception, types: Mapping[str, Any], configs: Sequence[Path], options: Sequence[str]
) -> str:
    """What is wrong, as one line.

    Args:
        error: of jsonargparse.
        types: the type of each top-level setting; a class stands for the settings of its
            constructor.
        configs: the config files of the run.
        options: its other options.
    """
    for config in configs:
        found = _first_wrong(settings_of(config), types)
        if found:
            return f"{config}: {found}"
    found = _first_wrong(split_options(options), types)
    if found:
        return f"--{found} (see catordog train --help-all)"
    line = _in_a_line(error)
    return f"{', '.join(map(str, configs))}: {line}" if configs and not options else line


def unusable(error: Exception) -> CatordogError:
    """What Lightning, or the constructor of a setting's class, has refused, as one line."""
    line = _in_a_line(error)
    if missing := re.search(r"Requirement '([^']+)' not met", str(error)):
        line = f"{missing[1]} is not installed: run pip install '{missing[1]}'"
    return CatordogError(f"these settings can't be used: {line}")


def _in_a_line(error: Exception) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= _MAX_LENGTH else f"{line[:_MAX_LENGTH]} …"


def _first_wrong(settings: Iterable[tuple[str, Any]], types: Mapping[str, Any]) -> str | None:
    for name, value in settings:
        try:
            hint = _type_of(name, types)
        except LookupError:
            return f"{name}: no such option"
        expected = None if value is None else _unmet(hint, value)
        if expected:
            return f"{name} {value}: expected {expected}"
    return None


def _type_of(name: str, types: Mapping[str, Any]) -> Any:
    """The type of a setting by its dotted name; `Any` where only the parser knows.

    Raises:
        LookupError: there is no such setting.
    """
    first, *names = name.rstrip("+").split(".")
    if first in ("config", "print_config", "help"):
        return Any
    hint = types[first]
    for depth, key in enumerate(names):
        if key == "help" or (depth > 0 and not is_dataclass(hint)):
            return Any
        hint = get_type_hints(hint.__init__)[key]
    return hint


def _unmet(hint: Any, value: Any) -> str | None:
    """What a value should have been; None if it fits, or the type has no plain description."""
    expected: list[str] = []
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if kind is NoneType:
            if str(value).lower() in ("null", "none"):
                return None
        elif get_origin(kind) is Literal:
            if value in get_args(kind):
                return None
            expected += [str(choice) for choice in get_args(kind)]
        elif kind in _DESCRIPTIONS:
            if _fits(kind, value):
                return None
            expected.append(_DESCRIPTIONS[kind])
        else:
            return None
    if len(expected) < 2:
        return expected[0] if expected else None
    return f"{', '.join(expected[:-1])} or {expected[-1]}"


def _fits(kind: type, value: Any) -> bool:
    if kind is bool:
        return str(value).lower() in ("true", "false", "yes", "no", "on", "off")
    try:
        kind(str(value))
    except ValueError:
        return False
    return True
