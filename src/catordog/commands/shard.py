"""`catordog shard`: pack a dataset into shards, for training from slow or many disks."""

from __future__ import annotations

import argparse

from catordog.commands.options import DATA_HELP, add_decoding, add_exclude, decode_rules

DESCRIPTION = """Pack labelled photos into shards: tar files of a thousand photos, with an index.
Shards are a form of --data that is read a few files at a time, from a slow disk or from many disks.
Photos are copied unchanged."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--data", required=True, metavar="D", help=DATA_HELP)
    parser.add_argument("--out", required=True, metavar="DIR", help="the new folder of the shards")
    parser.add_argument(
        "--photos", type=int, default=1000, metavar="N", help="photos per shard (default: 1000)"
    )
    add_exclude(parser)
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Pack the photos, and print the command that trains on them. Returns 1 if one is unreadable.

    An interrupted run is resumed after its last complete shard.
    """
    import shlex
    from pathlib import Path

    from catordog.errors import CatordogError
    from catordog.outputs import check_folder
    from catordog.photos.datasets import open_dataset
    from catordog.photos.pack import check_interrupted, pack
    from catordog.photos.reading import report_failures
    from catordog.photos.shards import INDEX, Shards
    from catordog.photos.splits import SplitFractions
    from catordog.terminal import info, progress

    if args.photos < 1:
        raise CatordogError(f"--photos {args.photos}: a shard needs at least one photo")
    check_folder("--out", args.out)
    folder = Path(args.out)
    if folder.exists() and Path(args.data).exists() and folder.samefile(args.data):
        raise CatordogError(f"--out {args.out} is --data, too: give another folder")
    if (folder / INDEX).exists():
        raise CatordogError(f"--out {args.out}: it has shards already; give another folder")
    check_interrupted(folder)
    dataset = open_dataset(
        args.data, rules=decode_rules(args), exclude=args.exclude, decisions=args.decisions
    )
    info(dataset.summary())
    dataset.splits(SplitFractions())
    total = len(dataset.photos)
    with progress("packing photos", total) as done:
        failures = pack(dataset, folder, args.photos, progress=done)
    packed = Shards(folder)
    info(f"{len(packed):,} photos in {len(packed.shards):,} shards; train on them with:")
    print(shlex.join(["catordog", "train", "--data", args.out]), flush=True)
    report_failures(failures, folder / "unreadable.txt")
    return 1 if failures else 0
