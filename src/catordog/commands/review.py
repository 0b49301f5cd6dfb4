"""`catordog review`: see doubtful photos in the browser, and fix their labels by keyboard."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from catordog.commands.options import (
    ANY_MODEL_HELP,
    DATA_HELP,
    add_decoding,
    add_host,
    add_port,
    decode_rules,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from catordog.evaluation.asking import Asking
    from catordog.model.classifier import Classifier
    from catordog.photos.decode import DecodeRules
    from catordog.photos.photo_dataset import PhotoDataset

DESCRIPTION = """See doubtful photos in the browser, the worst first, and fix their labels by
keyboard. Decisions are stored in a file; photos and folders are never changed. With --apply, copy
the photos into a new folder tree as decided."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--data", required=True, metavar="D", help=DATA_HELP)
    parser.add_argument(
        "--model",
        metavar="M",
        help=f"predicts the photos, and its features judge the labels: {ANY_MODEL_HELP} (default: "
        "the bundled model predicts, if it knows the classes; the general backbone judges)",
    )
    parser.add_argument(
        "--decisions",
        metavar="F",
        help="the file of decisions, JSON Lines, to start or to continue (default: "
        "NAME-decisions.jsonl beside the data)",
    )
    parser.add_argument(
        "--unlabelled",
        metavar="DIR",
        help="instead of a review, ask for labels of these photos, the most useful ones first; "
        "--data has a few labelled ones of each class",
    )
    add_host(parser)
    add_port(parser, 7861)
    parser.add_argument(
        "--apply",
        action="store_true",
        help="open no page, but copy the photos as decided into the new folder --out",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="with --apply: a new folder, with a sub-folder per class"
    )
    parser.add_argument(
        "--link", action="store_true", help="with --apply: make links instead of copies"
    )
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, or apply the decisions.

    Returns:
        0, or 1 if a photo could not be copied when decisions were applied.
    """
    from catordog.errors import CatordogError

    if args.apply and not args.out:
        raise CatordogError("--apply needs --out DIR: a new folder for the photos")
    if not args.apply and (args.out or args.link):
        option = "--out" if args.out else "--link"
        raise CatordogError(f"{option} needs --apply: 'catordog review' itself copies no photo")
    if args.apply and args.unlabelled:
        raise CatordogError(
            f"--apply with --unlabelled: --apply --data {args.unlabelled} applies the labels"
        )
    return _apply(args) if args.apply else _serve(args)


def _serve(args: argparse.Namespace) -> int:
    import os
    import secrets
    from functools import partial

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the network needs the cores
    from catordog.errors import missing_package

    try:
        from catordog.web.listening import host_check, is_loopback, listen, serve_until_interrupted
        from catordog.web.review import create_review_app
        from catordog.web.review_session import ReviewSession
        from catordog.web.review_work import ReviewWork
    except ModuleNotFoundError as error:
        raise missing_package(error, "serve") from None
    from catordog.evaluation.judging import judge_by_backbone, judge_by_model
    from catordog.evaluation.neighbours import neighbours_by_backbone
    from catordog.photos.datasets import open_dataset
    from catordog.terminal import info

    rules = decode_rules(args)
    dataset = open_dataset(args.data, rules=rules, labels="optional")
    ask = None
    if args.unlabelled:
        ask, dataset = _unlabelled(args.unlabelled, dataset, rules)
    classifier = _classifier(args.model, dataset)
    file = _decisions_file(args)
    _check_appendable(file)
    session = ReviewSession(dataset, file)
    if ask is not None:
        work = ReviewWork(session, classifier, ask=ask)
    elif args.model is None or classifier is None:
        judge = partial(judge_by_backbone, rules=rules)
        work = ReviewWork(session, classifier, judge, partial(neighbours_by_backbone, rules=rules))
    else:
        work = ReviewWork(session, classifier, partial(judge_by_model, classifier=classifier))
    name = None if classifier is None else args.model or "bundled"
    listener, address = listen(args.host, args.port)
    token = secrets.token_urlsafe(24)
    app = create_review_app(work, token, host_check(args.host), name)
    info(dataset.summary())
    info(f"decisions: {file}")
    info(f"{address}/{token}/  (Ctrl-C stops)")
    if not is_loopback(args.host):
        info(
            "anyone who has this link can see the photos and decide about them; the connection is "
            "not encrypted"
        )
    serve_until_interrupted(app, listener)
    if work.running:
        # ONNX Runtime aborts a process that ends while it runs. All decisions are on the disk.
        os._exit(0)
    return 0


def _unlabelled(
    folder: str, dataset: PhotoDataset, rules: DecodeRules
) -> tuple[Callable[[], Asking], PhotoDataset]:
    """What asks for labels, and the photos of `--unlabelled` as a dataset without labels."""
    from functools import partial

    from catordog.errors import CatordogError
    from catordog.evaluation.asking import Asking
    from catordog.photos.datasets import open_dataset
    from catordog.photos.photo import NO_LABEL, Photos
    from catordog.photos.photo_dataset import PhotoDataset

    if len(dataset.classes) < 2:
        raise CatordogError(
            f"--data {dataset.name} has {len(dataset.classes)} classes: --unlabelled needs a few "
            "labelled photos of two classes or more to start with"
        )
    photos = open_dataset(folder, rules=rules, labels="optional").photos
    nothing = Photos(photos.source, photos.names, [NO_LABEL] * len(photos), [None] * len(photos))
    return partial(Asking, dataset, nothing, rules), PhotoDataset(folder, dataset.classes, nothing)


def _classifier(model: str | None, dataset: PhotoDataset) -> Classifier | None:
    """The model of `--model`; by default the bundled one, if it knows the classes."""
    from catordog.errors import CatordogError
    from catordog.model.class_matching import match_classes
    from catordog.model.classifier import load

    classifier = load(model)
    try:
        match_classes(dataset.classes, classifier.classes, dataset.name)
    except CatordogError:
        return None if model is None else classifier
    return classifier


def _decisions_file(args: argparse.Namespace) -> Path:
    """The file of `--decisions`; by default beside the data."""
    from pathlib import Path

    from catordog.photos.archive_names import stem_of

    if args.decisions:
        return Path(args.decisions)
    data = Path(args.unlabelled or args.data)
    if not data.exists():  # a name, such as drawn:n=100
        return Path(f"{args.data.partition(':')[0]}-decisions.jsonl")
    data = data.absolute()
    return data.with_name(f"{stem_of(data)}-decisions.jsonl")


def _check_appendable(file: Path) -> None:
    """Refuse a file that decisions can't be added to, before anyone makes one."""
    from catordog.errors import CatordogError
    from catordog.outputs import check_outputs
    from catordog.photos.csv_lists import TABLE_SUFFIXES

    if file.suffix.lower() in TABLE_SUFFIXES:
        raise CatordogError(
            f"--decisions {file}: a review stores JSON Lines, and can't continue a table: give a "
            "file such as decisions.jsonl"
        )
    try:
        check_outputs({"--decisions": file})
    except CatordogError as error:
        raise CatordogError(f"{error}: say with --decisions F where to store decisions") from None


