"""`catordog train`: from a config to a checkpoint, on LightningCLI."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import CheckpointIO

from catordog.errors import CatordogError
from catordog.model.checkpoint import load_checkpoint
from catordog.photos.reading import report_failures
from catordog.terminal import info, silence
from catordog.training.callbacks import (
    STOPS,
    EpochLines,
    LastCheckpoint,
    checkpoint_folder,
)
from catordog.training.config_check import check_config
from catordog.training.datamodule import PhotosDataModule
from catordog.training.find import Setting, find_setting
from catordog.training.module import ClassifierModule
from catordog.training.muon import has_bfloat16
from catordog.training.runs import LAST, AtomicCheckpointIO, RunFolder, find_checkpoint
from catordog.training.tensorboard import TensorBoardFigures, log_hyperparameters

INTERRUPTED = 130  # what shells call a program that Ctrl-C has ended
TRY_AGAIN = os.EX_TEMPFAIL if hasattr(os, "EX_TEMPFAIL") else 75
"""After SIGTERM or SIGUSR1: a scheduler should start the same command again (sysexits.h)."""

_QUIET = (
    # Our batches come from memory: workers would only copy them.
    ".*does not have many workers.*",
    ".*The `srun` command is available.*",
    ".*number of training batches.*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*Trying to infer the `batch_size`.*",
    ".*WeightAveraging callback.*",
    ".*could not find the monitored key.*",  # stopped before the first validation
    ".*You requested to overfit but enabled.*",  # our order stays the same then
    ".*your dataloader is not resumable.*",  # ours begins where the epoch was left
)


class TrainCLI(LightningCLI):
    """LightningCLI with our module and data, and what belongs to every run."""

    old_run: Path | None = None
    """The folder of a run that goes on."""
    run_folder: RunFolder | None = None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is ours, and pass on what one part learns from the other."""
        parser.add_argument(
            "--name", type=str, default=None, help="Folder of the runs, runs/NAME (default: config)"
        )
        parser.add_argument(
            "--ckpt_path",
            type=str,
            default=None,
            help="Checkpoint to go on from; 'last' is that of the newest run in runs/NAME",
        )
        parser.add_argument(
            "--save_every",
            type=float,
            default=5.0,
            help="Minutes between two checkpoints within an epoch (default: 5)",
        )
        parser.add_argument(
            "--find",
            type=Setting | None,
            default=None,
            help="Train nothing, but measure a good learning rate or the largest batch size",
        )
        parser.add_argument(
            "--compile",
            type=bool | None,
            default=None,
            help="Let torch.compile speed the network up; it takes a minute (default: on GPUs)",
        )
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        parser.link_arguments("data.size", "model.size")

    def before_instantiate_classes(self) -> None:
        """Choose what the config leaves open: folders, callbacks, and the precision."""
        config = self.config
        name = config.name or (Path(str(config.config[-1])).stem if config.config else "run")
        config.name = name
        trainer = config.trainer
        runs = Path("runs") / name
        checkpoint, self.old_run = find_checkpoint(config.ckpt_path, runs)
        config.ckpt_path = checkpoint and str(checkpoint)
        if checkpoint:
            info(f"going on from {_shown(checkpoint)}")
        gpu = torch.cuda.is_available() and trainer.accelerator != "cpu"
        _count_processes(trainer, gpu=gpu)
        if trainer.strategy == "auto" and _ranks() > 1 and _freezes(config.model.transfer):
            trainer.strategy = "ddp_find_unused_parameters_true"  # frozen layers have no gradient
        if config.compile is None:
            config.compile = gpu
        if trainer.precision is None:
            trainer.precision = _precision(gpu=gpu, compiled=config.compile)
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

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Build the Trainer, with our logger and a folder of its own where the config names none.

        The data are found by now, and the network is built: no mistyped command leaves a folder.
        """
        if self.config.trainer.logger in (None, True):
            runs = Path("runs") / self.config.name
            if self.config.find is None:
                self.run_folder = _run_folder(self.old_run, runs)
            version = self.run_folder.name if self.run_folder else None
            kwargs["logger"] = TensorBoardLogger(
                "runs", self.config.name, version, default_hp_metric=False
            )
        plugins = self._get(self.config_init, "trainer.plugins") or []
        plugins = [*plugins] if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)


def train(argv: Sequence[str], finish: Callable[[Path, Any], object] = lambda *_: None) -> int:
    """Run `catordog train`.

    Args:
        argv: the words after `train`.
        finish: takes the best checkpoint and `PhotosDataModule.validation()`, when all is trained.

    Returns:
        0; 1 if some photos could not be read; 130 after Ctrl-C; 75 after SIGTERM or SIGUSR1.

    Raises:
        CatordogError: a setting, the data or the checkpoint is unusable.
    """
    start = time.monotonic()
    _calm()
    if _rank() > 0:
        silence()  # the first process speaks for all
    cli = _parse(argv)
    try:
        return _train(cli, argv, finish, start)
    finally:
        if cli.run_folder:
            cli.run_folder.release()


def _train(
    cli: TrainCLI, argv: Sequence[str], finish: Callable[[Path, Any], object], start: float
) -> int:
    trainer, data = cli.trainer, cli.datamodule
    # Deterministic algorithms also fill all new memory, in case somebody reads it before it is
    # written. Nobody does, and it costs a sixth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if cli.config.find:
        return _find(cli, argv)
    if cli.config.compile:
        cli.model.network.compile()
    try:
        with warnings.catch_warnings():
            for message in _QUIET:
                warnings.filterwarnings("ignore", message)
            trainer.fit(cli.model, data, ckpt_path=cli.config.ckpt_path, weights_only=True)
    except MisconfigurationException as error:
        if "restored a checkpoint with current_epoch" not in str(error):
            raise
        raise CatordogError(
            f"the run of {cli.config.ckpt_path} has more epochs behind it than it may have: give "
            f"a higher --trainer.max_epochs than {trainer.max_epochs}"
        ) from None
    except (KeyboardInterrupt, SystemExit):
        if not (trainer.interrupted or _stopped(trainer)):
            raise
        return _say_how_to_resume(cli, argv)
    if _stopped(trainer) and trainer.interrupted:
        return _say_how_to_resume(cli, argv)
    _gather_failures(trainer, data)
    if not trainer.is_global_zero:
        return 1 if data.failures else 0
    folder = checkpoint_folder(trainer)
    log_hyperparameters(cli)
    best = folder / "best.ckpt"
    finish(best, data.validation())
    info(f"done in {time.monotonic() - start:.0f} s; checkpoint {_shown(best)}")
    if trainer.logger and trainer.logger.save_dir:
        info(f"TensorBoard: tensorboard --logdir {_shown(Path(trainer.logger.save_dir))}")
    if data.dataset.excluded:
        cli.model.load_state_dict(load_checkpoint(best).state)
        without, with_them = data.accuracies(cli.model.eval().cpu().final_logits)
        info(
            f"accuracy on validation photos: {without:.4f} without the excluded ones, "
            f"{with_them:.4f} with them"
        )
    report_failures(data.failures, Path(_shown(folder.parent / "unreadable.txt")))
    info("evaluate it on the held-out photos:")
    words = ["catordog", "evaluate", _shown(best), "--data", data.source, "--split", "test"]
    words += ["--exclude", data.exclude] if data.exclude else []
    print(shlex.join(words), flush=True)
    return 1 if data.failures else 0


def _gather_failures(trainer: Any, data: PhotosDataModule) -> None:
    """Tell every process what the others could not read."""
    if trainer.world_size > 1:
        all_failures: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(all_failures, data.failures)
        by_path = {failure.path: failure for each in all_failures for failure in each}
        data.failures = list(by_path.values())


def _find(cli: TrainCLI, argv: Sequence[str]) -> int:
    """Measure a setting, and print the command that trains with it."""
    folder = Path("runs") / cli.config.name
    setting = cli.config.find
    option = find_setting(setting, cli.trainer, cli.model, cli.datamodule, folder)
    words = _without_option(argv, "--find")
    print(f"{shlex.join(['catordog', 'train', *words])} {option}", flush=True)
    return 0


def _without_option(argv: Sequence[str], option: str) -> list[str]:
    """The words without an option and its value."""
    words = list(argv)
    while option in words:
        place = words.index(option)
        del words[place : place + 2]
    return [word for word in words if not word.startswith(f"{option}=")]


def _parse(argv: Sequence[str]) -> TrainCLI:
    words = [_long(word) for word in argv]
    words = _find_configs(words)
    for config in _configs(words):
        check_config(Path(config))
    # LightningCLI warns if a program has arguments of its own; ours are these.
    kept, sys.argv = sys.argv, sys.argv[:1]
    try:
        return TrainCLI(
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
                "use_distributed_sampler": False,  # ours does it, and drops or doubles no photo
                "default_root_dir": "runs",
            },
            parser_kwargs={"exit_on_error": False, "prog": "catordog train"},
            auto_configure_optimizers=False,
            args=words,
            run=False,
        )
    except ArgumentError as error:
        where = ", ".join(_configs(words)) if "parsing config" in str(error) else ""
        raise CatordogError(_one_line(f"{where}: {error}" if where else str(error))) from None
    finally:
        sys.argv = kept


_SHORT = {
    "--data": "--data.source",  # LightningCLI would take a bare --data for a config file
    "--exclude": "--data.exclude",
    "--max-megapixels": "--data.max_megapixels",
}


def _long(word: str) -> str:
    """What a short option that all commands share is called in LightningCLI."""
    if word == "--allow-truncated":
        return "--data.allow_truncated=true"
    flag, equals, value = word.partition("=")
    return _SHORT.get(flag, flag) + equals + value


def _find_configs(words: list[str]) -> list[str]:
    """Find `--config drawn.yaml` also among the configs that come with the package."""
    found = list(words)
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag not in {"--config", "-c"}:
            continue
        if equals:
            found[place] = f"{flag}={_config(value)}"
        elif place + 1 < len(words):
            found[place + 1] = _config(words[place + 1])
    return found


def _configs(words: list[str]) -> list[str]:
    """Every config among the words: a whole one, or one for a group of options."""
    flags = {"--config", "-c", "--model", "--trainer"}
    pairs = [*pairwise(words), *(word.split("=", 1) for word in words if "=" in word)]
    return [
        word
        for flag, word in pairs
        if flag in flags and (flag in {"--config", "-c"} or Path(word).is_file())
    ]


def _config(name: str) -> str:
    if Path(name).exists():
        return name
    here = Path(__file__).resolve().parents[1]
    folders = [here / "configs", here.parents[1] / "configs"]  # a wheel's, and a checkout's
    for folder in folders:
        if (folder / Path(name).name).is_file():
            return str(folder / Path(name).name)
    names = sorted({path.name for folder in folders for path in folder.glob("*.yaml")})
    raise CatordogError(f"--config {name}: no such file; catordog has {', '.join(names)}")


def _run_folder(run: Path | None, runs: Path) -> RunFolder | None:
    """The folder that this run writes to, and no other meanwhile; None in all but one process."""
    if _rank() > 0:
        return None  # they learn from the first one where things are written
    return RunFolder(run) if run else RunFolder.new(runs)


def _count_processes(trainer: Any, *, gpu: bool) -> None:
    """Tell Lightning how many processes torchrun or SLURM has started, where the user doesn't."""
    here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or ""
    if not here.isdigit() or _ranks() == 1:
        return
    if trainer.devices in (None, "auto") and not gpu:
        trainer.devices = int(here)
    if trainer.num_nodes == 1:
        trainer.num_nodes = max(1, _ranks() // int(here))


def _freezes(transfer: Any) -> bool:
    return bool(transfer and (transfer.head_epochs or transfer.frozen))


def _ranks() -> int:
    """How many processes torchrun or SLURM has started for this training."""
    return int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or 1)


