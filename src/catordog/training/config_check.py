"""What a config file may contain, wherever it comes from.

A class path in a config names code that Python finds on this machine; the file itself contains
none. It may name what training needs: a network, or a callback of the trainer. Loggers, strategies,
plugins and the like can send data away or start programs, and a function by name can be any
function: those are allowed on the command line only, where the user types them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from catordog.errors import CatordogError

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_NAMED_CLASSES = {("accelerator",), ("logger",), ("plugins",), ("profiler",), ("strategy",)}
"""Trainer options that also take a class by its bare name, which has capitals."""
_GROUPS = ("data", "model", "trainer")


def read_yaml(path: Path) -> Any:
    """Read a config as plain data.

    Raises:
        CatordogError: it can't be read, or it is not YAML of plain values.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CatordogError(f"--config {path}: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise CatordogError(f"--config {path}: not YAML of plain values ({reason})") from None


def check_config(path: Path, group: str = "") -> Any:
    """Refuse a config that names code other than a network, an optimiser or a callback.

    Nothing is imported. Whether a class is a network or a callback is checked when it is built.

    Args:
        path: the file.
        group: the options that it sets, such as `model` of `--model F`; "": all.

    Returns:
        Its content.

    Raises:
        CatordogError: it names other code, or it is not YAML of plain values.
    """
    config = read_yaml(path)
    if isinstance(config, Mapping) and not group:
        for name in _GROUPS:
            if isinstance(config.get(name), str):
                raise CatordogError(
                    f"--config {path}: {name} is a file's name: write its settings into this file"
                )
    for keys, value in _walk(config, tuple(group.split(".")) if group else ()):
        _check(path, keys, value)
    return config


def _check(path: Path, keys: tuple[str, ...], value: Any) -> None:
    name = ".".join(keys)
    callback = keys[:2] == ("trainer", "callbacks")
    named_class = (
        keys[:1] == ("trainer",)
        and keys[1:] in _NAMED_CLASSES
        and isinstance(value, str)
        and value != value.lower()
    )
    if (keys[-1] == "class_path" and not callback) or named_class:
        raise CatordogError(
            f"--config {path}: {name} names {value}, and a config file may name networks, "
            "optimisers and callbacks only: give it on the command line instead"
        )
    code = keys[-1] == "class_path" or keys == ("model", "network") or "init_args" in keys
    class_path = isinstance(value, str) and _CLASS_PATH.fullmatch(value) is not None
    if code and class_path and value.partition(".")[0] in sys.stdlib_module_names:
        raise CatordogError(
            f"--config {path}: {name} names {value}, which is no network, optimiser or callback"
        )


def _walk(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every single value, with the keys that lead to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, (*keys, *str(key).split(".")))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _walk(inner, keys)
    elif keys:
        yield keys, value
