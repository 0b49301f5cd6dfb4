"""`catordog predict`: what is on photos, as raw logits, confidences and verdicts."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from catordog.commands.options import MODEL_HELP, add_decoding, decode_rules

if TYPE_CHECKING:
    from catordog.model.predict import VerdictRules
    from catordog.photos.inputs import Inputs
    from catordog.photos.photo import Photo

DESCRIPTION = """Say what is on photos: raw logits, confidences, and a verdict: one of the classes,
'not sure', or 'neither'."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="photos, folders (at any depth), zips, or globs"
    )
    parser.add_argument("--model", metavar="M", help=MODEL_HELP)
    parser.add_argument(
        "--format", default="table", choices=["table", "jsonl", "csv"], help="default: table"
    )
    parser.add_argument("--out", metavar="F", help="write the result to this file")
    parser.add_argument(
        "--resume", action="store_true", help="skip photos that have a row in --out already"
    )
    parser.add_argument(
        "--sort-into",
        metavar="DIR",
        help="copy each photo into DIR/cat, DIR/dog, DIR/not sure or DIR/neither; nothing is moved "
        "or overwritten",
    )
    parser.add_argument(
        "--link", action="store_true", help="with --sort-into: links instead of copies"
    )
    parser.add_argument(
        "--watch", action="store_true", help="keep waiting for new photos in the folder"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="say 'not sure' below this confidence, 0 to 1 (default: the model's)",
    )
    parser.add_argument(
        "--error-rate",
        type=float,
        metavar="E",
        help="an error budget such as 0.01: abstain ('not sure') as often as needed to keep it",
    )
    parser.add_argument(
        "--accept",
        type=float,
        metavar="A",
        help="true-accept rate: the fraction of photos of the classes that is not called 'neither' "
        "(default: 0.95; 1: call none 'neither')",
    )
    parser.add_argument(
        "--backend",
        "--engine",
        dest="backend",
        default="here",
        choices=["here", "ray"],
        help="ray: on a Ray cluster, for millions of photos, into a Parquet file (default: here)",
    )
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Predict; results go to stdout or to --out. Returns 1 if a photo was unreadable."""
    import os

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # leave the cores to the network
    from catordog.errors import CatordogError
    from catordog.model.predict import VerdictRules

    rules = VerdictRules(args.threshold, args.error_rate, args.accept)
    if args.backend == "ray":
        from catordog.commands import predict_ray

        if not args.out:
            raise CatordogError("--backend ray writes Parquet: it needs --out FILE.parquet")
        for name in ("resume", "sort_into", "link", "watch"):
            if getattr(args, name):
                option = name.replace("_", "-")
                raise CatordogError(f"--{option} and --backend ray exclude each other")
        return predict_ray.predict(args.paths, args.model, args.out, rules, decode_rules(args))
    return _predict(args, rules)


def _predict(args: argparse.Namespace, rules: VerdictRules) -> int:
    """Predict in this process."""
    from collections import Counter
    from pathlib import Path

    from catordog.confidence.verdict import Prediction
    from catordog.errors import CatordogError, PhotoError
    from catordog.model.classifier import load
    from catordog.model.predict import predictions
    from catordog.photos.inputs import Inputs
    from catordog.report.rows import Rows, Screen
    from catordog.report.sorted_folders import SortedFolders
    from catordog.terminal import info, progress

    if args.resume and (args.out is None or args.format == "table"):
        raise CatordogError("--resume needs --out, and --format jsonl or csv")
    if args.watch and not all(Path(path).is_dir() for path in args.paths):
        raise CatordogError("--watch waits for new photos in a folder: name folders only")
    inputs = Inputs(args.paths, decode_rules(args))
    total = None if args.watch else inputs.count()
    classifier = load(args.model)
    if rules.error_rate is not None:
        classifier.quantile_for(rules.error_rate)  # refuse it before any photo is read
    folders = SortedFolders(Path(args.sort_into), link=args.link) if args.sort_into else None
    tally: Counter[str] = Counter()
    classes, style = classifier.classes, args.format
    to = (
        Rows(Path(args.out), style, classes, resume=args.resume)
        if args.out
        else Screen(style, classes)
    )
    with to as rows:
        chosen = (item for item in inputs if not rows.has(item.path))
        batches = watched(inputs, rows.has) if args.watch else iter([chosen])
        with progress("predicting", total) as done:
            count = rows.kept
            for batch in batches:
                for item, result in predictions(classifier, batch, rules):
                    rows.write(item.path, result)
                    unread = isinstance(result, PhotoError)
                    tally["unreadable" if unread else result.verdict] += 1  # type: ignore[union-attr]
                    if folders and isinstance(result, Prediction):
                        folders.put(item, result.verdict)
                    count += 1
                    done(count)
    new = tally.total()
    words = ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(tally.items()))
    before = f" ({rows.kept:,} were in the file already)" if rows.kept else ""
    info(f"{new:,} photo{'' if new == 1 else 's'}{': ' if words else ''}{words}{before}")
    return 1 if tally["unreadable"] else 0


_PAUSE = 1.0
"""Seconds between two scans of a watched folder."""


def watched(inputs: Inputs, known: Callable[[str], bool]) -> Iterator[list[Photo]]:
    """Yield photos as they arrive, once they have stopped growing.

    It ends with Ctrl-C, after the photos that are being predicted.

    Args:
        inputs: folders.
        known: whether a photo is done already.
    """
    stopped = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stopped.set())
    done: set[str] = set()
    growing: dict[str, tuple[int, int]] = {}
    while not stopped.is_set():
        ready = []
        for item in inputs:
            if item.path in done or item.file is None or known(item.path):
                continue
            try:
                found = item.file.stat()
            except OSError:  # removed as soon as it came
                continue
            size = (found.st_size, found.st_mtime_ns)
            if growing.get(item.path) == size:
                ready.append(item)
                done.add(item.path)
                del growing[item.path]
            else:
                growing[item.path] = size
        yield ready
        stopped.wait(_PAUSE)
