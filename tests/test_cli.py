from __future__ import annotations

import subprocess
import sys

import pytest

from catordog import __version__
from catordog.cli import main
from catordog.terminal import progress

COMMANDS = ["train", "evaluate", "predict", "demo"]


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS[1:])],
)
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys; from catordog.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'numpy', 'PIL', 'lightning', 'torchvision', 'matplotlib', 'rich'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True,
                           check=False)  # fmt: skip
    assert ended.returncode == 0
    assert ended.stderr.strip() == "[]"
    assert ended.stdout


def test_import_catordog_costs_nothing_until_something_is_used():
    code = "import catordog, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"catordog {__version__}\n"


def test_trains_help_lists_lightnings_options(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--trainer.max_epochs" in out
    assert "--data.source" in out
    assert "--model.network" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["evaluate"], "required: MODEL, --data"),
        (["evaluate", "m.ckpt"], "required: --data"),
        (["evaluate", "m.ckpt", "--data", "drawn", "--split", "dev"], "invalid choice: 'dev'"),
        (["evaluate", "m.ckpt", "--data", "drawn"], "m.ckpt: no such file"),
        (["predict"], "required: PATH"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, words, says):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert says in err


def test_tracebacks_are_for_those_who_ask(catordog, tmp_path):
    words = ["predict", tmp_path / "nowhere.jpg", "--model", "m.ckpt"]
    assert "Traceback" not in catordog(*words).err
    assert "Traceback" in catordog(*words, "--debug").err


def test_long_work_says_how_fast_it_is_and_how_long_it_will_take(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("catordog.terminal.time.monotonic", lambda: now[0])
    with progress("predicting", 100_500) as done:
        done(501)  # 500 had been done before
        now[0] = 10.0
        done(1500)
        now[0] = 21.0
        done(100_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "predicting: 1,500 of 100,500, 100 a second, 17 min left",
        "predicting: 100,000 of 100,500, 4,738 a second, 0 s left",
    ]
