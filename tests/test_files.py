from __future__ import annotations

import sys

import pytest

from catordog.errors import CatordogError
from catordog.files import atomic_writer, path_cell, text_cell, write_text


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
