from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from catordog.errors import CatordogError
from catordog.escaping import csv_row, encodable, json_text, path_cell, text_cell
from catordog.files import PHOTO_SUFFIXES, atomic_path, atomic_writer, file_name, locked, write_text
from catordog.folders import write_folder
from catordog.outputs import check_folder, check_outputs
from catordog.photos.decode import FORMATS
from conftest import picture, save

posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")


def by_steps(path: Path, text: str) -> None:
    with atomic_writer(path) as file:
        file.write(text)


def by_path(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")


WAYS = pytest.mark.parametrize("write", [write_text, by_steps, by_path])
"""All ways to write a file: at once, step by step, and by another library."""


def test_a_file_is_replaced_atomically(tmp_path):
    path = tmp_path / "new" / "r.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["r.json"]


def test_a_long_file_replaces_the_old_one_when_it_is_complete(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("before")
    with atomic_writer(path) as file:
        file.write("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.csv"]


def test_an_interrupted_run_leaves_its_results_in_a_partial_file(tmp_path, capsys):
    path = tmp_path / "r.csv"

    def interrupted() -> None:
        with atomic_writer(path) as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()
    assert (tmp_path / "r.csv.partial").read_text() == "half"
    assert f"results so far are in {path}.partial" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="needs a device that is always full")
def test_a_full_disk_is_a_one_line_error(tmp_path):
    (tmp_path / "r.csv.partial").symlink_to("/dev/full")
    with (
        pytest.raises(CatordogError, match=r"can't write .*r\.csv: No space left"),
        atomic_writer(tmp_path / "r.csv") as file,
    ):
        file.write("x" * 100_000)


def test_a_path_that_cannot_be_written_is_an_error_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "r.csv", tmp_path):
        with pytest.raises(CatordogError, match="can't write"), atomic_writer(path):
            pytest.fail("the work has started")
    with pytest.raises(CatordogError, match="can't write"):
        write_text(tmp_path / "file" / "r.csv", "x")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_a_csv_file_is_a_formula(start):
    assert path_cell(f"{start}1.jpg") == f"./{start}1.jpg"
    assert text_cell(f"{start}1") == f"'{start}1"
    assert (path_cell("a=1.jpg"), text_cell("a=1")) == ("a=1.jpg", "a=1")


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_line_break_in_a_cell_of_a_csv_file_starts_no_row(end):
    cells = [f"a{end}=1+1.png", "plain", 'a "quoted", one', "ü"]
    text = csv_row(cells)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [cells]
    assert text == f'"a{end}=1+1.png",plain,"a ""quoted"", one",ü\n'


@pytest.mark.parametrize("letter", ["x", "ü", "🐈", "\udce9"])
def test_a_long_stem_is_shortened_and_its_tail_stays(letter):
    name = file_name(letter * 300, " (2).jpg")
    assert name.endswith(f"{letter} (2).jpg")
    assert 251 < len(os.fsencode(name)) <= 255
    assert file_name(letter, " (2).jpg") == f"{letter} (2).jpg"


@pytest.mark.parametrize("writer", [atomic_path, atomic_writer])
def test_an_error_of_another_file_names_that_file(tmp_path, writer):
    other = tmp_path / "model.onnx"
    for error in (FileNotFoundError(2, "No such file", str(other)), OSError(5, "I/O", str(other))):
        with (
            pytest.raises(CatordogError, match=rf"^{re.escape(str(other))}: {error.strerror}$"),
            writer(tmp_path / "r.csv"),
        ):
            raise error
    with pytest.raises(CatordogError, match=r"^can't write .*r\.csv: full$"):  # noqa: SIM117
        with writer(tmp_path / "r.csv"):
            raise OSError(28, "full")


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_folder_whose_replacement_is_interrupted_is_the_old_one(
    tmp_path, monkeypatch, step, error
):
    """Ctrl-C or an error right after the old folder has been moved away, or right before it."""
    folder = tmp_path / "m"
    write_folder(folder, {"f": b"old"})
    rename, calls = Path.rename, []

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 1 == step:
            rename(path, target)
        if len(calls) == step:
            raise error
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else CatordogError):
            write_folder(folder, {"f": b"new"})
    assert (folder / "f").read_bytes() == b"old"
    write_folder(folder, {"f": b"new"})
    assert (folder / "f").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [folder]


