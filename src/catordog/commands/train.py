"""`catordog train`: fit a network, then calibrate its best checkpoint."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catordog.commands.options import DATA_HELP, DECISIONS_HELP
from catordog.commands.train_result import TrainResult, calibrated, without_option
from catordog.training.run_options import RUN_OPTIONS

if TYPE_CHECKING:
    from catordog.model.calibrate import Calibration
    from catordog.training.fit import FitResult
    from catordog.training.lightning_cli import TrainCLI

DESCRIPTION = """\
Train a network on labelled photos, then calibrate its confidence on validation photos.
Writes runs/NAME/version_N with checkpoints/best.ckpt, the settings and a TensorBoard."""

_EPILOG = """\
Any other option of LightningCLI works as well: --trainer.*, --model.*, --data.*.
--help-all lists them all, and --print_config prints the resulting config. All of them can stand in
a config file. --data D is short for --data.source D.

examples:
  catordog train --config dogs-vs-cats.yaml --data pets
  catordog train --data pets --model.network resnet18 --model.weights DEFAULT
  catordog train --config dogs-vs-cats.yaml --data pets --find lr
  catordog train --config dogs-vs-cats.yaml --data pets --ckpt_path last
"""

Row = tuple[str, str | None, str]
"""An option: its flag, metavar (None: a flag without a value), and help."""

RUN_ROWS: dict[str, Row] = {
    "data.source": ("--data", "D", DATA_HELP),
    "data.exclude": ("--exclude", "F", "a CSV file with a column 'path': photos to leave out"),
    "data.decisions": ("--decisions", "F", DECISIONS_HELP),
    **{name: (f"--{name}", option.metavar, option.help) for name, option in RUN_OPTIONS.items()},
    "seed_everything": ("--seed_everything", "N", "seed: same seed, same weights (default: 0)"),
    "data.allow_truncated": (
        "--allow-truncated",
        None,
        "read the intact part of truncated photos",
    ),
    "data.max_megapixels": (
        "--max-megapixels",
        "N",
        "refuse larger photos before they are decoded (default: 200)",
    ),
}
"""Options of the command, by their names in LightningCLI and config files."""

_ROWS = {
    "network and optimiser": {
        "model.network": ("NAME", "residual, lite2, a torchvision network, or a class path "
                          "(default: residual)"),
        "model.weights": ("W", "pretrained weights: DEFAULT of lite2 and torchvision, or a file"),
        "model.optimizer": ("NAME", "sgd, muon or adamw (default: sgd)"),
        "model.lr": ("LR", "peak learning rate (default: 0.2)"),
        "model.weight_decay": ("W", "of weights, not of biases and norms (default: 0.0005)"),
        "model.label_smoothing": ("E", "in 0…1; lowers confidence (default: 0)"),
        "model.whiten": ("B", "compute the first layer from photos (default: false)"),
        "model.tta_flip": ("B", "test-time augmentation: average the logits of a photo and its "
                           "mirror image (default: false)"),
        "model.tta_flip_below": ("P", "flip only photos whose confidence without the flip is lower "
                                 "(default: 1)"),
        "model.transfer.head_epochs": ("N", "epochs in which only the last layer learns "
                                       "(default: 0)"),
    },
    "photos": {
        "data.size": ("S", "width and height of the network's input, in pixels (default: 64)"),
        "data.start_size": ("S", "size of training photos at first (default: the input size)"),
        "data.end_size": ("S", "size of training photos at last (default: the input size)"),
        "data.batch_size": ("N", "photos per step, over all processes (default: 128)"),
        "data.balance": ("B", "for rare classes: no, sampler or loss (default: no)"),
        "data.cache": ("B", "keep decoded photos on disk (default: true, false for shards)"),
        "data.val": ("F", "fraction of photos for validation (default: 0.1)"),
        "data.test": ("F", "fraction of photos held out for evaluation (default: 0.2)"),
    },
    "trainer": {
        "trainer.max_epochs": ("N", "epochs (default: 20)"),
        "trainer.accelerator": ("A", "cpu, gpu, … (default: auto)"),
        "trainer.devices": ("N", "GPUs or processes on this machine (default: auto)"),
        "trainer.precision": ("P", "32-true, bf16-mixed, … (default: the fastest in hardware)"),
        "trainer.overfit_batches": ("N", "check that the network can overfit N batches "
                                    "(default: 0)"),
    },
}  # fmt: skip
LIGHTNING_ROWS: dict[str, dict[str, Row]] = {
    group: {key: (f"--{key}", metavar, words) for key, (metavar, words) in rows.items()}
    for group, rows in _ROWS.items()
}
"""The most used options of LightningCLI, by group."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options, and the most used ones of LightningCLI."""
    parser.usage = "catordog train [--config FILE] [--data D] [OPTION VALUE …]"
    parser.epilog = _EPILOG
    parser.formatter_class = partial(argparse.RawDescriptionHelpFormatter, max_help_position=32)
    parser.add_argument(
        "--config",
        "-c",
        action="append",
        metavar="FILE",
        help="settings as YAML: a file, or one that comes with catordog, such as drawn.yaml; may "
        "be repeated; options override it",
    )
    for title, rows in {"": RUN_ROWS, **LIGHTNING_ROWS}.items():
        group = parser.add_argument_group(title) if title else parser
        for key, (flag, metavar, words) in rows.items():
            if metavar is None:
                group.add_argument(flag, dest=key, action="store_const", const="true", help=words)
            else:
                group.add_argument(flag, dest=key, metavar=metavar, help=words)
    parser.add_argument("--model.mirror", dest="model.tta_flip", help=argparse.SUPPRESS)
    parser.add_argument("--help-all", action="store_true", help="list every option of LightningCLI")


