"""`catordog teach`: own classes from a few photos, in seconds."""

from __future__ import annotations

import argparse

from catordog.commands.options import add_decoding, add_exclude, decode_rules

DESCRIPTION = """Teach a model own classes from a few photos, in seconds: a linear layer on the
features of the bundled backbone. Accuracy and confidence come from cross-validation."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DIR",
        help="a folder with a sub-folder per class, or anything that --data of other commands "
        "takes; or a folder of photos of one class, which is named after it",
    )
    parser.add_argument(
        "--out",
        metavar="M.onnx",
        help="the model file to write (default: DIR.onnx in this folder, or that of --add-to)",
    )
    parser.add_argument(
        "--add-to",
        metavar="M.onnx",
        help="add classes, or more photos, to a model that teach has written; its old photos are "
        "not needed",
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="leave the photos' features out of the model file; then nothing can be added to it",
    )
    parser.add_argument(
        "--backbone",
        metavar="F",
        help="an ONNX file with the outputs 'features' and 'concepts' (default: the bundled model)",
    )
    add_exclude(parser)
    add_decoding(parser)


def run(args: argparse.Namespace) -> int:
    """Teach, and write the model file. Returns 1 if a photo was unreadable."""
    import os

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # leave the cores to the network
    from pathlib import Path

    from catordog.commands.unreadable import print_unreadable
    from catordog.errors import CatordogError
    from catordog.model.teach import teach
    from catordog.outputs import check_outputs
    from catordog.report.teach_text import teach_text
    from catordog.terminal import info

    if args.data is None and (args.add_to is None or not args.forget):
        raise CatordogError("no photos given, such as 'catordog teach pets'")
    out = args.out or args.add_to or _default_out(args.data)
    if Path(out).suffix.lower() != ".onnx":
        raise CatordogError(f"--out {out}: the model is an ONNX file; end its name in .onnx")
    check_outputs({"--out": out}, [args.data, args.backbone, args.exclude, args.decisions])
    result = teach(
        args.data,
        add_to=args.add_to,
        forget=args.forget,
        exclude=args.exclude,
        decisions=args.decisions,
        rules=decode_rules(args),
        backbone=args.backbone,
    )
    result.save(out)
    print_unreadable(result.failures)
    info(teach_text(result))
    info(f"predict with: catordog predict photo.jpg --model {_quoted(out)}")
    print(out)
    return 1 if result.failures else 0


def _default_out(data: str) -> str:
    """The name of the model file: that of the folder or archive, in the working folder.

    Raises:
        CatordogError: it is a file that teach has not written.
    """
    from pathlib import Path

    from catordog.errors import CatordogError
    from catordog.files import expanded
    from catordog.model.onnx_file import open_onnx
    from catordog.model.taught_layer import NETWORK
    from catordog.photos.archive_names import stem_of

    path = expanded(data).resolve()
    out = Path(f"{stem_of(path) or 'taught'}.onnx")
    if out.exists() and open_onnx(out)[1].network != NETWORK:
        raise CatordogError(
            f"{out} exists, and is not a model of 'catordog teach': give another name with --out"
        )
    return str(out)


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)
