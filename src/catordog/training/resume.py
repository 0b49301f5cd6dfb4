"""Where a run resumes: its checkpoint, its folder, and the settings that it was started with."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catordog.errors import CatordogError
from catordog.files import expanded
from catordog.model.checkpoint import Checkpoint, load_checkpoint
from catordog.terminal import info
from catordog.training.config import rename_options
from catordog.training.config_check import check_settings, names_other_code, read_yaml
from catordog.training.module import ClassifierModule
from catordog.training.runs import FOLDS_COMMAND, LAST, PREVIOUS, newest_run, shown_path

Settings = dict[str, Any]

_LINKED = ("classes", "size", "seed")
"""Settings of the module that `catordog train` takes from the data and from the seed."""
_FIXED = (
    *("network", "network_args", "optimizer"),
    *("lr", "other_lr", "momentum", "weight_decay"),
)
"""Settings of the module that are in a checkpoint's state: others would not fit, or not count."""

_FIXED_TRANSFER = ("first_lr", "head_lr")
"""Those of `model.transfer`."""

_MACHINE = ("accelerator", "devices", "num_nodes", "strategy")
"""Settings of the trainer that say where a run was started, which may be elsewhere now."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a run starts.

    Attributes:
        checkpoint: a readable checkpoint; None: start from the beginning.
        run: the folder to write to; None: a new one.
        epoch: index of the epoch that the checkpoint was saved in.
        settings: of the run that wrote the checkpoint, as a config.
    """

    checkpoint: Path | None = None
    run: Path | None = None
    epoch: int = 0
    settings: Settings = field(default_factory=dict)


def find_checkpoint(ckpt_path: str | None, runs: Path) -> ResumePoint:
    """Find and verify the checkpoint to resume from.

    Where a `last.ckpt` is damaged, the `previous.ckpt` beside it is taken.

    Args:
        ckpt_path: a file; `last` for the newest of `runs`; None for none.
        runs: the runs of this name, `runs/NAME`.

    Returns:
        Without a checkpoint where none is asked for, and where the newest run was stopped before
        its first: that one starts again in its folder.

    Raises:
        CatordogError: there is no such file, or training can't resume from it.
    """
    if ckpt_path is None:
        return ResumePoint()
    if ckpt_path != "last":
        path = expanded(ckpt_path)
        _check_is_checkpoint(path)
        return _read(path, path.parent.parent if path.parent.name == "checkpoints" else None)
    newest = newest_run(runs)
    if newest and (newest / FOLDS_COMMAND).is_file():
        raise CatordogError(
            f"--ckpt_path last: the newest run, {shown_path(newest)}, was started with --folds: "
            "give that, too"
        )
    folder = (newest or runs) / "checkpoints"
    if not ((folder / LAST).is_file() or (folder / PREVIOUS).is_file()):
        info(
            f"--ckpt_path last: no checkpoint in {newest or runs} yet; starting from the beginning"
        )
        return ResumePoint(None, newest)
    return _read(folder / LAST, newest)


def _check_is_checkpoint(path: Path) -> None:
    if path.is_dir():
        found = sorted(path.rglob(LAST), key=lambda file: file.stat().st_mtime)
        hint = f"give its {shown_path(found[-1])}" if found else f"there is no {LAST} in it"
        raise CatordogError(f"--ckpt_path {path}: a folder; {hint}")
    if path.suffix.lower() == ".onnx":
        raise CatordogError(
            f"--ckpt_path {path}: an .onnx file has no optimiser state: give the .ckpt that it was "
            "exported from"
        )
    if not path.is_file():
        raise CatordogError(f"--ckpt_path {path}: no such file")