def _rank() -> int:
    """Which of the processes of this training is this one: 0 is the first, or the only one."""
    return int(
        os.environ.get("RANK")
        or os.environ.get("SLURM_PROCID")
        or os.environ.get("LOCAL_RANK")
        or 0
    )


def _precision(*, gpu: bool, compiled: bool) -> str:
    """The fastest precision that this machine has in hardware, said in one line."""
    if gpu:
        fast, where = has_bfloat16(torch.device("cuda")), torch.cuda.get_device_name()
    else:
        fast, where = (
            has_bfloat16(torch.device("cpu")),
            f"CPU, {torch.get_num_threads()} threads",
        )
    words = "bfloat16, which it has in hardware" if fast else "float32"
    info(f"{where}: {words}, channels last{', compiled' if compiled else ''}")
    return "bf16-mixed" if fast else "32-true"


def _calm() -> None:
    """Keep Lightning's notes about itself off the screen; warnings and errors stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for message in _QUIET:
        warnings.filterwarnings("ignore", message)


def _stopped(trainer: Any) -> int:
    """The signal that has ended this run; 0 if none has."""
    asked = (each.asked for each in trainer.callbacks if isinstance(each, LastCheckpoint))
    return next(asked, 0)


def _say_how_to_resume(cli: TrainCLI, argv: Sequence[str]) -> int:
    code = TRY_AGAIN if _stopped(cli.trainer) in STOPS[1:] else INTERRUPTED
    if not cli.trainer.is_global_zero:
        return code
    last = checkpoint_folder(cli.trainer) / LAST
    words = _without_option(argv, "--ckpt_path")
    if last.is_file():
        info(f"stopped; checkpoint {_shown(last)}; go on with:")
    else:
        info("stopped before the first checkpoint; begin again with:")
    print(shlex.join(["catordog", "train", *words, "--ckpt_path", "last"]), flush=True)
    return code


def _shown(path: Path) -> str:
    """A path as short as it is still true from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _one_line(text: str) -> str:
    """What jsonargparse says of a wrong value, without its types: `--find speed: not one of …`."""
    line = " ".join(line.strip() for line in text.splitlines() if line.strip())
    said = _WRONG_VALUE.fullmatch(line)
    if said is None:
        return line
    kinds = re.findall(r"Expected an? (.+?)(?= - |\. |$| Errors:)", said["why"])
    wanted = list(dict.fromkeys(_kind(kind) for kind in kinds))
    if None in wanted:
        return line
    names = " or ".join(name for name in wanted if name)
    return f"{said['where']}--{said['key']} {said['value']}: expected {names}"


_WRONG_VALUE = re.compile(
    r"(?P<where>.*?)Parser key \"(?P<key>[^\"]+)\": (?P<why>.*Expected an? .+?)"
    r"(?:\. Got| Given value type: .+? Given) value: (?P<value>.+)"
)

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "NoneType": "",  # goes without saying
}


def _kind(said: str) -> str | None:
    """A type in the words of people, `a whole number`; None for what only programmers know."""
    if said.startswith("typing.Literal["):
        return " or ".join(re.findall(r"'([^']*)'", said))
    return _KINDS.get(said.removeprefix("<class '").removesuffix("'>"))
