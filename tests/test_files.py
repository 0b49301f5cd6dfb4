from __future__ import annotations

import sys

import pytest

from catordog.errors import CatordogError
from catordog.files import atomic_writer, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "r.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["r.json"]


def test_a_long_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("before")
    with atomic_writer(path) as file:
        file.write("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.csv"]


def test_what_was_done_before_a_break_is_kept_beside_it(tmp_path, capsys):
    path = tmp_path / "r.csv"

    def interrupted() -> None:
        with atomic_writer(path) as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()
    assert (tmp_path / "r.csv.partial").read_text() == "half"
    assert "r.csv.partial" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="needs a device that is always full")
def test_a_full_disk_is_one_clear_error(tmp_path):
    (tmp_path / "r.csv.partial").symlink_to("/dev/full")
    with (
        pytest.raises(CatordogError, match=r"can't write .*r\.csv: No space left"),
        atomic_writer(tmp_path / "r.csv") as file,
    ):
        file.write("x" * 100_000)


def test_what_cannot_be_written_is_known_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "r.csv", tmp_path):
        with pytest.raises(CatordogError, match="can't write"), atomic_writer(path):
            pytest.fail("the work has begun")
    with pytest.raises(CatordogError, match="can't write"):
        write_text(tmp_path / "file" / "r.csv", "x")
