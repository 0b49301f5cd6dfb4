"""`catordog predict`: classify photos, with raw logits, confidences and verdicts."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from catordog.commands.options import MODEL_HELP, add_accept, add_decoding, decode_rules, error_rate

if TYPE_CHECKING:
    from catordog.model.classifier import Classifier
    from catordog.model.predict import VerdictRules
    from catordog.photos.inputs import Inputs
    from catordog.photos.photo import Photo
    from catordog.report.rows import Rows, Screen
    from catordog.report.run_record import Settings
    from catordog.report.sorted_folders import SortedFolders

DESCRIPTION = """Classify photos: raw logits, confidences, and a verdict, which is a class,
'not sure', or 'neither'."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="photos, folders (at any depth), archives, or globs",
    )
    parser.add_argument("--model", metavar="M", help=MODEL_HELP)
    parser.add_argument(
        "--format",
        choices=["table", "jsonl", "csv"],
        help="default: jsonl or csv if --out ends so, else table",
    )
    parser.add_argument("--out", metavar="F", help="write the results to this file")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip photos that have a row in --out already; photos with an error are tried again",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="below this confidence, 0 to 1, the verdict is 'not sure' (default: the model's)",
    )
    parser.add_argument(
        "--error-rate",
        type=error_rate,
        metavar="E",
        help="error budget such as 0.01: abstain ('not sure') as often as needed to stay within it",
    )
    add_accept(parser)
    parser.add_argument(
        "--sort-into",
        metavar="DIR",
        help="copy each photo into the folder of its verdict, such as DIR/cat or 'DIR/not sure'; "
        "originals stay, and nothing is overwritten; with --resume, also photos that have a row",
    )
    parser.add_argument(
        "--link", action="store_true", help="with --sort-into: make links instead of copies"
    )
    parser.add_argument(
        "--watch", action="store_true", help="wait for new photos in the folders until Ctrl-C"
    )
    backends = ["here", "ray"]
    parser.add_argument(
        "--backend",
        default="here",
        choices=backends,
        help="ray: predict on a Ray cluster, into a Parquet file (default: here)",
    )
    parser.add_argument(
        "--engine",
        dest="backend",
        default=argparse.SUPPRESS,
        choices=backends,
        help=argparse.SUPPRESS,  # the old name of --backend
    )
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Predict; results go to stdout or to --out.

    Returns:
        0, or 1 if a photo is unreadable or could not be sorted.
    """
    import os

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # leave the cores to the network
    from catordog.model.predict import VerdictRules

    rules = VerdictRules(args.threshold, args.error_rate, args.accept)
    args.format = args.format or _format_of(args.out)
    _check(args)
    if args.backend == "ray":
        from catordog.commands import predict_ray

        return predict_ray.predict(args.paths, args.model, args.out, rules, decode_rules(args))
    return _predict(args, rules)


def _format_of(out: str | None) -> str:
    """The format that a file's suffix names.

    >>> _format_of("r.JSONL"), _format_of("r.txt"), _format_of(None)
    ('jsonl', 'table', 'table')
    """
    from pathlib import Path

    suffix = Path(out or "").suffix.lower()
    return suffix[1:] if suffix in {".jsonl", ".csv"} else "table"


def _check(args: argparse.Namespace) -> None:
    """Refuse paths that can't be right, and options that exclude each other."""
    from pathlib import Path

    from catordog.errors import CatordogError
    from catordog.outputs import check_folder, check_outputs, check_outside

    if "" in args.paths:
        raise CatordogError("PATH '': the name is empty; give a photo or a folder")
    check_outputs({"--out": args.out}, [*args.paths, args.model])
    if args.sort_into is not None:
        from catordog.photos.inputs import matches_of, searched_folders

        check_folder("--sort-into", args.sort_into)
        for path in args.paths:
            for found in matches_of(path):
                check_outside("--sort-into", args.sort_into, found, found)
            for folder in searched_folders(path):
                check_outside("--sort-into", args.sort_into, folder, path)
    if args.backend == "ray":
        if not args.out:
            raise CatordogError("--backend ray writes Parquet: it needs --out FILE.parquet")
        for name in ("resume", "sort_into", "link", "watch"):
            if getattr(args, name):
                option = name.replace("_", "-")
                raise CatordogError(f"--{option} and --backend ray exclude each other")
    if args.link and args.sort_into is None:
        raise CatordogError("--link needs --sort-into DIR: without it, no photo is copied")
    if args.resume and (args.out is None or args.format == "table"):
        raise CatordogError("--resume needs --out, and --format jsonl or csv")
    if args.watch and not all(Path(path).is_dir() for path in args.paths):
        raise CatordogError("--watch waits for new photos in a folder: name folders only")