class TestOtherThanFiles:
    @WAYS
    def test_the_file_behind_a_link_is_replaced_and_the_link_stays(self, tmp_path, write):
        target, link = tmp_path / "there" / "r.csv", tmp_path / "r.csv"
        target.parent.mkdir()
        link.symlink_to("there/r.csv")
        for text in ("new", "newer"):  # first, the link leads nowhere
            write(link, text)
            assert link.is_symlink()
            assert target.read_text() == text
        assert [entry.name for entry in target.parent.iterdir()] == ["r.csv"]

    @WAYS
    def test_a_link_to_itself_is_a_one_line_error(self, tmp_path, write):
        link = tmp_path / "r.csv"
        link.symlink_to(link)
        with pytest.raises(CatordogError, match=r"can't write .*r\.csv: .*links"):
            write(link, "x")
        assert link.is_symlink()

    @posix
    @WAYS
    def test_a_fifo_gets_the_content_and_stays_a_fifo(self, tmp_path, write):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        writer = threading.Thread(target=write, args=(fifo, "übung"), daemon=True)
        writer.start()
        assert fifo.read_text("utf-8") == "übung"
        writer.join(60)
        assert stat.S_ISFIFO(fifo.stat().st_mode)
        assert [entry.name for entry in tmp_path.iterdir()] == ["fifo"]

    @posix
    @WAYS
    def test_a_device_stays_a_device(self, tmp_path, write):
        null = tmp_path / "null"
        try:
            os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            null.write_text("")
        except OSError:
            pytest.skip("only root can create devices")
        write(null, "x")
        assert stat.S_ISCHR(null.stat().st_mode)
        assert [entry.name for entry in tmp_path.iterdir()] == ["null"]

    @posix
    @pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
    def test_an_open_file_is_written_into_even_if_it_leads_to_a_file(self, tmp_path, name):
        if not os.path.lexists(name):
            pytest.skip(f"no {name} here")
        code = (
            "import sys; from pathlib import Path; from catordog.files import write_text\n"
            "print('before'); write_text(Path(sys.argv[1]), 'content\\n'); print('after')"
        )
        with (tmp_path / "out").open("w") as file:
            subprocess.run([sys.executable, "-c", code, name], stdout=file, check=True)
        assert (tmp_path / "out").read_text() == "before\ncontent\nafter\n"

    @posix
    def test_a_descriptor_that_is_not_open_is_a_one_line_error(self):
        with pytest.raises(CatordogError, match="can't write /dev/fd/999"):
            check_outputs({"--json": "/dev/fd/999"})

    @WAYS
    def test_an_existing_file_keeps_its_permissions(self, tmp_path, write):
        path = tmp_path / "r.csv"
        path.write_text("before")
        path.chmod(0o600)
        write(path, "after")
        assert path.read_text() == "after"
        if os.name != "nt":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("write", [write_text, by_path])
    def test_a_name_may_be_as_long_as_the_file_system_allows(self, tmp_path, write):
        path = tmp_path / ("n" * 250 + ".json")
        write(path, "x")
        assert path.read_text() == "x"
        with locked(path, "busy"):
            pass

    @WAYS
    def test_names_that_no_file_can_have_are_one_line_errors(self, tmp_path, write):
        for name in ("n" * 300, "a\0b"):
            with pytest.raises(CatordogError, match="can't write"):
                write(tmp_path / name, "x")
            with pytest.raises(CatordogError, match="can't write"):
                check_outputs({"--json": tmp_path / name})
        assert list(tmp_path.iterdir()) == []