def run(args: argparse.Namespace) -> int:
    """Train and calibrate. Returns the exit code, as of `TrainResult`."""
    if args.help_all:
        _train([], ["--help"])  # prints and exits
    result = _train(args.config or [], [*_lightning_options(args), *args.further])
    _print_next_command(result, args.words)
    return result.exit_code


def train(
    config: str | Path | Sequence[str | Path] | None = None,
    data: str | Path | Mapping[str, Any] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a network on labelled photos, then calibrate it: `catordog train` in Python.

    Args:
        config: a config file, the name of one that comes with the package, or several.
        data: the dataset, as `--data` takes it, or all settings of the data:
            `{"source": "pets", "size": 96}`.
        options: as in a config file: `name="pets", trainer={"max_epochs": 3}, model={"lr": 0.1}`.

    Raises:
        CatordogError: a setting, the data or the checkpoint is unusable.
    """
    configs = [] if config is None else [config] if isinstance(config, (str, Path)) else config
    if data is not None:
        options["data"] = data if isinstance(data, Mapping) else {"source": data}
    return _train([str(path) for path in configs], [*_words(options)])


def _words(options: Mapping[str, Any], group: str = "") -> Iterator[str]:
    """Settings as options of the command line.

    >>> list(_words({"name": "pets", "model": {"lr": 0.1, "network_args": {"blocks": [1, 1]}}}))
    ['--name=pets', '--model.lr=0.1', '--model.network_args={"blocks": [1, 1]}']
    """
    for key, value in options.items():
        if isinstance(value, Mapping) and not group:
            yield from _words(value, f"{key}.")
        else:
            text = str(value) if isinstance(value, (str, Path)) else json.dumps(value)
            yield f"--{group}{key}={text}"


def _lightning_options(args: argparse.Namespace) -> list[str]:
    """The options that argparse has read, in LightningCLI's spelling."""
    keys = [*RUN_ROWS, *(key for rows in LIGHTNING_ROWS.values() for key in rows)]
    values = vars(args)
    return [f"--{key}={values[key]}" for key in keys if values[key] is not None]


def _ends_without_model(given: Mapping[str, Any]) -> bool:
    """Whether the settings only print something or try something out: `--folds` has no effect."""
    tried = (given.get(name) for name in ("find", "trainer.fast_dev_run"))
    off = {"none", "", "false", "no", "off", "0"}
    return bool({"help", "print_config"} & given.keys()) or any(
        str(value).lower() not in off for value in tried
    )


def _train(configs: Sequence[str], options: Sequence[str]) -> TrainResult:
    """Fit, then calibrate: the one place where training, calibration and evaluation meet."""
    if not sys.stderr.isatty():
        # Progress bars of other packages come from tqdm, which reads this when it is imported.
        os.environ.setdefault("TQDM_DISABLE", "1")
    start = time.monotonic()
    from catordog.terminal import info
    from catordog.training.config import find_config
    from catordog.training.find import find_setting
    from catordog.training.fit import fit, prepare_process
    from catordog.training.lightning_cli import TrainCLI, given_settings
    from catordog.training.small_data import advice_on_few_photos

    prepare_process()
    files = [find_config(name) for name in configs]
    given = given_settings(files, options)
    if given.get("folds") and not _ends_without_model(given):
        from catordog.commands.train_folds import train_folds

        return train_folds(files, options, given, start)
    cli = TrainCLI(files, options)
    try:
        if cli.config.find:
            found = find_setting(cli.config.find, cli.trainer, cli.model, cli.datamodule, cli.runs)
            failures = tuple(cli.datamodule.failures)
            return TrainResult(1 if failures else 0, found=found, unreadable=failures)
        if not (cli.found.checkpoint or cli.config.trainer.overfit_batches) and (
            advice := advice_on_few_photos(cli.model, cli.datamodule)
        ):
            info(advice)
        fitted = fit(cli)
        if not (fitted.finished and fitted.checkpoint and cli.trainer.is_global_zero):
            return TrainResult(
                fitted.exit_code,
                fitted.checkpoint,
                unreadable=fitted.failures,
                finished=fitted.finished,
            )
        return _finish(cli, fitted, fitted.checkpoint, start)
    finally:
        cli.release()


def _finish(cli: TrainCLI, fitted: FitResult, best: Path, start: float) -> TrainResult:
    """Calibrate the best checkpoint, and report how good it is."""
    from lightning.pytorch.loggers import TensorBoardLogger

    from catordog.model.calibrate import calibrate_on
    from catordog.photos.reading import report_failures
    from catordog.terminal import info
    from catordog.training.runs import shown_path

    trainer, data = cli.trainer, cli.datamodule
    folder = best.parent.parent
    calibration = calibrate_on(best, data.validation())
    _log_validation_figures(folder, calibration)
    info(f"done in {time.monotonic() - start:.0f} s; checkpoint {shown_path(best)}")
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            info(f"TensorBoard: tensorboard --logdir {shown_path(Path(logger.save_dir))}")
    for profile in folder.glob("*profile*"):
        info(f"profile: {shown_path(profile)}")
    if data.dataset.excluded or data.dataset.relabelled:
        _report_decisions(best, data)
    report_failures(fitted.failures, Path(shown_path(folder / "unreadable.txt")))
    return calibrated(
        best,
        calibration,
        data,
        exit_code=fitted.exit_code,
        unreadable=fitted.failures,
        held_out="test" if data.has_test_photos else "val",
    )


def _log_validation_figures(folder: Path, calibration: Calibration) -> None:
    """Add reliability and other figures of the validation photos to the run's TensorBoard."""
    from catordog.training.tensorboard import has_tensorboard, log_figures

    if has_tensorboard(folder):
        from catordog.evaluation.predictions import Predictions
        from catordog.report.figures import figures_of

        model = calibration.model
        predictions = Predictions(
            model.classes, calibration.labels, calibration.logits, model.temperature
        )
        log_figures(folder, "validation", figures_of(predictions))


def _report_decisions(best: Path, data: Any) -> None:
    """Accuracy on validation photos with and without what the user has decided about them."""
    from catordog.escaping import printable
    from catordog.evaluation.evaluate import evaluate
    from catordog.model.classifier import load
    from catordog.terminal import info

    found = evaluate(
        load(best),
        data.source,
        "val",
        exclude=data.exclude,
        decisions=data.decisions,
        rules=data.rules,
        name=str(best),
    )
    accuracy, with_excluded = found.metrics.accuracy, found.accuracy_with_excluded
    if data.dataset.excluded:
        info(
            f"accuracy on validation photos: {accuracy:.4f} without the excluded ones, "
            f"{accuracy if with_excluded is None else with_excluded:.4f} with them"
        )
    if data.dataset.relabelled:
        before = found.accuracy_as_labelled
        before = with_excluded if before is None else before
        info(
            f"accuracy on validation photos: {accuracy:.4f} with the decisions, "
            f"{accuracy if before is None else before:.4f} with the photos and labels of "
            f"{printable(data.source)}"
        )


def _print_next_command(result: TrainResult, words: Sequence[str]) -> None:
    """Print the command to run next: evaluate, resume, or train with what was found."""
    from catordog.terminal import info
    from catordog.training.processes import rank
    from catordog.training.runs import shown_path

    if rank() > 0:
        return
    command = ["train", *words]
    if result.found:
        command = ["train", *without_option(words, "--find"), *result.found.split()]
    elif result.model and result.checkpoint:
        name = result.checkpoint.parents[2].name
        if result.held_out == "test":
            info("evaluate it on the held-out photos:")
        elif result.held_out is None:
            info("no photo is held out from all networks; write the average as one ONNX file:")
        else:
            info(
                "the test split lacks photos; evaluate it on validation photos, which have chosen "
                "and calibrated it, so that results are optimistic:"
            )
        command = ["evaluate", shown_path(result.checkpoint), "--data", result.data]
        command += ["--split", str(result.held_out)]
        command += ["--exclude", result.exclude] if result.exclude else []
        command += ["--decisions", result.decisions] if result.decisions else []
        command += result.decoding
        if result.held_out is None:
            command = ["export", shown_path(result.checkpoint), "--out", f"{name}.onnx"]
    elif result.finished:
        info("tried out, nothing was saved; train with:")
        option = "--trainer.fast_dev_run"
        command = ["train", *without_option(words, option), option, "false"]
    elif result.checkpoint:
        last = shown_path(result.checkpoint)
        info(f"stopped; checkpoint {last}; resume with:")
        command = ["train", *without_option(words, "--ckpt_path"), "--ckpt_path"]
        command.append("last" if result.folds else last)
    else:
        info("stopped before the first checkpoint; start again with:")
    print(shlex.join(["catordog", *command]), flush=True)
