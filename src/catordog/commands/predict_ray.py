"""`catordog predict --backend ray`: classify millions of photos on many machines.

Ray Data streams the photos to one worker per processor of the cluster, and repeats the batches of a
lost worker. Rows come back in order and go into one Parquet file.
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
from catordog.escaping import encodable
from catordog.files import atomic_path, locked
from catordog.model.classifier import load
from catordog.model.predict import VerdictRules, predictions
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.inputs import Inputs, PhotosByLocation
from catordog.report.rows import column_names, column_values, summary
from catordog.terminal import info, progress

_BATCH = 256
"""Photos in a batch, the work that is repeated when a worker is lost."""


def predict(
    paths: Sequence[str],
    model: str | None,
    out: str,
    rules: VerdictRules,
    decode_rules: DecodeRules = DEFAULT_RULES,
) -> int:
    """Predict on a Ray cluster: the one that RAY_ADDRESS names, or one on this machine.

    Args:
        paths: see `Inputs`. They have to be the same on every machine of the cluster.
        model: see `load`. It has to be at the same path on every machine, too.
        out: the Parquet file to write, with the columns of `--format csv`.
        rules: see `VerdictRules`.
        decode_rules: see `DecodeRules`.

    Returns:
        1 if a photo is unreadable, else 0.

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
        classifier.quantile_for(rules.error_rate)  # refuse it before any photo is read
    columns = column_names(classifier.classes, classifier.has_regions)
    verdicts: Counter[str] = Counter()
    unreadable = 0
    with _cluster() as (ray, processors), _parquet(target, columns) as write:
        info(f"{total:,} photos, {processors} workers")
        predicted = ray.data.from_arrow(list(_location_tables(inputs))).map_batches(
            Worker,
            fn_constructor_args=(model, rules, decode_rules),
            batch_size=_BATCH,
            num_cpus=1,
            concurrency=(1, processors),
        )
        with progress("predicting", total) as done:
            for batch in predicted.iter_batches(batch_size=4096, batch_format="pyarrow"):
                write(batch)
                found = batch.column("verdict").to_pylist()
                verdicts.update(filter(None, found))
                unreadable += found.count("")  # no class has an empty name
                done(verdicts.total() + unreadable)
    info(summary(verdicts, unreadable))
    return 1 if unreadable else 0


class Worker:
    """A process of the cluster: it loads the model once, and predicts batch after batch.

    Args:
        model: see `load`.
        rules: see `VerdictRules`.
        decode_rules: see `DecodeRules`.
    """

    def __init__(
        self, model: str | None, rules: VerdictRules, decode_rules: DecodeRules = DEFAULT_RULES
    ) -> None:
        os.environ["CATORDOG_THREADS"] = "1"  # every processor has a worker of its own
        self._classifier = load(model)
        self._rules = rules
        self._photos = PhotosByLocation(decode_rules)

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> Any:
        """Turn a batch of locations into a table of predictions, in the same order."""
        import pyarrow

        paths, roots, names = (map(os.fsdecode, batch[name]) for name in ("path", "root", "name"))
        photos = map(self._photos.photo, roots, names)
        results = predictions(self._classifier, photos, self._rules)
        classes = self._classifier.classes
        also = self._classifier.has_regions
        columns: dict[str, list[Any]] = {name: [] for name in column_names(classes, also)}
        for path, (_, result) in zip(paths, results, strict=True):
            row = column_values(path, result, len(classes), also=also)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
        return pyarrow.table(columns, _schema(list(columns)))


_TEXT = frozenset({"path", "label", "verdict", "also", "error"})


def _schema(columns: Sequence[str]) -> Any:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    return pyarrow.schema([(name, text if name in _TEXT else number) for name in columns])


def _location_tables(inputs: Inputs, rows: int = 4096) -> Iterator[Any]:
    """Yield tables of the photos' locations (see `Inputs.locations`), of a few thousand rows.

    They are bytes, since a path need not be UTF-8.
    """
    import pyarrow

    columns: dict[str, list[bytes]] = {"path": [], "root": [], "name": []}
    for root, name, path in inputs.locations():
        location = (path, str(Path(root).absolute()), name)  # workers have another current folder
        for column, value in zip(columns.values(), location, strict=True):
            column.append(os.fsencode(value))
        if len(columns["path"]) == rows:
            yield pyarrow.table(columns)
            columns = {column: [] for column in columns}
    if columns["path"]:
        yield pyarrow.table(columns)


@contextmanager
def _cluster() -> Iterator[tuple[Any, int]]:
    """Connect to a cluster, or start one, and yield Ray and the number of processors."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send statistics to its makers
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_package(error, "scale") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield ray, max(1, int(resources.get("CPU", 1)))
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _parquet(target: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Write a Parquet file atomically; yield a function that writes a table of rows."""
    import pyarrow
    import pyarrow.parquet

    schema = _schema(columns)
    with (
        locked(target, f"{encodable(target)} is being written by another run: wait for it"),
        atomic_path(target) as temporary,
        pyarrow.parquet.ParquetWriter(str(temporary), schema) as writer,
    ):
        yield lambda table: writer.write_table(table.select(columns))