class TestCheckingOutputs:
    @pytest.fixture
    def data(self, tmp_path):
        (tmp_path / "data" / "cat").mkdir(parents=True)
        (tmp_path / "data" / "cat" / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
        (tmp_path / "data" / "labels.csv").write_text("path,label\ncat/1.jpg,cat\n")
        (tmp_path / "data" / "old.csv").write_text("path,label,confidence,confidence_cat\n")
        (tmp_path / "data" / "old.txt").write_text("                confidence   logits\n")
        (tmp_path / "data" / "old.json").write_text("{}")
        (tmp_path / "m.onnx").write_bytes(b"model")
        (tmp_path / "link.onnx").symlink_to("m.onnx")
        (tmp_path / "d.zip").write_bytes(b"PK")
        return tmp_path

    @pytest.mark.parametrize(
        ("output", "source"),
        [
            ("m.onnx", "m.onnx"),
            ("link.onnx", "m.onnx"),
            ("m.onnx", "link.onnx"),
            ("d.zip", "d.zip"),
            ("d.zip", "*.zip"),
            ("data/cat/1.jpg", "data/cat/1.jpg"),
            ("data/cat/1.jpg", "data/cat/*.jpg"),
            ("data/cat/1.jpg", "data"),
            ("data/../data/cat/1.jpg", "data"),
            ("data/labels.csv", "data"),
        ],
    )
    def test_an_output_that_is_an_input_is_refused(self, data, monkeypatch, output, source):
        monkeypatch.chdir(data)
        before = (data / output).read_bytes()
        for one, other in ((output, source), (data / output, source), (output, data / source)):
            with pytest.raises(CatordogError, match=r"--json .* would replace an input"):
                check_outputs({"--json": one}, ["drawn", None, other])
        assert (data / output).read_bytes() == before

    @pytest.mark.parametrize(
        "output", ["data/new.json", "data/old.csv", "data/old.txt", "data/old.json", "m.onnx"]
    )
    def test_new_files_and_earlier_results_may_lie_among_the_photos(self, data, output):
        check_outputs({"--json": data / output}, [data / "data", data / "d.zip", "drawn"])

    @pytest.mark.parametrize("suffix", sorted(PHOTO_SUFFIXES))
    def test_an_output_that_has_the_name_of_a_photo_is_refused(self, tmp_path, suffix):
        for name in (f"new{suffix}", f"NEW{suffix.upper()}"):
            with pytest.raises(CatordogError, match=rf"--csv .*{name} is a photo, or has the name"):
                check_outputs({"--csv": tmp_path / name})
            check_outputs({"--out": tmp_path / name}, pictures=True)

    @pytest.mark.parametrize("form", FORMATS)
    def test_an_output_that_has_the_content_of_a_photo_is_refused(self, tmp_path, form):
        for name in ("photo", "r.csv"):
            (tmp_path / name).write_bytes(save(picture(1), form))
            with pytest.raises(CatordogError, match=rf"{name} is a photo, or has the name of one"):
                check_outputs({"--csv": tmp_path / name})
        (tmp_path / "r.csv").write_bytes(b"BM,label\n")
        check_outputs({"--csv": tmp_path / "r.csv"})

    def test_two_outputs_in_one_file_are_refused(self, data):
        with pytest.raises(CatordogError, match=r"--json and --html are both .*: give two files"):
            check_outputs({"--json": data / "r", "--csv": None, "--html": data / "data/../r"})

    @posix
    def test_two_outputs_may_go_to_one_device(self):
        check_outputs({"--json": "/dev/null", "--html": "/dev/null"}, ["/dev/null"])

    def test_what_cannot_be_written_is_refused_and_nothing_is_created(self, data):
        names = ["data", "new/", "m.onnx/r.json", "m.onnx/deep/r.json"]
        for name in names:
            with pytest.raises(CatordogError, match="can't write"):
                check_outputs({"--json": f"{data}/{name}"})
        with pytest.raises(CatordogError, match=r"^--json '': the name is empty"):
            check_outputs({"--json": ""})
        with pytest.raises(CatordogError, match=r"^--sort-into '': the name is empty"):
            check_folder("--sort-into", "")
        with pytest.raises(CatordogError, match="can't put files into"):
            check_folder("--sort-into", data / "m.onnx" / "sorted")
        before = sorted(data.rglob("*"))
        check_outputs({"--json": data / "new" / "deep" / "r.json"})
        check_folder("--sort-into", data / "new")
        assert sorted(data.rglob("*")) == before

    @pytest.mark.skipif(os.name == "nt" or not os.geteuid(), reason="root may write anywhere")
    def test_read_only_files_and_folders_are_refused(self, data):
        (data / "m.onnx").chmod(0o400)
        (data / "data").chmod(0o500)
        for name in ("m.onnx", "data/r.json", "data/new/r.json"):
            with pytest.raises(CatordogError, match="Permission denied"):
                check_outputs({"--json": data / name})
        (data / "data").chmod(0o700)


def test_one_process_at_a_time_writes_a_locked_file(tmp_path):
    path = tmp_path / "r.csv"
    (tmp_path / "link.csv").symlink_to(path)
    code = (
        "import sys; from pathlib import Path; from catordog.files import locked\n"
        "with locked(Path(sys.argv[1]), 'busy'): print('mine')"
    )

    def other(name: str) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        return (ended.stdout + ended.stderr.rpartition("Error: ")[2]).strip()

    with locked(path, "busy"):
        assert other("r.csv") == "busy"
        assert other("link.csv") == "busy"
        assert other("another.csv") == "mine"
    assert other("r.csv") == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["link.csv"]


def test_paths_that_are_not_utf8_are_escaped():
    assert encodable("caf\udce9.jpg") == "caf\\xe9.jpg"
    assert encodable(Path("übung 🐈.jpg")) == "übung 🐈.jpg"
    assert encodable("\ud800") == "\\ud800"


@pytest.mark.parametrize("write", [write_text, by_steps])
def test_text_that_is_not_utf8_can_be_written(tmp_path, write):
    write(tmp_path / "r", "caf\udce9")
    assert (tmp_path / "r").read_bytes() == b"caf\\xe9"


def test_json_is_valid_utf8_whatever_the_names():
    value = {"caf\udce9": ["\udcff\n", "🐈", "\\"]}
    text = json_text(value, indent=1)
    assert json.loads(text.encode()) == {"caf\\xe9": ["\\xff\n", "🐈", "\\"]}
