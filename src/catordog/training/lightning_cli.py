"""LightningCLI with our module and data, and the folder, callbacks and precision of every run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    RichProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from catordog.errors import CatordogError
from catordog.files import write_text
from catordog.model.networks import find_in_working_folder
from catordog.terminal import info
from catordog.training.callbacks import EpochLines, LastCheckpoint, LongValidationInterval
from catordog.training.config import (
    config_argument,
    settings_of,
    split_options,
    with_checked_configs,
)
from catordog.training.datamodule import PhotosDataModule
from catordog.training.find import Setting
from catordog.training.module import ClassifierModule
from catordog.training.precision import described, fastest_precision
from catordog.training.processes import rank, set_devices, world_size
from catordog.training.resume import ResumePoint, base_config, check_fits, find_checkpoint
from catordog.training.run_options import RUN_OPTIONS
from catordog.training.runs import AtomicCheckpointIO, RunFolder, shown_path
from catordog.training.setting_errors import explain, unusable
from catordog.training.tensorboard import TensorBoardFigures
from catordog.training.trainer_options import check_batch, check_trainer

_RUN_TYPES: dict[str, Any] = {
    "name": str | None,
    "ckpt_path": str | None,
    "save_every": float,
    "find": Setting | None,
    "folds": int | None,
    "compile": bool | None,
}
"""Of `RUN_OPTIONS`."""

_TYPES = {
    "trainer": Trainer,
    "model": ClassifierModule,
    "data": PhotosDataModule,
    "seed_everything": bool | int,
    **_RUN_TYPES,
}
"""Of all settings, for error messages."""

_PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}

_DESCRIPTION = """\
Every option of catordog train: those of a run, of Lightning's Trainer (--trainer.*), of the network
and its optimiser (--model.*) and of the photos (--data.*). All of them can stand in a config file;
--print_config prints one. --data D is short for --data.source D."""


class BestCheckpoint(ModelCheckpoint):
    """Our ModelCheckpoint where the user has one as well: Lightning tells them apart by class."""


class SaveConfig(SaveConfigCallback):
    """Saves the settings as `config.yaml` in the run's folder, whatever the logger is."""

    def __init__(self, *args: Any, folder: Path | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folder = folder

    def save_config(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Save them; Lightning calls this on the first rank."""
        del trainer, pl_module, stage
        if self.folder:
            # Atomically: a run that is killed meanwhile could not be resumed without it.
            write_text(self.folder / "config.yaml", self.parser.dump(self.config, skip_none=False))


class TrainCLI(LightningCLI):
    """Builds the trainer, the module and the data of a run from its configs and options.

    Args:
        configs: config files; later ones override earlier ones.
        options: options of LightningCLI as words, such as `--model.lr=0.1`; they override configs.

    Raises:
        CatordogError: a setting, the data or the checkpoint is unusable.
    """

    run_folder: RunFolder | None = None
    """The locked folder of this run; None where it writes none, as on all ranks but the first."""

    hardware: str | None = None
    """What was chosen for the hardware, in words; None: the user has chosen."""

    def __init__(self, configs: Sequence[Path], options: Sequence[str]) -> None:
        find_in_working_folder()
        self.config_files, self.options = [*configs], [*options]
        words = [f"--config={config_argument(path)}" for path in configs]
        words += with_checked_configs(options)
        self.found = ResumePoint()
        given = given_settings(configs, options)
        _check_seed(given.get("seed_everything"))
        ckpt_path = given.get("ckpt_path")
        if ckpt_path and not {"--help", "-h"} & {*options}:
            self.found = find_checkpoint(str(ckpt_path), runs_folder(given, configs))
        if self.found.checkpoint:
            base = base_config(self.found, given, has_config=bool(configs))
            words.insert(0, f"--config={json.dumps(base)}")
        super().__init__(
            ClassifierModule,
            PhotosDataModule,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            trainer_defaults={
                "max_epochs": 20,
                "log_every_n_steps": 10,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "deterministic": "warn",
                "use_distributed_sampler": False,  # RankSampler drops and repeats no photo
                "default_root_dir": "runs",
            },
            parser_kwargs={
                "exit_on_error": False,
                "prog": "catordog train",
                "usage": "catordog train [--config FILE] [--data D] [OPTION VALUE …]",
                "description": _DESCRIPTION,
            },
            auto_configure_optimizers=False,
            args=words,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run, and pass on what one part learns from the other."""
        for name, option in RUN_OPTIONS.items():
            kind = _RUN_TYPES[name]
            parser.add_argument(f"--{name}", type=kind, default=option.default, help=option.help)
        for action in parser._actions:  # argparse has no public way to find an option
            if action.dest == "data":
                action.help, action.metavar = "the dataset: short for --data.source", "D"
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        parser.link_arguments("data.size", "model.size")
        parser.link_arguments("folds", "data.folds")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; an error is one line."""
        try:
            self.config: Namespace = parser.parse_args(args)
        except ArgumentError as error:
            line = explain(error, _TYPES, self.config_files, self.options)
            raise CatordogError(line) from None

    def before_instantiate_classes(self) -> None:
        """Choose what the config leaves open: folders, devices, callbacks, and the precision."""
        config, trainer = self.config, self.config.trainer
        config.name = config.name or _default_name(self.config_files)
        trainer.default_root_dir = str(trainer.default_root_dir or "runs")
        found = self.found
        config.ckpt_path = found.checkpoint and str(found.checkpoint)
        if found.checkpoint:
            if trainer.max_epochs is not None and 0 <= trainer.max_epochs < found.epoch:
                raise CatordogError(
                    f"{shown_path(found.checkpoint)} is already trained past --trainer.max_epochs "
                    f"{trainer.max_epochs}: give a higher one"
                )
            check_fits(found, vars(config.model))
            info(f"resuming from {shown_path(found.checkpoint)}")
        check_trainer(trainer, config.data.batch_size)
        gpu = torch.cuda.is_available() and trainer.accelerator != "cpu"
        set_devices(trainer, gpu=gpu)
        transfer = config.model.transfer
        if (
            trainer.strategy == "auto"
            and world_size() > 1
            and transfer
            and (transfer.head_epochs or transfer.frozen)
        ):
            trainer.strategy = "ddp_find_unused_parameters_true"  # frozen layers have no gradient
        if config.compile is None:
            config.compile = gpu
        if trainer.precision is None:
            trainer.precision = fastest_precision(gpu=gpu)
            self.hardware = described(trainer.precision, gpu=gpu, compiled=config.compile)

    @property
    def runs(self) -> Path:
        """The folder of all runs of this name."""
        return Path(self.config.trainer.default_root_dir) / str(self.config.name)

    def instantiate_classes(self) -> None:
        """Build everything; an error of a constructor is one line."""
        try:
            super().instantiate_classes()
        except (CatordogError, OSError):
            raise
        except (ImportError, MisconfigurationException, TypeError, ValueError) as error:
            self.release()
            raise unusable(error) from error
        if self.hardware:
            info(self.hardware)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Build the trainer, and create the run's folder.

        Data and network exist by now, so that a mistyped command leaves no folder behind.
        """
        trainer, data = self.config.trainer, self.datamodule
        check_batch(self.model.network, data.start_size, data.batch_size, trainer.devices)
        # Other ranks learn the folder from rank 0.
        if self.config.find is None and rank() == 0 and not trainer.fast_dev_run:
            found = self.found.run
            resumes = found and found.resolve().parent == self.runs.resolve()
            self.run_folder = RunFolder(found) if found and resumes else RunFolder.new(self.runs)
            self.save_config_kwargs["folder"] = self.run_folder.path
            kwargs["default_root_dir"] = str(self.run_folder.path)
        if trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(
                trainer.default_root_dir,
                self.config.name,
                self.run_folder.name if self.run_folder else None,
                default_hp_metric=False,
            )
        if self.run_folder and trainer.profiler in _PROFILERS:
            # Lightning would print to its log, which is silent here.
            kwargs["profiler"] = _PROFILERS[trainer.profiler](self.run_folder.path, "profile")
        plugins = self._get(self.config_init, "trainer.plugins") or []
        plugins = [*plugins] if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        users = self._get(self.config_init, "trainer.callbacks") or []
        users = users if isinstance(users, list) else [users]
        self.trainer_defaults["callbacks"] = self._callbacks(users)
        if any(isinstance(callback, ProgressBar) for callback in users):
            pass
        elif not sys.stderr.isatty() or trainer.enable_progress_bar is False:
            kwargs["enable_progress_bar"] = False
        else:
            self.trainer_defaults["callbacks"].append(RichProgressBar(leave=False))
        return super().instantiate_trainer(**kwargs)

    def _callbacks(self, users: list[Any]) -> list[Any]:
        """The callbacks of every run.

        Args:
            users: those of the user, which come first.
        """
        folder = self.run_folder.path / "checkpoints" if self.run_folder else None
        theirs = any(isinstance(callback, ModelCheckpoint) for callback in users)
        best = (BestCheckpoint if theirs else ModelCheckpoint)(
            filename="best",
            monitor="val/loss",
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )
        # As an argument, it would become absolute, and a moved run would forget its best loss.
        best.dirpath = folder and str(folder)
        last = LastCheckpoint(self.config.save_every, folder)
        # The last one after the best, so that it holds what the best has found out.
        callbacks = [best, last, TensorBoardFigures(), EpochLines(), LongValidationInterval()]
        if self.config.trainer.logger not in (False, []):
            callbacks.append(LearningRateMonitor("step"))
        return callbacks

    def release(self) -> None:
        """Unlock the run's folder."""
        if self.run_folder:
            self.run_folder.release()


def _check_seed(seed: Any) -> None:
    if seed is not None and not (str(seed).isdecimal() and int(seed) < 2**32):
        raise CatordogError(f"seed_everything {seed}: give a whole number from 0 to {2**32 - 1}")


def given_settings(configs: Sequence[Path], options: Sequence[str]) -> dict[str, Any]:
    """What the user sets, by dotted names; values of options are text.

    Args:
        configs: config files; later ones override earlier ones.
        options: options of LightningCLI as words; they override configs.
    """
    given = {name: value for path in configs for name, value in settings_of(path)}
    given |= split_options(options)
    return {name: None if value in ("null", "None") else value for name, value in given.items()}


def runs_folder(given: Mapping[str, Any], configs: Sequence[Path]) -> Path:
    """The folder of all runs of the name that the user sets, before the settings are parsed.

    Args:
        given: what the user sets, as of `given_settings`.
        configs: config files; the last one's name is the default name.
    """
    root = given.get("trainer.default_root_dir") or "runs"
    return Path(str(root)) / str(given.get("name") or _default_name(configs))


def _default_name(configs: Sequence[Path]) -> str:
    return next((path.stem for path in reversed(configs)), "run")
