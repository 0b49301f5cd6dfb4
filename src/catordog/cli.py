"""The command line: a table of commands, one-line errors, and exit codes.

A command is a row here and a file in `commands/`, which is imported when the command is used. So
`catordog --help` and the help of every command import nothing heavy.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from catordog import __version__
from catordog.errors import CatordogError, missing_package
from catordog.escaping import printable
from catordog.terminal import discard, prepare_streams

COMMANDS = {
    "predict": "classify photos: raw logits, confidences, a verdict",
    "teach": "teach own classes from a few photos, in seconds",
    "train": "train a network on labelled photos",
    "evaluate": "measure a model on held-out photos",
    "compare": "compare models on the same held-out photos",
    "calibrate": "fit a model's confidence to labelled photos",
    "explain": "show which parts of a photo decide its class",
    "audit": "find problems in a photo folder",
    "review": "see doubtful photos and fix their labels in the browser",
    "export": "write a model as one ONNX, Core ML or TFLite file, or as a web page",
    "serve": "serve a web page and an HTTP API",
    "shard": "pack photos for training on many machines",
    "softmax": "turn raw logits into confidences, step by step",
    "demo": "train, evaluate and predict on synthetic pictures",
}
"""Name and one line of help. `commands/NAME.py` has `DESCRIPTION`, `add_arguments(parser)` and
`run(args)`, which returns the exit code."""

_PASSES_OPTIONS_ON = frozenset({"train"})
"""Commands that hand unknown options to another parser. They find all words after the command in
`args.words`, and those that their own parser does not know in `args.further`."""

DONE, SOME_FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

_HELP = """\
usage: catordog COMMAND [options]

Train, evaluate and use image classifiers with confidence that you can rely on.

commands:
{commands}

options:
  -h, --help   show this help; 'catordog COMMAND --help' shows the options of a command
  --version    show the version
  --debug      show tracebacks

examples:
  catordog predict photo.jpg
  catordog predict holiday/ --format csv --out holiday.csv
  catordog teach pets
  catordog train --config dogs-vs-cats.yaml --data pets
  catordog evaluate runs/dogs-vs-cats/version_0/checkpoints/best.ckpt --data pets
  catordog audit --data pets --html audit.html
  catordog softmax 16.917 0.772

exit codes: 0 done; 1 done, but some photos are unreadable or a check failed;
2 wrong usage or input; 75 stopped by a signal, resume with --ckpt_path last; 130 Ctrl-C
"""

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_TRAINING_PACKAGES = frozenset(
    {
        *("jsonargparse", "lightning", "matplotlib", "scipy", "sklearn"),
        *("tensorboard", "torch", "torchmetrics", "torchvision"),
    }
)
"""Packages of the extra `train`: a minimal installation has none of them."""


_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-inf|-nan", re.IGNORECASE)
"""Words that are negative numbers and no options; argparse by itself does not know `-1e-3`."""


class _Formatter(argparse.HelpFormatter):
    """argparse's format, with a column for options that is wide enough for nearly all."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


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
    prepare_streams()
    # Pillow warns about flaws of photos that it can read; unreadable photos are reported anyway.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    debug = "--debug" in words
    code = _guarded([word for word in words if word != "--debug"], debug)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as error:  # the disk is full
        discard(sys.stdout)
        _report(_in_a_line(error))
        return WRONG
    return code


def _guarded(words: list[str], debug: bool) -> int:
    """Run a command, and turn each exception into a line and an exit code."""
    try:
        return _run(words)
    except SystemExit as stop:  # argparse's
        return stop.code if isinstance(stop.code, int) else WRONG
    except KeyboardInterrupt:
        print("\ncatordog: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `catordog predict … | head` is no error
        discard(sys.stdout)
        return DONE
    except ModuleNotFoundError as error:
        if debug:
            return _traceback()
        if error.name not in _TRAINING_PACKAGES:
            raise
        _report(str(missing_package(error, "train")))
        return WRONG
    except Exception as error:
        if debug:
            return _traceback()
        if isinstance(error, OSError) and error.errno in _DISK_FULL and not error.filename:
            discard(sys.stdout)  # else Python would try again at exit
        _report(_in_a_line(error))
        return WRONG


def _traceback() -> int:
    import traceback

    traceback.print_exc()
    return WRONG


def _report(message: str) -> None:
    with suppress(OSError):  # stderr may be a file on the full disk
        print(f"catordog: error: {message}", file=sys.stderr)


def entry() -> NoReturn:
    """The `catordog` command."""
    sys.exit(main())


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    if name in {"-h", "--help"}:
        print(_help(), end="")
        return DONE
    if name == "--version":
        print(f"catordog {__version__}")
        return DONE
    if name not in COMMANDS:
        raise CatordogError(_no_command(name))
    parser = command_parser(name)
    words = [name, *map(_with_home, words[1:])]
    args, further = parser.parse_known_args(words[1:])
    if further and name not in _PASSES_OPTIONS_ON:
        parser.error(_unknown(further, parser))
    args.words, args.further = words[1:], further
    code: int = import_module(f"catordog.commands.{name}").run(args)
    return code


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    command = import_module(f"catordog.commands.{name}")
    parser = _Parser(
        prog=f"catordog {name}",
        description=command.DESCRIPTION,
        formatter_class=_Formatter,
        add_help=False,
        allow_abbrev=name not in _PASSES_OPTIONS_ON,
    )
    parser._positionals.title = "arguments"
    parser._negative_number_matcher = _NUMBER
    command.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("-h", "--help", action="help", help="show this help")
    return parser


def options_of(name: str) -> set[str]:
    """Return the options of a command, hidden aliases included."""
    return set(command_parser(name)._option_string_actions)


def _with_home(word: str) -> str:
    """Expand `~` where shells leave it: in `--out=~/r.csv`, in quotes, and on Windows.

    >>> _with_home("--format=csv")
    '--format=csv'
    """
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if re.match(r"~[^/\\]*[/\\]", value) or (option and value == "~"):
        return option + equals + os.path.expanduser(value)  # noqa: PTH111 - Path.expanduser drops a final /
    return word


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}    {summary}" for name, summary in COMMANDS.items())
    return _HELP.format(commands="\n".join(lines))


def _no_command(name: str) -> str:
    if not name:
        return "no command given, such as 'catordog predict photo.jpg' (see catordog --help)"
    if name.startswith("-"):
        hint = _nearest(name, ["--help", "--version", "--debug"])
        return f"no option '{name}'{hint} (see catordog --help)"
    return f"no command '{name}'{_nearest(name, COMMANDS)} (see catordog --help)"


def _unknown(rest: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """The message for words that a command's parser does not know."""
    options = [word.partition("=")[0] for word in rest if word.startswith("-")]
    if not options:
        return f"unexpected argument '{rest[0]}'"
    visible = (
        option
        for option, action in parser._option_string_actions.items()
        if action.help != argparse.SUPPRESS
    )
    return f"no option '{options[0]}'{_nearest(options[0], visible)}"


def _nearest(word: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches

    found = get_close_matches(word, list(names), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


def _in_a_line(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))
    if isinstance(error, CatordogError):
        return text
    if isinstance(error, OSError) and error.strerror:
        if error.filename:
            return f"{error.filename}: {error.strerror}"
        return (
            f"can't write the results: {error.strerror}"
            if error.errno in _DISK_FULL
            else error.strerror
        )
    return f"{type(error).__name__}: {text} (unexpected: run it again with --debug for details)"
