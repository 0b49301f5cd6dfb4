"""LightningCLI with our module and data, and the folder, callbacks and precision of every run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from lightning import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO

from catordog.errors import CatordogError
from catordog.terminal import info
from catordog.training.callbacks import EpochLines, LastCheckpoint
from catordog.training.config import config_argument, with_checked_configs
from catordog.training.datamodule import PhotosDataModule
from catordog.training.find import Setting
from catordog.training.module import ClassifierModule
from catordog.training.precision import fastest_precision
from catordog.training.processes import rank, set_devices, world_size
from catordog.training.run_options import RUN_OPTIONS
from catordog.training.runs import AtomicCheckpointIO, RunFolder, find_checkpoint, shown_path
from catordog.training.setting_errors import explain
from catordog.training.tensorboard import TensorBoardFigures

_RUN_TYPES: dict[str, Any] = {
    "name": str | None,
    "ckpt_path": str | None,
    "save_every": float,
    "find": Setting | None,
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

_DESCRIPTION = """\
Every option of catordog train: those of a run, of Lightning's Trainer (--trainer.*), of the network
and its optimiser (--model.*) and of the photos (--data.*). All of them can stand in a config file;
--print_config prints one. --data D is short for --data.source D."""


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

    def __init__(self, configs: Sequence[Path], options: Sequence[str]) -> None:
        self.config_files, self.options = [*configs], [*options]
        words = [f"--config={config_argument(path)}" for path in configs]
        super().__init__(
            ClassifierModule,
            PhotosDataModule,
            save_config_callback=SaveConfigCallback,
            save_config_kwargs={"overwrite": True},
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
            args=[*words, *with_checked_configs(options)],
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
        config.name = config.name or next(
            (path.stem for path in reversed(self.config_files)), "run"
        )
        found = find_checkpoint(config.ckpt_path, self.runs)
        self.old_run = found.run
        config.ckpt_path = found.checkpoint and str(found.checkpoint)
        if found.checkpoint:
            if trainer.max_epochs is not None and 0 <= trainer.max_epochs < found.epoch:
                raise CatordogError(
                    f"{shown_path(found.checkpoint)} is already trained past --trainer.max_epochs "
                    f"{trainer.max_epochs}: give a higher one"
                )
            info(f"resuming from {shown_path(found.checkpoint)}")
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
            trainer.precision = fastest_precision(gpu=gpu, compiled=config.compile)
        callbacks = [
            LastCheckpoint(config.save_every),
            ModelCheckpoint(
                filename="best",
                monitor="val/loss",
                enable_version_counter=False,
                auto_insert_metric_name=False,
            ),
            TensorBoardFigures(),
            EpochLines(),
        ]
        if trainer.logger is not False:
            callbacks.append(LearningRateMonitor("step"))
        if sys.stderr.isatty() and trainer.enable_progress_bar is not False:
            callbacks.append(RichProgressBar(leave=False))
        else:
            trainer.enable_progress_bar = False
        self.trainer_defaults["callbacks"] = callbacks

    @property
    def runs(self) -> Path:
        """The folder of all runs of this name."""
        return Path("runs") / str(self.config.name)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Build the trainer, and create the run's folder unless the config names a logger.

        Data and network exist by now, so that a mistyped command leaves no folder behind.
        """
        if self.config.trainer.logger in (None, True):
            if self.config.find is None and rank() == 0:  # other ranks learn the folder from rank 0
                self.run_folder = (
                    RunFolder(self.old_run) if self.old_run else RunFolder.new(self.runs)
                )
            version = self.run_folder.name if self.run_folder else None
            kwargs["logger"] = TensorBoardLogger(
                "runs", self.config.name, version, default_hp_metric=False
            )
        plugins = self._get(self.config_init, "trainer.plugins") or []
        plugins = [*plugins] if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def release(self) -> None:
        """Unlock the run's folder."""
        if self.run_folder:
            self.run_folder.release()
