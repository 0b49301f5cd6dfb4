from __future__ import annotations

import subprocess
import sys

import pytest

from catordog import __version__
from catordog.cli import COMMANDS, main, options_of
from catordog.errors import CatordogError
from catordog.terminal import progress

HELPS = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys; from catordog.cli import main; code = main(sys.argv[1:]); "
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout
    packages = set(ended.stderr.split()) - sys.stdlib_module_names - {"catordog"}
    assert not packages & {
        *("PIL", "fastapi", "jinja2", "jsonargparse", "lightning", "matplotlib", "numpy"),
        *("onnxruntime", "pyarrow", "ray", "rich", "scipy", "sklearn", "torch", "torchvision"),
    }


def test_import_catordog_costs_nothing_until_something_is_used():
    code = "import catordog, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]


def test_help_lists_every_command_in_aligned_columns(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("commands:") + 1
    listed = lines[start : start + len(COMMANDS)]
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    columns = {line.index(summary) for line, summary in zip(listed, COMMANDS.values(), strict=True)}
    assert len(columns) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    entries = out.split("\noptions:\n")[1].split("\n  -")
    assert len(entries) > 2
    assert all(len(entry.split()) > 2 for entry in entries), entries


def test_old_option_names_work_but_are_hidden(capsys):
    assert "--engine" in options_of("predict")
    assert main(["predict", "--help"]) == 0
    assert "--engine" not in capsys.readouterr().out
    assert main(["predict", "a.jpg", "--engine", "ray"]) == 2
    assert "--backend ray writes Parquet" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_exits_with_0_and_prints_to_stdout(words, capsys):
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: catordog")
    assert err == ""


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"catordog {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command given"),
        (["pedict"], "no command 'pedict'; did you mean 'predict'? (see catordog --help)"),
        (["xyz"], "no command 'xyz' (see catordog --help)"),
        (["--verison"], "no option '--verison'; did you mean '--version'?"),
        (["predict", "a.jpg", "--formt", "csv"], "no option '--formt'; did you mean '--format'?"),
        (["calibrate", "m.ckpt", "--data", "drawn", "x"], "unexpected argument 'x'"),
        (["evaluate"], "required: MODEL, --data"),
        (["evaluate", "m.ckpt"], "required: --data"),
        (["evaluate", "m.ckpt", "--data", "drawn", "--split", "dev"], "invalid choice: 'dev'"),
        (["evaluate", "m.ckpt", "--data", "drawn"], "m.ckpt: no such file"),
        (["predict"], "required: PATH"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(capsys, words, message):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_only_debug_shows_a_traceback(tmp_path, capsys):
    words = ["predict", str(tmp_path / "nowhere.jpg")]
    assert main(words) == 2
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(CatordogError, match="nowhere"):
        main([*words, "--debug"])


def test_progress_reports_the_rate_and_the_time_left_of_a_resumed_run(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("catordog.terminal.time.monotonic", lambda: now[0])
    with progress("predicting", 100_500) as done:
        done(501)  # 500 were done before
        now[0] = 10.0
        done(1500)
        now[0] = 21.0
        done(100_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "predicting: 1,500 of 100,500, 100 a second, 17 min left",
        "predicting: 100,000 of 100,500, 4,738 a second, 0 s left",
    ]
