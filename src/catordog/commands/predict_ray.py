"""`catordog predict --backend ray`: predictions of millions of photos, on many machines.

Ray Data hands photos to as many workers as the cluster has processors, and starts anew what a lost
worker had; rows come back in order and go into one Parquet file.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from catordog.errors import CatordogError, missing_package
from catordog.files import atomic_path
from catordog.model.classifier import load
from catordog.model.predict import VerdictRules, predictions
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.inputs import Inputs, PhotosByLocation
from catordog.report.rows import heads, values
from catordog.terminal import info, progress

_BATCH = 256
"""Photos to a worker at a time: what has to be done again when one is lost."""


def predict(
    paths: Sequence[str],
    model: str | None,
    out: str,
    rules: VerdictRules,
    decode_rules: DecodeRules = DEFAULT_RULES,
) -> int:
    """Predict on a Ray cluster: the one that RAY_ADDRESS names, or one on this machine.

    Args:
        paths: see `predict.Inputs`; every machine of the cluster has to see them under these paths.
        model: see `load`; likewise.
        out: a Parquet file, with the columns of `--format csv`.
        rules: see `VerdictRules`.
        decode_rules: see `DecodeRules`.

    Returns:
        1 if a photo could not be read, else 0.

    Raises:
        CatordogError: a path, the model or a value is wrong, or Ray is not installed.
    """
    target = Path(out)
    if target.suffix != ".parquet":
        raise CatordogError(f"--backend ray writes Parquet: --out {out} has to end in .parquet")
    inputs = Inputs(paths)
    total = inputs.count()
    model = model if model in (None, "bundled") else str(Path(str(model)).absolute())
    classifier = load(model)
    if rules.error_rate is not None:
        classifier.quantile_for(rules.error_rate)
    columns = heads(classifier.classes)
    tally: Counter[str] = Counter()
    with _cluster() as (ray, processors), _parquet(target, columns) as write:
        info(f"{total:,} photos, {processors} workers")
        found = ray.data.from_arrow(list(_tables(inputs))).map_batches(
            Worker,
            fn_constructor_args=(model, rules, decode_rules),
            batch_size=_BATCH,
            num_cpus=1,
            concurrency=(1, processors),
        )
        with progress("predicting", total) as done:
            for batch in found.iter_batches(batch_size=4096, batch_format="pyarrow"):
                write(batch)
                tally.update(batch.column("verdict").to_pylist())
                done(tally.total())
    unread = tally.pop("", 0)
    words = ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(tally.items()))
    info(f"{total:,} photos: {words}" + (f", {unread:,} unreadable" if unread else ""))
    return 1 if unread else 0


class Worker:
    """What a process of the cluster does: it keeps a model, and predicts one batch after another.

    Args:
        model: see `load`.
        rules: see `VerdictRules`.
        decode_rules: see `DecodeRules`.
    """

    def __init__(
        self, model: str | None, rules: VerdictRules, decode_rules: DecodeRules = DEFAULT_RULES
    ) -> None:
        os.environ["CATORDOG_THREADS"] = "1"  # there is a worker for every processor
        self._classifier = load(model)
        self._rules = rules
        self._photos = PhotosByLocation(decode_rules)

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> Any:
        """From photos to a table of rows, in their order."""
        import pyarrow

        photos = map(self._photos.photo, batch["root"].tolist(), batch["name"].tolist())
        results = predictions(self._classifier, photos, self._rules)
        found: dict[str, list[Any]] = {name: [] for name in heads(self._classifier.classes)}
        for path, (_, result) in zip(batch["path"].tolist(), results, strict=True):
            row = values(path, result, len(self._classifier.classes))
            for column, value in zip(found.values(), row, strict=True):
                column.append(value)
        return pyarrow.table(found, _schema(list(found)))


_TEXT = frozenset({"path", "label", "verdict", "error"})


def _schema(columns: Sequence[str]) -> Any:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    return pyarrow.schema([(name, text if name in _TEXT else number) for name in columns])


def _tables(inputs: Inputs, rows: int = 4096) -> Iterator[Any]:
    """Where photos lie, a few thousand at a time: path, and a file, or a store and a name in it."""
    import pyarrow

    columns: dict[str, list[str]] = {"path": [], "root": [], "name": []}
    for root, name, path in inputs.locations():
        place = (path, str(Path(root).absolute()), name)  # workers run elsewhere
        for column, value in zip(columns.values(), place, strict=True):
            column.append(value)
        if len(columns["path"]) == rows:
            yield pyarrow.table(columns)
            columns = {column: [] for column in columns}
    if columns["path"]:
        yield pyarrow.table(columns)


@contextmanager
def _cluster() -> Iterator[tuple[Any, int]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_package(error, "scale") from None
    begun = not ray.is_initialized()
    if begun:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        there = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield ray, max(1, int(there.get("CPU", 1)))
    finally:
        if begun:
            ray.shutdown()


@contextmanager
def _parquet(target: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Write a Parquet file that is there when it is whole."""
    import pyarrow
    import pyarrow.parquet

    schema = _schema(columns)
    with atomic_path(target) as made, pyarrow.parquet.ParquetWriter(str(made), schema) as writer:
        yield lambda table: writer.write_table(table.select(columns))
