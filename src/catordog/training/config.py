"""Config files: found by name, checked, and read with the option names of older versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from catordog.errors import CatordogError
from catordog.training.config_check import check_config, read_yaml

RENAMED = {"model.mirror": "model.tta_flip"}
"""Option names of older versions, which configs and the `config.yaml` of runs still have."""

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs")
"""Configs that come with the package: of a wheel, and of a checkout."""

_CONFIG_OPTIONS = ("data.augment", "model", "model.network_args", "model.transfer", "trainer")
"""Options that also take a config file with their part of the settings, as all of trainer.* do."""


def find_config(name: str) -> Path:
    """A config by its path, or by the name of one that comes with the package.

    Raises:
        CatordogError: there is none.
    """
    if Path(name).exists():
        return Path(name)
    for folder in _FOLDERS:
        if (folder / Path(name).name).is_file():
            return folder / Path(name).name
    names = sorted({path.name for folder in _FOLDERS for path in folder.glob("*.yaml")})
    raise CatordogError(f"--config {name}: no such file; catordog has {', '.join(names)}")


def config_argument(path: Path, group: str = "") -> str:
    """Check a config, and return what the parser should read: its path, or its renamed content.

    Args:
        path: the file.
        group: the options that the file sets, such as `model` of `--model F`; "": all.

    Raises:
        CatordogError: the config is unreadable, or names code that configs may not name.
    """
    content = check_config(path, group)
    if not isinstance(content, Mapping):
        return str(path)  # a list of callbacks, or what the parser refuses
    renamed = rename_options(content, group)
    utf16 = b"\0" in path.read_bytes()  # which the parser can't read
    if renamed == content and not utf16:
        return str(path)
    import yaml

    return str(yaml.safe_dump(renamed))


def rename_options(content: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """The same settings under today's names.

    >>> rename_options({"model": {"mirror": True, "lr": 0.1}})
    {'model': {'tta_flip': True, 'lr': 0.1}}
    """
    renamed: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{group}.{key}" if group else str(key)
        new = RENAMED.get(name, name)
        inner = rename_options(value, name) if isinstance(value, Mapping) else value
        renamed[new.removeprefix(f"{group}.") if group else new] = inner
    return renamed


def split_options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The options among words, with their values.

    >>> list(split_options(["--model.lr", "0.1", "--data.size=32", "--print_config"]))
    [('model.lr', '0.1'), ('data.size', '32'), ('print_config', None)]
    """
    for index, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            following = words[index + 1] if index + 1 < len(words) else "--"
            if equals:
                yield name, value
            else:
                yield name, None if following.startswith("--") else following


def with_checked_configs(words: Sequence[str]) -> list[str]:
    """Options of LightningCLI, those that name a config file (`--model F`) checked and renamed.

    Raises:
        CatordogError: as of `config_argument`.
    """
    checked: list[str] = []
    option = ""
    for word in words:
        prefix, value = "", word
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            prefix = option + equals
        name = option[2:].rstrip("+")
        takes_config = name in _CONFIG_OPTIONS or name.startswith("trainer.")
        if takes_config and value and _is_file(value):
            value = config_argument(Path(value), name)
        checked.append(prefix + value)
    return checked


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # too long for a name, or not one
        return False


def settings_of(config: Path) -> Iterator[tuple[str, Any]]:
    """Every setting of a config with its dotted name, under today's names."""
    content = read_yaml(config)
    if isinstance(content, Mapping):
        yield from _flat(rename_options(content))


def _flat(content: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{group}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
