"""What a config file may say, wherever it comes from.

A class path in a config names code that Python can find on this machine; the file itself brings
none. What it may name is a network, or a callback of the trainer: what training needs. Loggers,
strategies, plugins and the like can send things away or start programs, and functions by name can
be any at all: those are for the command line, where the user says them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from catordog.errors import CatordogError

_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_BY_NAME = {("accelerator",), ("logger",), ("plugins",), ("profiler",), ("strategy",)}
"""Of the trainer: classes may also go by their bare names, which have capitals."""
_GROUPS = ("data", "model", "trainer")


def check_config(path: Path) -> None:
    """Refuse a config that names what is not a network, an optimiser or a callback.

    Nothing is imported for it. Whether a class is a network or a callback is checked later, when
    it is built.

    Raises:
        CatordogError: it does, or it is no YAML of plain values.
    """
    import yaml

    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CatordogError(f"--config {path}: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise CatordogError(f"--config {path}: not YAML of plain values ({where})") from None
    if not isinstance(config, Mapping):
        return  # the parser says what is wrong with it
    for group in _GROUPS:
        if isinstance(config.get(group), str):
            raise CatordogError(
                f"--config {path}: {group} has to be written out, not a file's name"
            )
    for place, value in _walk(config):
        _check(path, place, value)


def _check(path: Path, place: tuple[str, ...], value: Any) -> None:
    where = ".".join(place)
    callback = place[:2] == ("trainer", "callbacks")
    by_name = place[:1] == ("trainer",) and place[1:] in _BY_NAME and isinstance(value, str)
    if (place[-1] == "class_path" and not callback) or (by_name and value != value.lower()):
        raise CatordogError(
            f"--config {path}: {where} names {value}, and a config file may name networks, "
            "optimisers and callbacks only: if you want it, say it on the command line"
        )
    code = place[-1] == "class_path" or place == ("model", "network") or "init_args" in place
    named = isinstance(value, str) and _NAME.fullmatch(value) is not None
    if code and named and value.partition(".")[0] in sys.stdlib_module_names:
        raise CatordogError(
            f"--config {path}: {where} names {value}, which is no network, optimiser or callback"
        )


def _walk(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every single value, with the names that lead to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, (*place, *str(key).split(".")))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _walk(inner, place)
    elif place:
        yield place, value
