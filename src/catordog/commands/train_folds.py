"""`catordog train --folds`: train a network without each fold, and average them in one model file.

A run with folds is a folder like that of any run, `runs/NAME/version_N`. In it are `fold_1/`,
`fold_2/`, …, each with the run of one network, `out-of-fold.csv`, and `checkpoints/best.ckpt`, the
average. A fold is finished when its logits are written; a run that resumes skips it.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.commands.train_result import TrainResult, calibrated, without_option
from catordog.confidence.wilson import wilson
from catordog.errors import CatordogError, PhotoError
from catordog.evaluation.evaluate import Evaluation
from catordog.files import write_bytes, write_text
from catordog.model.backends import BATCH
from catordog.model.calibrate import Calibration, calibrate_on_logits
from catordog.model.checkpoint import average_checkpoints
from catordog.model.classifier import load
from catordog.photos.photo import Photo
from catordog.photos.photo_dataset import PhotoDataset
from catordog.photos.reading import decoded, report_failures
from catordog.photos.splits import SplitFractions
from catordog.report.evaluation_csv import evaluation_csv
from catordog.terminal import info
from catordog.training.datamodule import PhotosDataModule
from catordog.training.fit import fit
from catordog.training.lightning_cli import TrainCLI, runs_folder
from catordog.training.processes import world_size
from catordog.training.runs import FOLDS_COMMAND, LAST, RunFolder, newest_run, shown_path
from catordog.training.small_data import advice_on_few_photos

MOST_FOR_OOD = 1000
"""Photos that the ood detector is fitted on; more would take longer and hardly help."""

_LOGITS = "logits.npz"


@dataclass(frozen=True, slots=True)
class FoldLogits:
    """What a network gives for the photos that it has not seen.

    Attributes:
        names: of N photos, unreadable ones left out.
        labels: `[N]`.
        logits: raw, `float32 [N, C]`.
    """

    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write them atomically."""
        packed = io.BytesIO()
        np.savez(packed, names=np.array(self.names), labels=self.labels, logits=self.logits)
        write_bytes(path, packed.getvalue())

    @classmethod
    def read(cls, path: Path) -> FoldLogits:
        """Read what `save` wrote.

        Raises:
            CatordogError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as parts:
                names = tuple(parts["names"].tolist())
                return cls(names, parts["labels"], parts["logits"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise CatordogError(
                f"{shown_path(path)} is damaged ({error}): remove it, and its fold is trained again"
            ) from None


def train_folds(
    configs: Sequence[Path], options: Sequence[str], given: Mapping[str, Any], start: float
) -> TrainResult:
    """Train a network for each fold, then average and calibrate them.

    Args:
        configs: config files.
        options: options of LightningCLI as words.
        given: the settings in both, by dotted names.
        start: when the command was started, on the monotonic clock.

    Raises:
        CatordogError: a setting, the data or the run to resume is unusable.
    """
    count = _count(given)
    options = without_option(options, "--ckpt_path")
    resumed = _to_resume(runs_folder(given, configs), given, count)
    if resumed:
        configs, options = _as_started(resumed, configs, options, given)
    parent = RunFolder(resumed) if resumed else RunFolder.new(runs_folder(given, configs))
    try:
        return _train_all(parent.path, configs, options, count, bool(resumed), start)
    finally:
        parent.release()


def _count(given: Mapping[str, Any]) -> int:
    value = str(given["folds"])
    if not value.isdecimal() or not 2 <= int(value) <= 100:
        raise CatordogError(f"--folds {value}: give a number of folds, 2 to 100, such as 5")
    if world_size() > 1 or str(given.get("trainer.devices") or 1) not in {"1", "auto"}:
        raise CatordogError("--folds trains in one process: give --trainer.devices 1")
    return int(value)


def _to_resume(runs: Path, given: Mapping[str, Any], count: int) -> Path | None:
    """The run with folds that resumes; None: start a new one."""
    ckpt_path = given.get("ckpt_path")
    if ckpt_path is None:
        return None
    if ckpt_path != "last":
        raise CatordogError(f"--ckpt_path {ckpt_path}: with --folds, give 'last'")
    newest = newest_run(runs)
    if newest is None:
        info(f"--ckpt_path last: no run in {runs} yet; starting from the beginning")
        return None
    if not (newest / FOLDS_COMMAND).is_file():
        raise CatordogError(
            f"--ckpt_path last: the newest run, {shown_path(newest)}, was started without --folds: "
            "leave that out, or start a new run"
        )
    started = int(_command(newest)["folds"])
    if started != count:
        raise CatordogError(
            f"--folds {count}: {shown_path(newest)} was started with {started}: give that, or "
            "start a new run without --ckpt_path"
        )
    return newest


def _command(run: Path) -> dict[str, Any]:
    try:
        command = json.loads((run / FOLDS_COMMAND).read_text("utf-8"))
        return {name: command[name] for name in ("folds", "configs", "options")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CatordogError(
            f"{shown_path(run / FOLDS_COMMAND)} can't be read ({error}): start a new run without "
            "--ckpt_path"
        ) from None


def _as_started(
    run: Path, configs: Sequence[Path], options: Sequence[str], given: Mapping[str, Any]
) -> tuple[Sequence[Path], Sequence[str]]:
    """The settings of a run: those that it was started with, unless the user gives others."""
    command = _command(run)
    if configs or given.keys() & {"data", "data.source"}:
        return configs, options
    return [Path(path) for path in command["configs"]], [*command["options"], *options]


def _train_all(
    run: Path,
    configs: Sequence[Path],
    options: Sequence[str],
    count: int,
    resumes: bool,
    start: float,
) -> TrainResult:
    folds = [run / f"fold_{number}" for number in range(1, count + 1)]
    failures: dict[str, PhotoError] = {}
    for number, folder in enumerate(folds, 1):
        finished = (folder / _LOGITS).is_file()
        if finished and number < count:  # the last one also opens the dataset
            info(f"fold {number} of {count}: finished before")
            continue
        info(f"fold {number} of {count}")
        own = [
            f"--trainer.default_root_dir={run}",
            f"--name={folder.name}",
            f"--data.fold={number}",
            "--trainer.devices=1",
            f"--ckpt_path={'last' if resumes and folder.is_dir() else 'null'}",
        ]
        cli = TrainCLI(configs, [*options, *own])
        try:
            data: PhotosDataModule = cli.datamodule
            if number == 1:
                _write_command(run, configs, options, count)
                if advice := advice_on_few_photos(cli.model, data):
                    info(advice)
            _check_photos(data.dataset, folds[: number - 1])
            if not finished:
                fitted = fit(cli)
                if not (fitted.finished and fitted.checkpoint):
                    return TrainResult(
                        fitted.exit_code, fitted.checkpoint, finished=False, folds=count
                    )
                failures |= {failure.path: failure for failure in fitted.failures}
                _predict(fitted.checkpoint.with_name(LAST), data).save(folder / _LOGITS)
        finally:
            cli.release()
    return _average(run, folds, data, tuple(failures.values()), start)


def _write_command(run: Path, configs: Sequence[Path], options: Sequence[str], count: int) -> None:
    command = {
        "folds": count,
        "configs": [str(path.resolve()) for path in configs],
        "options": [*options],
    }
    write_text(run / FOLDS_COMMAND, json.dumps(command, indent=1) + "\n")


def _check_photos(dataset: PhotoDataset, finished: Sequence[Path]) -> None:
    """Refuse to mix folds of different photos.

    Raises:
        CatordogError: photos of a finished fold are now in another one, or gone.
    """
    own = dict(zip(dataset.photos.names, dataset.photos.own_splits, strict=True))
    for folder in finished:
        for name in FoldLogits.read(folder / _LOGITS).names:
            if own.get(name) != "train":
                raise CatordogError(
                    f"{dataset.name}: the photos have changed since this run was started, such as "
                    f"{name!r}: start a new run without --ckpt_path"
                )


def _predict(checkpoint: Path, data: PhotosDataModule) -> FoldLogits:
    """Raw logits of the photos that a network has not seen.

    They come from its last weights: the best ones were chosen on these photos, whose accuracy would
    be too high.
    """
    classifier = load(checkpoint)
    photos = data.dataset.split("val", data.split_fractions)
    names: list[str] = []
    labels: list[int] = []
    pixels: list[npt.NDArray[np.uint8]] = []
    logits: list[npt.NDArray[np.float32]] = []
    for photo, result in zip(photos, decoded(photos, classifier.model.preprocess), strict=True):
        if isinstance(result, PhotoError) or photo.label is None:
            continue  # training has reported it
        names.append(photo.name)
        labels.append(photo.label)
        pixels.append(result)
        if len(pixels) == BATCH:
            logits += classifier.run(np.stack(pixels), "logits")
            pixels = []
    if pixels:
        logits += classifier.run(np.stack(pixels), "logits")
    return FoldLogits(tuple(names), np.array(labels, np.int64), np.concatenate(logits))


def _average(
    run: Path,
    folds: Sequence[Path],
    data: PhotosDataModule,
    failures: tuple[PhotoError, ...],
    start: float,
) -> TrainResult:
    """Write the averaged model, calibrate it on the folds' logits, and report its accuracy."""
    found = [FoldLogits.read(folder / _LOGITS) for folder in folds]
    best = run / "checkpoints" / "best.ckpt"
    runs = [newest_run(folder) or folder for folder in folds]
    average_checkpoints([each / "checkpoints" / LAST for each in runs], best)
    labels = np.concatenate([each.labels for each in found])
    logits = np.concatenate([each.logits for each in found])
    photo_of = {photo.name: photo for photo in data.dataset.photos}
    photos = [photo_of[name] for each in found for name in each.names]
    some = np.linspace(0, len(photos) - 1, min(MOST_FOR_OOD, len(photos))).astype(int)
    calibration = calibrate_on_logits(best, logits, labels, [photos[index] for index in some])
    _write_csv(run / "out-of-fold.csv", calibration, photos, data.source, best)
    _report(calibration, found)
    info(f"done in {time.monotonic() - start:.0f} s; checkpoint {shown_path(best)}")
    report_failures(failures, Path(shown_path(run / "unreadable.txt")))
    has_test = "test" in data.dataset.splits(SplitFractions(0, 0))
    return calibrated(
        best,
        calibration,
        data,
        exit_code=1 if failures else 0,
        unreadable=failures,
        held_out="test" if has_test else None,
        folds=len(folds),
    )


def _write_csv(
    path: Path, calibration: Calibration, photos: list[Photo], source: str, best: Path
) -> None:
    model = calibration.model
    result = Evaluation(
        classes=model.classes,
        labels=calibration.labels,
        logits=calibration.logits,
        temperature=model.temperature,
        model=str(best),
        data=source,
        split="all",
        photos=photos,
        threshold=model.threshold,
        ood_score=None,
        failures=[],
    )
    write_text(path, evaluation_csv(result))
    info(f"logits of each photo by the network that has not seen it: {shown_path(path)}")


def _report(calibration: Calibration, folds: Sequence[FoldLogits]) -> None:
    right = calibration.logits.argmax(axis=1) == calibration.labels
    low, high = wilson(int(right.sum()), len(right))
    each = [(fold.logits.argmax(axis=1) == fold.labels).mean() for fold in folds]
    info(
        f"accuracy on all {len(right):,} photos, each by a network that has not seen it: "
        f"{100 * right.mean():.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}); by fold: "
        + ", ".join(f"{100 * value:.1f}" for value in each)
    )
