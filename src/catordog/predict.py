"""`catordog predict`: what is on photos, as raw logits, as confidences, and in words."""

from __future__ import annotations

import csv
import glob
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from catordog.classifier import Classifier, load
from catordog.confidence.softmax import honest
from catordog.confidence.verdict import Prediction
from catordog.errors import CatordogError, PhotoError
from catordog.files import written_whole
from catordog.photos.decode import DEFAULT_RULES, DecodeRules, decode
from catordog.photos.sources import is_photo_name
from catordog.photos.stores import open_store, read_file
from catordog.terminal import progress, say

Format = Literal["table", "jsonl", "csv"]


@dataclass(frozen=True, slots=True)
class Input:
    """One photo to predict: what it is called, and how its bytes are read."""

    path: str
    read: Callable[[], bytes]


def find_photos(paths: Sequence[str]) -> list[Input]:
    """The photos that files, folders (at any depth), zips and glob patterns name, in that order.

    A file that is named itself is always taken; in folders and zips, names decide.

    Raises:
        CatordogError: a path does not exist, or a folder has no photo.
    """
    found: list[Input] = []
    for path in paths:
        # A name with brackets in it is a name if there is such a file. Path.glob takes no
        # absolute patterns.
        exists = Path(path).exists()
        matches = [path] if exists else sorted(glob.glob(path, recursive=True))  # noqa: PTH207
        if not matches:
            kind = "nothing matches it" if glob.has_magic(path) else "no such file or folder"
            raise CatordogError(f"{path}: {kind}")
        for match in matches:
            found.extend(_photos_in(Path(match)))
    return found


def _photos_in(path: Path) -> Iterator[Input]:
    if store := open_store(path):
        names = [name for name in store.names() if is_photo_name(name)]
        if not names:
            raise CatordogError(f"{path}: no photos in it")
        for name in names:
            yield Input(store.path(name), lambda store=store, name=name: store.read(name))  # type: ignore[misc]
    else:
        yield Input(str(path), lambda: read_file(path))


def predictions(
    classifier: Classifier,
    inputs: Sequence[Input],
    threshold: float | None = None,
    error_rate: float | None = None,
    accept: float | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> Iterator[tuple[str, Prediction | PhotoError]]:
    """Yield each photo's path with its prediction, or with why it can't be read, in order."""
    side = classifier.model.preprocess.size

    def read(item: Input) -> Any:
        return decode(item.read(), item.path, near=side, rules=rules)

    for item, result in classifier.stream(inputs, read):
        if isinstance(result, PhotoError):
            yield item.path, result
        else:
            yield item.path, classifier.judge(result, threshold, error_rate, accept)


def run(
    paths: Sequence[str],
    model: str | None,
    style: Format,
    out: str | None,
    threshold: float | None,
    error_rate: float | None = None,
    accept: float | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> int:
    """`catordog predict`. Returns 1 if a photo could not be read, else 0."""
    if threshold is not None and not 0 <= threshold <= 1:
        raise CatordogError(f"--threshold {threshold} is not a confidence within 0…1")
    if accept is not None and not 0 < accept <= 1:
        raise CatordogError(f"--accept {accept} is not a share within 0…1")
    if threshold is not None and error_rate is not None:
        raise CatordogError("--threshold and --error-rate both decide the verdict: give one")
    inputs = find_photos(paths)
    classifier = load(model)
    if error_rate is not None:
        classifier.limit_of(error_rate)  # says what is wrong with it before any photo is read
    tally: Counter[str] = Counter()
    with written_whole(Path(out)) if out else nullcontext(sys.stdout) as file:
        write = _WRITERS[style](file, classifier.classes)
        with progress("predicting", len(inputs)) as done:
            results = predictions(classifier, inputs, threshold, error_rate, accept, rules)
            for count, (path, result) in enumerate(results, 1):
                write(path, result)
                tally["unreadable" if isinstance(result, PhotoError) else result.verdict] += 1
                done(count)
    words = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(tally.items()))
    say(f"{len(inputs):,} photo{'s' if len(inputs) > 1 else ''}: {words}")
    return 1 if tally["unreadable"] else 0


Writer = Callable[[str, Prediction | PhotoError], None]


def _table(file: IO[str], classes: tuple[str, ...]) -> Writer:
    """Aligned columns that need no look ahead: what varies in width, the path, comes last."""
    longest = max(map(len, classes))
    first = longest + max(len("not sure ( 89 %)"), len(" 99.99999999999999 %"))
    wide = [max(6, len(name)) for name in classes]
    broad = [max(8, len(name)) for name in classes]

    def line(verdict: str, confidences: Sequence[str], logits: Sequence[str], path: str) -> None:
        cells = [verdict.ljust(first)]
        cells += [text.rjust(width) for text, width in zip(confidences, wide, strict=True)]
        cells += [text.rjust(width) for text, width in zip(logits, broad, strict=True)]
        print("  ".join([*cells, path]).rstrip(), file=file, flush=True)

    blank = [""] * len(classes)
    heads = ["confidence"[: sum(wide) + 2 * (len(wide) - 1)], "logits"]
    spans = [sum(wide) + 2 * (len(wide) - 1), sum(broad) + 2 * (len(broad) - 1)]
    groups = [head.rjust(span) for head, span in zip(heads, spans, strict=True)]
    print("  ".join(["".ljust(first), *groups]), file=file)
    line("verdict", classes, classes, "photo")

    def write(path: str, result: Prediction | PhotoError) -> None:
        if isinstance(result, PhotoError):
            line("can't be read", blank, blank, f"{path}: {result.reason}")
            return
        confidences = [honest(value) for value in result.confidences.values()]
        logits = [f"{value:.3f}" for value in result.logits.values()]
        line(result.in_words(), confidences, logits, path)

    return write


def _jsonl(file: IO[str], classes: tuple[str, ...]) -> Writer:
    del classes
    nothing = dict.fromkeys(("label", "confidence", "confidences", "logits", "verdict"))

    def write(path: str, result: Prediction | PhotoError) -> None:
        if isinstance(result, PhotoError):
            row: dict[str, Any] = {"path": path, **nothing, "error": result.reason}
        else:
            row = {"path": path, **result.to_dict(), "error": None}
        print(json.dumps(row, ensure_ascii=False, allow_nan=False), file=file, flush=True)

    return write


def _csv(file: IO[str], classes: tuple[str, ...]) -> Writer:
    writer = csv.writer(file, lineterminator="\n")
    columns = [f"confidence_{name}" for name in classes] + [f"logit_{name}" for name in classes]
    writer.writerow(["path", "label", "confidence", *columns, "verdict", "error"])

    def write(path: str, result: Prediction | PhotoError) -> None:
        if isinstance(result, PhotoError):
            writer.writerow([path, "", "", *[""] * len(columns), "", result.reason])
        else:
            values = [*result.confidences.values(), *result.logits.values()]
            writer.writerow([path, result.label, result.confidence, *values, result.verdict, ""])
        file.flush()

    return write


_WRITERS: dict[str, Callable[[IO[str], tuple[str, ...]], Writer]] = {
    "table": _table,
    "jsonl": _jsonl,
    "csv": _csv,
}
