"""What a config file may contain, wherever it comes from.

A class path in a config names code that Python finds on this machine; the file itself contains
none. It may name what training needs: a network, or a callback of the trainer. Loggers, strategies,
plugins and the like can send data away or start programs, and a function by name can be any
function: those are allowed on the command line only, where the user types them.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from catordog.errors import CatordogError

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_CODE_OPTIONS = ("accelerator", "logger", "plugins", "profiler", "strategy")
"""Trainer options that take a class, also by its bare name, which has capitals."""
_GROUPS = ("data", "model", "trainer")


def read_yaml(path: Path) -> Any:
    """Read a config as plain data, in UTF-8 or in UTF-16 with a byte order mark.

    Raises:
        CatordogError: it can't be read, it is empty, it is not YAML of plain values, or it sets an
            option twice.
    """
    import yaml

    if path.is_dir():
        raise CatordogError(f"--config {path}: a folder; give a file of YAML")
    try:
        content = yaml.load(decode_config(path.read_bytes()), Loader=_loader())  # nosec B506
    except UnicodeDecodeError:
        raise CatordogError(f"--config {path}: not text in UTF-8: save it as UTF-8") from None
    except OSError as error:
        raise CatordogError(f"--config {path}: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise CatordogError(f"--config {path}: {_yaml_error(error)}") from None
    if content is None:
        raise CatordogError(f"--config {path}: empty; write settings such as 'model: {{lr: 0.1}}'")
    return content


def decode_config(content: bytes) -> str:
    """The text of a config. PowerShell and Notepad write UTF-16 with a byte order mark."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")


def _loader() -> Any:
    """PyYAML's safe loader, which would silently let the last of several equal keys win."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            lines: dict[str, int] = {}
            for key, _ in node.value:
                if key.value in lines and isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(
                        problem=f"{key.value!r} is set in line {lines[key.value]} and again",
                        problem_mark=key.start_mark,
                    )
                if isinstance(key, yaml.ScalarNode):
                    lines[key.value] = key.start_mark.line + 1
            return super().construct_mapping(node, deep=deep)

    return Loader


def _yaml_error(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"not YAML of plain values ({' '.join(str(error).split())})"
    line = f"line {mark.line + 1}"
    if "\\t" in str(error.problem) or (mark.buffer or "")[mark.pointer : mark.pointer + 1] == "\t":
        return f"{line} is indented with a tab: use spaces"
    if "again" in str(error.problem):
        return f"{error.problem} in {line}: remove one"
    reason = " ".join(str(error).split())
    return f"not YAML of plain values ({reason})"


def check_config(path: Path, group: str = "") -> Any:
    """Refuse a config that names code other than a network or a callback.

    Nothing is imported. Whether a class is a network or a callback is checked when it is built.

    Args:
        path: the file.
        group: the options that it sets, such as `model` of `--model F`; "": all.

    Returns:
        Its content.

    Raises:
        CatordogError: it names other code, it is no mapping, or it is not YAML of plain values.
    """
    config = read_yaml(path)
    if not isinstance(config, Mapping) and not group:
        kind = "a list" if isinstance(config, list) else "a single value"
        raise CatordogError(
            f"--config {path}: {kind}, and not settings by name such as 'model: {{lr: 0.1}}'"
        )
    try:
        check_settings(config, path, group)
    except RecursionError:
        raise CatordogError(f"--config {path}: nested too deeply, or within itself") from None
    return config


def check_settings(config: Any, path: Path, group: str = "") -> None:
    """The same for settings that have been read already."""
    if isinstance(config, Mapping) and not group:
        for name in _GROUPS:
            if isinstance(config.get(name), str):
                raise CatordogError(
                    f"--config {path}: {name} is a file's name: write its settings into this file"
                )
    for keys, value in _walk(config, tuple(group.split(".")) if group else ()):
        _check(path, keys, value)


def names_other_code(option: str, value: Any) -> bool:
    """Whether an option of the trainer names a class that configs may not name."""
    values = value if isinstance(value, list) else [value]
    return option in _CODE_OPTIONS and any(
        isinstance(each, Mapping) or (isinstance(each, str) and each != each.lower())
        for each in values
    )


def _check(path: Path, keys: tuple[str, ...], value: Any) -> None:
    name = ".".join(keys)
    if keys[0] == "optimizer" or keys == ("model", "optimizer", "class_path"):
        raise CatordogError(
            f"--config {path}: {name} names {value}, and optimisers are chosen by name: "
            "model.optimizer takes sgd, muon or adamw"
        )
    of_trainer = keys[0] == "trainer" and len(keys) > 1 and keys[1] in _CODE_OPTIONS
    named_class = of_trainer and len(keys) == 2 and names_other_code(keys[1], value)
    if (keys[-1] == "class_path" and of_trainer) or named_class:
        raise CatordogError(
            f"--config {path}: {name} names {value}, and a config file may name the classes of "
            "networks and callbacks only: give this one on the command line instead"
        )
    if keys[-1] == "class_path" and keys[:2] != ("trainer", "callbacks"):
        raise CatordogError(
            f"--config {path}: {name} names {value}, and only trainer.callbacks takes class_path; "
            "model.network takes a class path as text"
        )
    code = keys[-1] == "class_path" or keys == ("model", "network") or "init_args" in keys
    class_path = isinstance(value, str) and _CLASS_PATH.fullmatch(value) is not None
    if code and class_path and value.partition(".")[0] in sys.stdlib_module_names:
        raise CatordogError(
            f"--config {path}: {name} names {value}, which is no network or callback"
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
