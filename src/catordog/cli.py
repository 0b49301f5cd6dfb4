"""The command line: one sub-command per use. It parses, and calls one function of one room.

Nothing heavy is imported before the words have been understood: `catordog --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from catordog import __version__
from catordog.errors import CatordogError, missing_package

if TYPE_CHECKING:
    from catordog.model.predict import Verdicts
    from catordog.photos.decode import DecodeRules

DONE, SOME_FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES = """\
examples:
  catordog demo                                        train, evaluate and predict, without data
  catordog train --config dogs-vs-cats.yaml --data dogs-vs-cats.zip
  catordog evaluate runs/drawn/version_0/checkpoints/best.ckpt --data drawn
  catordog compare old.ckpt new.ckpt --data pets       which one to trust where
  catordog audit --data pets --html audit.html         what is wrong with a folder
  catordog softmax 16.917 0.772                        what two logits mean
  catordog predict holiday/ --model best.ckpt --format csv --out holiday.csv

exit codes: 0 done; 1 done, but some photo could not be read; 2 wrong usage or input;
75 training was stopped by a signal: start it again with --ckpt_path last
"""


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words after `catordog`; None takes the process's own.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    # Pillow warns about photos that it reads all the same; those that it can't read are reported.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return _run([word for word in words if word != "--debug"])
    except SystemExit as stop:  # argparse's
        return stop.code if isinstance(stop.code, int) else WRONG
    except KeyboardInterrupt:
        print("\ncatordog: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `catordog predict … | head` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except ModuleNotFoundError as error:
        if debug or error.name not in _TRAINING:
            raise
        print(f"catordog: error: {missing_package(error, 'train')}", file=sys.stderr)
        return WRONG
    except Exception as error:
        if debug:
            raise
        print(f"catordog: error: {_in_a_line(error)}", file=sys.stderr)
        return WRONG


_TRAINING = frozenset(
    {
        *("cleanlab", "jsonargparse", "lightning", "matplotlib", "scipy", "sklearn"),
        *("tensorboard", "torch", "torchmetrics", "torchvision"),
    }
)
"""Packages that only some users need."""


def entry() -> NoReturn:
    """The `catordog` command."""
    code = main()
    sys.stdout.flush()
    sys.exit(code)


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, CatordogError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text} (unexpected: run it again with --debug for details)"


def _run(words: list[str]) -> int:
    if words[:1] == ["train"]:  # LightningCLI reads the rest
        from catordog.commands import train

        return train.run(words[1:])
    args = _parser().parse_args(words)
    if args.command in {"predict", "serve", "explain"}:
        # Threads of numpy's would wait for more work on the cores that the network needs.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if args.command == "evaluate":
        from catordog.commands import evaluate

        return evaluate.run(
            args.model,
            args.data,
            args.split,
            args.json,
            args.csv,
            args.html,
            args.exclude,
            args.error_rate,
            args.neither,
            _rules(args),
        )
    if args.command == "compare":
        from catordog.commands import compare

        return compare.run(
            args.models, args.data, args.split, args.json, args.html, args.exclude, _rules(args)
        )
    if args.command == "predict":
        if args.backend == "ray":
            _only_with_one_process(args)
            from catordog.commands import predict_ray

            return predict_ray.run(args.paths, args.model, args.out, _verdicts(args))
        from catordog.commands import predict

        return predict.run(
            args.paths,
            args.model,
            args.format,
            args.out,
            _verdicts(args),
            resume=args.resume,
            sort_into=args.sort_into,
            link=args.link,
            watch=args.watch,
        )
    if args.command == "explain":
        from catordog.commands import explain

        return explain.run(args.photo, args.model, args.out, _rules(args))
    if args.command == "serve":
        from catordog.commands import serve

        return serve.run(args.model, args.host, args.port, args.rate)
    if args.command == "export":
        from catordog.commands import export

        return export.run(args.model, args.out, args.data, half=args.half, int8=args.int8)
    if args.command == "shard":
        from catordog.commands import shard

        return shard.run(args.data, args.out, args.photos, args.exclude, _rules(args))
    if args.command == "audit":
        from catordog.commands import audit

        return audit.run(args.data, args.model, args.html, args.json, args.fix_list, _rules(args))
    if args.command == "softmax":
        from catordog.commands import softmax

        return softmax.run(args.logits, args.temperature, args.names)
    from catordog.commands import demo

    return demo.run(args.out)


def _rules(args: argparse.Namespace) -> DecodeRules:
    from catordog.photos.decode import DecodeRules

    return DecodeRules(args.allow_truncated, args.max_megapixels)


def _verdicts(args: argparse.Namespace) -> Verdicts:
    from catordog.model.predict import Verdicts

    return Verdicts(args.threshold, args.error_rate, args.accept, _rules(args))


def _only_with_one_process(args: argparse.Namespace) -> None:
    if not args.out:
        raise CatordogError("--engine ray writes Parquet: it needs --out FILE.parquet")
    for name in ("resume", "sort_into", "link", "watch"):
        if getattr(args, name):
            raise CatordogError(
                f"--{name.replace('_', '-')} and --engine ray don't go together: leave one out"
            )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="catordog",
        description="Cat or dog? Train, evaluate and use image classifiers whose confidence can be "
        "believed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"catordog {__version__}")
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    reading = _Parser(add_help=False)
    reading.add_argument(
        "--allow-truncated",
        action="store_true",
        help="read what is there of photos that end too early",
    )
    reading.add_argument(
        "--max-megapixels",
        type=float,
        default=200,
        metavar="N",
        help="refuse larger photos before they are decoded (default: 200)",
    )
    excluding = _Parser(add_help=False)
    excluding.add_argument(
        "--exclude", metavar="F", help="a CSV file with a column 'path': photos to leave out"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser(
        "train",
        parents=[common],
        help="train a network on labelled photos",
        description="Train a network; see catordog train --help.",
    )

    evaluate = commands.add_parser(
        "evaluate",
        parents=[common, reading, excluding],
        help="measure a model on held-out photos",
        description="Measure a model on photos that it has not trained on: raw logits, softmax "
        "confidences, and what they are worth.",
    )
    evaluate.add_argument("model", metavar="MODEL", help=_A_MODEL_HELP)
    _held_out(evaluate)
    evaluate.add_argument(
        "--error-rate",
        type=float,
        metavar="E",
        help="check whether the model keeps this promise (default: 0.01 and 0.05)",
    )
    evaluate.add_argument(
        "--neither",
        metavar="PATH",
        help="photos that show none of the classes: how many of them does the model take for one?",
    )
    evaluate.add_argument("--json", metavar="F", help="write the figures to this file")
    evaluate.add_argument("--csv", metavar="F", help="write a row for each photo to this file")
    evaluate.add_argument("--html", metavar="F", help="write a page with figures to this file")

    compare = commands.add_parser(
        "compare",
        parents=[common, reading, excluding],
        help="hold several models against each other",
        description="Run the same held-out photos through several models: accuracy, whether the "
        "confidence is true, where they disagree, and what of it is chance.",
    )
    compare.add_argument("models", nargs="+", metavar="MODEL", help="two or more model files")
    _held_out(compare)
    compare.add_argument("--json", metavar="F", help="write the figures to this file")
    compare.add_argument("--html", metavar="F", help="write a page with thumbnails to this file")

    predict = commands.add_parser(
        "predict",
        parents=[common, reading],
        help="say what is on photos",
        description="Say what is on photos: raw logits, confidences, and a verdict in words.",
    )
    predict.add_argument(
        "paths", nargs="+", metavar="PATH", help="photos, folders (at any depth), zips, or globs"
    )
    predict.add_argument("--model", metavar="M", help=_MODEL_HELP)
    predict.add_argument(
        "--format", default="table", choices=["table", "jsonl", "csv"], help="default: table"
    )
    predict.add_argument("--out", metavar="F", help="write the result to this file")
    predict.add_argument(
        "--engine",
        default="here",
        choices=["here", "ray"],
        help="ray: on a Ray cluster, for millions of photos, into a Parquet file (default: here)",
    )
    predict.add_argument(
        "--resume", action="store_true", help="leave out photos that have a row in --out already"
    )
    predict.add_argument(
        "--sort-into",
        metavar="DIR",
        help="copy each photo into DIR/cat, DIR/dog, DIR/not sure or DIR/neither; nothing is moved "
        "or overwritten",
    )
    predict.add_argument(
        "--link", action="store_true", help="with --sort-into: make links instead of copies"
    )
    predict.add_argument(
        "--watch", action="store_true", help="wait for more photos in the folder, until Ctrl-C"
    )
    predict.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="say 'not sure' below this confidence (0…1; default: the model's)",
    )
    predict.add_argument(
        "--error-rate",
        type=float,
        metavar="E",
        help="say 'not sure' as often as it takes for no more than this share of photos like those "
        "of training to be wrong (such as 0.01)",
    )
    predict.add_argument(
        "--accept",
        type=float,
        metavar="A",
        help="call photos 'neither' that look stranger than this share of photos like those of "
        "training (default: 0.95; 1: never)",
    )

    explain = commands.add_parser(
        "explain",
        parents=[common, reading],
        help="show where on a photo the network looked",
        description="Draw what the parts of a photo say for each class, as found by hiding them.",
    )
    explain.add_argument("photo", metavar="PHOTO", help="a photo")
    explain.add_argument("--model", metavar="M", help=_MODEL_HELP)
    explain.add_argument(
        "--out", metavar="F", help="the PNG file to write (default: PHOTO-explained.png, here)"
    )

    export = commands.add_parser(
        "export",
        parents=[common],
        help="write a model as one ONNX file",
        description="Write a model as one ONNX file, with its class names, its preprocessing and "
        "its calibration inside: for other programs, and for predictions without torch.",
    )
    export.add_argument("model", metavar="MODEL", help="a .ckpt that catordog train has written")
    export.add_argument("--out", required=True, metavar="F", help="the .onnx file to write")
    export.add_argument("--data", metavar="D", help="check the file on these photos, too")
    smaller = export.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="half the size: weights in 16 bits")
    smaller.add_argument(
        "--int8", action="store_true", help="a quarter of the size: compute in 8 bits; needs --data"
    )

    serve = commands.add_parser(
        "serve",
        parents=[common],
        help="a web page and an HTTP API on this machine",
        description="Serve a web page and an HTTP API. Nothing leaves the machine, and no photo is "
        "stored.",
    )
    serve.add_argument("--model", metavar="M", help=_MODEL_HELP)
    serve.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="default: 127.0.0.1, this machine only"
    )
    serve.add_argument("--port", type=int, default=7860, metavar="N", help="default: 7860; 0: any")
    serve.add_argument(
        "--rate",
        type=float,
        default=200,
        metavar="R",
        help="requests a second from one address (default: 200; 0: any)",
    )

    audit = commands.add_parser(
        "audit",
        parents=[common, reading],
        help="find what is wrong with a photo folder",
        description="Tell the truth about a photo folder: unreadable files, copies, near copies, "
        "one picture under several labels; with a model also wrong labels, and photos of no class.",
    )
    audit.add_argument("--data", required=True, metavar="D", help=_DATA_HELP)
    audit.add_argument("--model", metavar="M", help="a model whose features judge the labels")
    audit.add_argument("--html", metavar="F", help="write a page with thumbnails to this file")
    audit.add_argument("--json", metavar="F", help="write the findings to this file")
    audit.add_argument(
        "--fix-list", metavar="F", help="write photos to leave out, for --exclude, to this CSV file"
    )

    shard = commands.add_parser(
        "shard",
        parents=[common, reading, excluding],
        help="pack photos for training on many machines",
        description="Pack photos into tars of a thousand with an index: a form of --data that is "
        "read a few tars at a time, from a slow disk or from many. Photos stay as they are.",
    )
    shard.add_argument("--data", required=True, metavar="D", help=_DATA_HELP)
    shard.add_argument("--out", required=True, metavar="DIR", help="the folder for the shards")
    shard.add_argument(
        "--photos", type=int, default=1000, metavar="N", help="photos to a shard (default: 1000)"
    )

    softmax = commands.add_parser(
        "softmax",
        parents=[common],
        help="turn raw logits into confidences",
        description="Turn raw logits into confidences, step by step: catordog softmax 16.917 0.772",
    )
    softmax.add_argument(
        "logits", nargs="+", type=float, metavar="LOGIT", help="two or more raw logits"
    )
    softmax.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="divide the logits by this: above 1 is humbler, below 1 bolder (default: 1)",
    )
    softmax.add_argument(
        "--names", nargs="+", metavar="NAME", help="of the classes (default: dog cat)"
    )

    demo = commands.add_parser(
        "demo",
        parents=[common],
        help="train, evaluate and predict on drawn pictures",
        description="Train on pictures that catordog draws itself, evaluate, and predict new ones: "
        "the whole job in about two minutes, without any data.",
    )
    demo.add_argument(
        "--out", default="demo", metavar="DIR", help="where pictures go (default: demo)"
    )
    return parser


def _held_out(command: argparse.ArgumentParser) -> None:
    """Which photos a model is measured on."""
    command.add_argument("--data", required=True, metavar="D", help=_DATA_HELP)
    command.add_argument(
        "--split",
        default="test",
        choices=["train", "val", "test", "all"],
        help="which photos (default: test, the held-out ones)",
    )


_A_MODEL_HELP = "a .ckpt of catordog train, an .onnx of catordog export, or 'bundled'"

_MODEL_HELP = (
    "a .ckpt of catordog train, or an .onnx of catordog export (default: the model that comes with "
    "the package)"
)

_DATA_HELP = (
    "a folder with a sub-folder per class, the same under train/ val/ test/, a flat folder of "
    "cat.N.jpg and dog.N.jpg, a zip or tar of any of these, the Oxford-IIIT Pet layout, or "
    "'drawn', 'oxford-pets', 'microsoft'"
)