def _predict(args: argparse.Namespace, rules: VerdictRules) -> int:
    """Predict in this process."""
    from collections import Counter
    from pathlib import Path

    from catordog.errors import PhotoError
    from catordog.model.classifier import load
    from catordog.model.predict import predictions
    from catordog.photos.inputs import Inputs
    from catordog.report.rows import summary, verdicts_of
    from catordog.report.sorted_folders import SortedFolders
    from catordog.terminal import info, progress

    inputs = Inputs(args.paths, decode_rules(args))
    total = None if args.watch else inputs.count()
    classifier = load(args.model)
    if rules.error_rate is not None:
        classifier.quantile_for(rules.error_rate)  # refuse it before any photo is read
    folders = None
    if args.sort_into:
        names = verdicts_of(classifier.classes)
        folders = SortedFolders(Path(args.sort_into), names, link=args.link)
    verdicts: Counter[str] = Counter()
    failing: Counter[str] = Counter()  # rows with an error, by path
    unreadable = unsorted = 0
    with _rows(args, classifier, rules) as rows, progress("predicting", total) as done:
        skipped = rows.resumed - rows.errors
        if folders and skipped:
            unsorted = _sort_resumed(folders, inputs, rows)
        for batch in _batches(inputs, rows.has, watch=args.watch):
            for photo, result in predictions(classifier, batch, rules):
                if args.watch:  # an earlier row of a photo with an error does not count any more
                    unreadable -= failing.pop(photo.path, 0)
                if isinstance(result, PhotoError):
                    unreadable += 1
                    failing[photo.path] += 1
                else:
                    verdicts[result.verdict] += 1
                    if folders:  # before its row, since --resume skips photos that have one
                        unsorted += not _sorted(folders, photo, result.verdict)
                rows.write(photo.path, result)
                done(skipped + unreadable + verdicts.total())
    info(summary(verdicts, unreadable, skipped))
    if unsorted:
        info(f"{unsorted:,} photo{' was' if unsorted == 1 else 's were'} not sorted")
    if rows.errors:
        info(f"{rows.errors:,} more in the file with an error, not among these photos")
    return 1 if unreadable or rows.errors or unsorted else 0


def _sort_resumed(folders: SortedFolders, inputs: Inputs, rows: Rows | Screen) -> int:
    """Sort the photos that have a row already, but no copy yet. Returns how many could not be."""
    from catordog.terminal import progress

    unsorted = 0
    with progress("sorting photos that have a row") as done:
        for count, photo in enumerate(inputs, 1):
            verdict = rows.verdict_of(photo.path)
            if verdict is not None:
                unsorted += not _sorted(folders, photo, verdict)
            done(count)
    return unsorted


def _sorted(folders: SortedFolders, photo: Photo, verdict: str) -> bool:
    """Put a photo into a folder. Returns False if it is gone, or can't have its name there."""
    from catordog.errors import PhotoError
    from catordog.escaping import printable
    from catordog.terminal import info

    try:
        folders.put(photo, verdict)
    except PhotoError as error:
        info(f"not sorted: {printable(str(error))}")
        return False
    return True


def _rows(args: argparse.Namespace, classifier: Classifier, rules: VerdictRules) -> Rows | Screen:
    from pathlib import Path

    from catordog.report.rows import Rows, Screen

    if args.out is None:
        return Screen(args.format, classifier.classes, also=classifier.has_regions)
    return Rows(
        Path(args.out),
        args.format,
        classifier.classes,
        also=classifier.has_regions,
        resume=args.resume,
        settings=_settings(args.model, classifier, rules),
    )


def _settings(model: str | None, classifier: Classifier, rules: VerdictRules) -> Settings:
    """What the rows depend on: the model file, and the options that decide verdicts."""
    import hashlib
    from pathlib import Path

    from catordog.confidence.ood import ACCEPT
    from catordog.model.bundled import BUNDLED, BUNDLED_FIRST

    threshold = None
    if rules.error_rate is None:
        threshold = classifier.model.threshold if rules.threshold is None else rules.threshold
    files = [BUNDLED, BUNDLED_FIRST] if model in {None, "bundled"} else [Path(str(model))]
    digest = hashlib.blake2b()
    for file in files:
        digest.update(file.read_bytes())
    return {
        "model": digest.hexdigest()[:32],
        "--threshold": threshold,
        "--error-rate": rules.error_rate,
        "--accept": ACCEPT if rules.accept is None else rules.accept,
    }


def _batches(
    inputs: Inputs, known: Callable[[str], bool], *, watch: bool
) -> Iterator[Iterator[Photo]]:
    """Yield the photos without a row: all at once, or as they arrive."""
    if watch:
        yield from map(iter, watched(inputs, known))
    else:
        yield (photo for photo in inputs if not known(photo.path))


_PAUSE = 1.0
"""Seconds between two scans of a watched folder."""


def watched(inputs: Inputs, known: Callable[[str], bool]) -> Iterator[list[Photo]]:
    """Scan folders again and again, and yield the photos that have arrived since the last scan.

    A photo has arrived when two scans find it unchanged. It arrives again when its file changes: a
    copy that took a break, or another photo of the same name. A folder that is removed is scanned
    again when it returns. Ctrl-C ends the scans after the photos that are being predicted.

    Args:
        inputs: the folders.
        known: whether a photo has a row already.
    """
    from catordog.terminal import no_repeats

    stopped = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())
    # Size and time of change of each photo: when it arrived, and at the last scan.
    arrived: dict[str, tuple[int, int]] = {}
    arriving: dict[str, tuple[int, int]] = {}
    lines: list[str] = []  # of the last scan, about folders that can't be read
    try:
        while not stopped.is_set():
            ready = []
            with no_repeats(lines):
                for photo in inputs:
                    if photo.file is None:
                        continue
                    try:
                        stat = photo.file.stat()
                    except OSError:  # removed meanwhile
                        continue
                    path, state = photo.path, (stat.st_size, stat.st_mtime_ns)
                    if path not in arrived and known(path):
                        arrived[path] = state
                    if arrived.get(path) == state:
                        continue
                    if arriving.get(path) == state:
                        ready.append(photo)
                        arrived[path] = arriving.pop(path)
                    else:
                        arriving[path] = state
            yield ready
            stopped.wait(_PAUSE)
    finally:
        signal.signal(signal.SIGINT, before)
