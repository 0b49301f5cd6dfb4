"""The command line: a table of commands, errors in one line, and exit codes.

A command is a row here and a file in `commands/`, which is imported when its name is read. So
`catordog --help` and the help of every command import nothing heavy.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from catordog import __version__
from catordog.errors import CatordogError, missing_package

COMMANDS = {
    "predict": "say what is on photos",
    "train": "train a network on labelled photos",
    "evaluate": "measure a model on held-out photos",
    "compare": "compare models on the same held-out photos",
    "calibrate": "fit a model's confidence to labelled photos",
    "explain": "show which parts of a photo speak for which class",
    "audit": "find problems in a photo folder",
    "export": "write a model as one ONNX file",
    "serve": "a web page and an HTTP API on this machine",
    "shard": "pack photos for training on many machines",
    "softmax": "turn raw logits into confidences",
    "demo": "train, evaluate and predict on synthetic pictures",
}
"""Name and one line of help; `commands/NAME.py` has `DESCRIPTION`, `add_arguments(parser)` and
`run(args)`, which returns the exit code. `train` takes further options, too."""

DONE, SOME_FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES = """\
examples:
  catordog predict photo.jpg
  catordog predict holiday/ --format csv --out holiday.csv
  catordog train --config dogs-vs-cats.yaml --data pets
  catordog evaluate runs/dogs-vs-cats/version_0/checkpoints/best.ckpt --data pets
  catordog audit --data pets --html audit.html
  catordog softmax 16.917 0.772

exit codes: 0 done; 1 done, but some photos could not be read; 2 wrong usage or input;
75 stopped by a signal, resume with --ckpt_path last; 130 Ctrl-C
"""

_TRAINING_PACKAGES = frozenset(
    {
        *("cleanlab", "jsonargparse", "lightning", "matplotlib", "scipy", "sklearn"),
        *("tensorboard", "torch", "torchmetrics", "torchvision"),
    }
)
"""Packages that only some users need."""


class _Parser(argparse.ArgumentParser):
    """argparse, but an error is one line."""

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
    # Pillow warns about photos that it reads all the same; unreadable ones are reported.
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
        if debug or error.name not in _TRAINING_PACKAGES:
            raise
        print(f"catordog: error: {missing_package(error, 'train')}", file=sys.stderr)
        return WRONG
    except Exception as error:
        if debug:
            raise
        print(f"catordog: error: {_in_a_line(error)}", file=sys.stderr)
        return WRONG


def entry() -> NoReturn:
    """The `catordog` command."""
    code = main()
    sys.stdout.flush()
    sys.exit(code)


def _run(words: list[str]) -> int:
    parser, commands = _parser()
    name = words[0] if words and words[0] in COMMANDS else None
    if name is None:  # --help, --version, a mistyped command
        parser.parse_args(words)
        raise AssertionError
    command = import_module(f"catordog.commands.{name}")
    own = commands[name]
    own.description = command.DESCRIPTION
    command.add_arguments(own)
    if name == "train":
        args, _ = own.parse_known_args(words[1:])
        args.words = words[1:]
    else:
        args = own.parse_args(words[1:])
    code: int = command.run(args)
    return code


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of all commands, and each command's own, still without its options."""
    parser = _Parser(
        prog="catordog",
        description="Cat or dog? Train, evaluate and use image classifiers with confidence that "
        "is true.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"catordog {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands: dict[str, argparse.ArgumentParser] = {}
    for name, words in COMMANDS.items():
        commands[name] = subparsers.add_parser(name, help=words, allow_abbrev=name != "train")
        commands[name].add_argument("--debug", action="store_true", help="show tracebacks")
    return parser, commands


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, CatordogError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {text} (unexpected: run it again with --debug for details)"


def options_of(name: str) -> dict[str, Any]:
    """The options of a command with their help, for documentation and tests.

    Returns:
        `{"--out": "…", …}`; hidden aliases are left out.
    """
    _, commands = _parser()
    import_module(f"catordog.commands.{name}").add_arguments(commands[name])
    return {
        option: action.help
        for action in commands[name]._actions
        for option in action.option_strings
        if action.help != argparse.SUPPRESS
    }