def _read(path: Path, run: Path | None) -> ResumePoint:
    """The checkpoint, or the previous one if it is damaged."""
    try:
        checkpoint = load_checkpoint(path)
    except CatordogError as error:
        previous = path.with_name(PREVIOUS)
        if path.name != LAST or not previous.is_file():
            raise
        checkpoint = load_checkpoint(previous)
        info(f"{error}; resuming from {PREVIOUS}")
        path = previous
    if not {"optimizer_states", "lr_schedulers", "loops"} <= checkpoint.content.keys():
        raise CatordogError(
            f"--ckpt_path {path}: it has weights but no optimiser state, so training can't resume "
            "from it: start a new run with --model.weights instead"
        )
    epoch = int(checkpoint.content.get("epoch", 0))
    return ResumePoint(path, run, epoch, _settings_of(checkpoint, run))


def _settings_of(checkpoint: Checkpoint, run: Path | None) -> Settings:
    """The settings of the run: of its `config.yaml`, corrected by what the checkpoint contains."""
    settings: Settings = {}
    config = run and run / "config.yaml"
    if config and config.is_file():
        content = read_yaml(config)
        if isinstance(content, Mapping):
            settings = _portable(rename_options(content))
            check_settings(settings, config)
    stored = {"model": checkpoint.content.get("hyper_parameters", {})}
    known = inspect.signature(ClassifierModule.__init__).parameters.keys() - {*_LINKED}
    model, info_ = settings.get("model") or {}, checkpoint.model
    renamed = rename_options(stored)["model"]
    model |= {name: value for name, value in renamed.items() if name in known}
    model |= {"network": info_.network, "network_args": dict(info_.network_args)}
    preprocess, fractions = info_.preprocess, info_.split_fractions
    data = (settings.get("data") or {}) | {
        "size": preprocess.size,
        "resize": preprocess.resize,
        "mean": [*preprocess.mean],
        "std": [*preprocess.std],
        "val": fractions.val,
        "test": fractions.test,
    }
    plain: Settings = json.loads(json.dumps({**settings, "model": model, "data": data}))
    return plain


def _portable(config: Mapping[str, Any]) -> Settings:
    """A run's settings without those of a single start, and without loggers and the like."""
    settings = {key: value for key, value in config.items() if key not in ("ckpt_path", "find")}
    trainer = settings.get("trainer")
    if isinstance(trainer, Mapping):
        settings["trainer"] = {
            name: value
            for name, value in trainer.items()
            if name not in _MACHINE and not names_other_code(name, value)
        }
    return settings


def base_config(found: ResumePoint, given: Mapping[str, Any], *, has_config: bool) -> Settings:
    """What a resumed run takes from its checkpoint; everything that the user sets overrides it.

    Without a config, that is every setting; with one, those of the network and of the data.

    Args:
        found: the checkpoint.
        given: the user's options and settings by their dotted names.
        has_config: whether the user has given a config.

    Raises:
        CatordogError: no photos are known.
    """
    settings = {**found.settings}
    if has_config:
        settings = {name: settings[name] for name in ("model", "data")}
    if "callbacks" in (settings.get("trainer") or {}) and any(
        name.startswith("trainer.callbacks") for name in given
    ):
        del settings["trainer"]["callbacks"]
    if not (settings["data"].get("source") or given.keys() & {"data", "data.source"}):
        raise CatordogError(
            f"--ckpt_path {found.checkpoint}: its run's config.yaml is missing, so its photos are "
            "unknown: give --data"
        )
    return settings


def check_fits(found: ResumePoint, model: Mapping[str, Any]) -> None:
    """Compare the settings of a resumed run with those of its checkpoint.

    Args:
        found: the checkpoint.
        model: the settings of the module.

    Raises:
        CatordogError: network, optimiser or learning rates differ.
    """
    before = found.settings["model"]
    pairs = [(name, before[name], model[name]) for name in _FIXED if name in before]
    transfer = before.get("transfer") or {}
    pairs += [
        (f"transfer.{name}", transfer[name], getattr(model["transfer"], name))
        for name in _FIXED_TRANSFER
        if name in transfer
    ]
    for name, was, now in pairs:
        if (was or None) != (json.loads(json.dumps(now)) or None):
            raise CatordogError(
                f"{shown_path(found.checkpoint or Path())} was trained with model.{name} {was}, "
                f"and this run has {now}: leave the setting out, or start a new run without "
                "--ckpt_path"
            )
