from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from catordog import __version__
from catordog.cli import COMMANDS, main, options_of
from catordog.terminal import info, no_repeats, progress
from conftest import CATORDOG, jpeg, write_folder

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
    assert main([*words, "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "CatordogError" in err
    assert "nowhere" in err


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


ENCODINGS = ("cp1252", "cp437", "cp850", "ascii", "utf-8")
"""Of pipes: the first three on Windows, by country."""


def run(*words: object, encoding: str = "utf-8", **options) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*CATORDOG, *map(str, words)], env=env, check=False, **options)


class TestStreams:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_any_text_can_be_printed_in_any_encoding(self, encoding):
        ended = run("softmax", -1, 2, "--names", "mačka", "犬", encoding=encoding)
        assert ended.returncode == 0, ended.stderr
        title, first, second, _ = ended.stdout.decode(encoding).splitlines()
        minus = "−" if encoding == "utf-8" else "-"
        assert f"e^(logit {minus} 2)" in title
        assert first.split()[0] == ("mačka" if encoding == "utf-8" else "ma\\u010dka")
        assert second.split()[0] == ("犬" if encoding == "utf-8" else "\\u72ac")

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_errors_and_help_can_be_printed_in_any_encoding(self, encoding):
        ended = run("predict", "nirgends−.jpg", encoding=encoding)
        assert ended.returncode == 2
        name = "nirgends−.jpg" if encoding == "utf-8" else "nirgends-.jpg"
        expected = f"catordog: error: {name}: no such file or folder"
        assert ended.stderr.decode(encoding).splitlines() == [expected]
        for command in ("predict", "train"):
            assert run(command, "--help", encoding=encoding).returncode == 0

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
    def test_a_name_that_is_not_utf8_can_be_printed(self):
        ended = run("predict", os.fsdecode(b"caf\xe9.jpg"))
        assert ended.returncode == 2
        assert b"caf\\xe9.jpg: no such file" in ended.stderr

    @pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
    @pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
    def test_closed_streams_do_no_harm(self, tmp_path, closed):
        write_folder(tmp_path, {"a.jpg": jpeg(0), "broken.jpg": b"no photo"})
        command = shlex.join([*CATORDOG, "predict", str(tmp_path), "--format", "jsonl"])
        for words, code in (("", 1), (f" --out {tmp_path}/r.jsonl", 1), (" nowhere.jpg", 2)):
            ended = subprocess.run(
                ["sh", "-c", f"{command}{words} {closed}"], capture_output=True, check=False
            )
            assert ended.returncode == code
            assert b"Traceback" not in ended.stderr
            assert b"Exception" not in ended.stderr
        assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 2

    def test_missing_streams_do_no_harm(self, tmp_path):
        write_folder(tmp_path, {"a.jpg": jpeg(0)})
        code = (  # as pythonw of Windows
            "import sys; sys.stdin = sys.stdout = sys.stderr = None\n"
            "from catordog.cli import entry; entry()"
        )
        out = tmp_path / "r.jsonl"
        words = ["predict", str(tmp_path / "a.jpg"), "--format", "jsonl", "--out", str(out)]
        for further, returned in (([], 0), (["nowhere.jpg"], 2)):
            ended = subprocess.run(
                [sys.executable, "-c", code, *words, *further], capture_output=True, check=False
            )
            assert (ended.returncode, ended.stdout, ended.stderr) == (returned, b"", b"")
        assert len(out.read_text().splitlines()) == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a device that is always full")
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize("words", [["softmax", "1", "2"], ["--help"]])
    def test_a_full_disk_behind_stdout_is_a_one_line_error(self, monkeypatch, words, unbuffered):
        monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            ended = run(*words, stdout=full)
        assert ended.returncode == 2
        message = b"catordog: error: can't write the results: No space left on device\n"
        assert ended.stderr == message

    @pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
    def test_a_reader_of_stderr_that_ends_does_not_end_the_work(self, tmp_path):
        write_folder(tmp_path, {"a.jpg": jpeg(0), "b.jpg": b"no photo"})
        out = tmp_path / "r.jsonl"
        words = ["predict", str(tmp_path), "--format", "jsonl", "--out", str(out)]
        ended = subprocess.run(
            ["sh", "-c", f"({shlex.join([*CATORDOG, *words])}; echo $? >{tmp_path}/code) 2>&1 | :"],
            check=False,
        )
        assert ended.returncode == 0
        assert (tmp_path / "code").read_text() == "1\n"
        assert len(out.read_text().splitlines()) == 2


def test_home_is_expanded_where_shells_do_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(write_folder(tmp_path / "work", {"a.jpg": jpeg(0)}))
    write_folder(tmp_path, {"b.jpg": jpeg(1)})
    words = ["--format=csv", "--out=~/r.csv", "--sort-into=~/sorted", "--accept=1"]
    assert main(["predict", "a.jpg", "~/b.jpg", *words]) == 0
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3
    assert len(list((tmp_path / "sorted").rglob("*.jpg"))) == 2
    assert [entry.name for entry in (tmp_path / "work").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "~/none.ckpt", "--data=drawn"],
        ["predict", "a.jpg", "--model=~/none.ckpt"],
        ["compare", "--data=~/none.ckpt", "bundled", "bundled"],
    ],
)
def test_home_is_expanded_in_models_and_data(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(write_folder(tmp_path / "work", {"a.jpg": jpeg(0)}))
    assert main(words) == 2
    assert str(tmp_path / "none.ckpt") in capsys.readouterr().err


def test_lines_of_repeated_scans_are_printed_when_they_are_new(capsys):
    lines: list[str] = []
    for scan in (["a", "b"], ["a", "b"], ["b"], ["a", "b"]):
        with no_repeats(lines):
            for line in scan:
                info(line)
    assert capsys.readouterr().err.split() == ["a", "b", "a"]