def _apply(args: argparse.Namespace) -> int:
    from pathlib import Path

    from catordog.errors import CatordogError
    from catordog.escaping import printable
    from catordog.outputs import check_folder
    from catordog.photos.datasets import open_dataset
    from catordog.photos.decisions import apply, read_decisions
    from catordog.report.labelled_folders import check_new_folder, write_labelled_folders
    from catordog.terminal import info, show

    file, out = _decisions_file(args), Path(args.out)
    if not file.is_file():
        raise CatordogError(f"--decisions {file}: no such file; 'catordog review' makes one")
    check_folder("--out", out)
    check_new_folder(out, args.data)
    dataset = open_dataset(args.data, rules=decode_rules(args), labels="optional")
    dataset, summary = apply(dataset, read_decisions(file), file, new_classes=True)
    result = write_labelled_folders(dataset, out, link=args.link)
    counts = ", ".join(f"{number:,} {name}" for name, number in result.counts.items())
    show(
        f"{out}: {sum(result.counts.values()):,} photos ({counts}); "
        f"{len(summary.relabelled):,} relabelled, {len(summary.left_out):,} left out"
    )
    if result.same:
        info(f"{result.same:,} photos with the name and the bytes of another were put there once")
    if result.unlabelled:
        info(f"{result.unlabelled:,} photos have no label and were left out")
    for label, name in result.folders.items():
        if name != label and result.counts[label]:
            info(f"class {label} is in the folder '{name}'")
    for failure in result.failures:
        info(f"not copied: {printable(str(failure))}")
    if result.failures:
        photos = "photo was" if len(result.failures) == 1 else "photos were"
        info(f"{len(result.failures):,} {photos} not copied")
    return 1 if result.failures else 0
