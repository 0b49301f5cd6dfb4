"""The demo: each step is a command to copy."""

from __future__ import annotations

import shlex

import pytest
from PIL import Image

from catordog.cli import main
from catordog.commands import demo
from catordog.errors import CatordogError
from conftest import jpeg


@pytest.mark.slow
def test_it_evaluates_and_predicts_with_the_model_that_it_has_trained(
    drawn_run, tmp_path, monkeypatch, capfd
):
    def trained(*options: str) -> list[str]:  # the fixture has done this already
        assert options == ("--config", "drawn.yaml")
        words = shlex.split(drawn_run.ended.out)
        words[2] = str(drawn_run.checkpoint)
        return words

    monkeypatch.setattr(demo, "_train", trained)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", "pictures"]) == 0
    out, err = capfd.readouterr()
    commands = [line[2:] for line in err.splitlines() if line.startswith("$ ")]
    assert [shlex.split(command)[:2] for command in commands] == [
        ["catordog", "evaluate"],
        ["catordog", "predict"],
    ]
    assert f"--data {shlex.split(drawn_run.ended.out)[4]} --split test" in commands[0]

    made = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert len(made) == 12
    rows = {name: line for line in out.splitlines() for name in made if name in line}
    assert set(rows) == {*made}, "eleven have a row, and the contact sheet is named"
    for name in made:
        for animal in ("cat", "dog"):
            if name.startswith(animal):
                assert animal in rows[name].replace(name, "")
    assert "cat" in rows["morph-0-of-6.png"]
    assert "dog" in rows["morph-6-of-6.png"]
    assert f"catordog predict PHOTOS --model {drawn_run.checkpoint}" in out
    with Image.open(tmp_path / "pictures" / "contact-sheet.png") as sheet:
        assert sheet.size == (12 * 98, 8 * 98)


def test_a_step_that_fails_is_named(capfd):
    with pytest.raises(CatordogError, match="'catordog predict' failed with exit code 2"):
        demo._catordog("predict", "nowhere.jpg")
    assert "nowhere.jpg" in capfd.readouterr().err


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(CatordogError, match="taken/pictures"):
        demo.draw_new_pictures(tmp_path / "taken" / "pictures")


def test_only_its_own_pictures_are_replaced(tmp_path):
    drawn = {path: path.read_bytes() for path in demo.draw_new_pictures(tmp_path)}
    assert {path: path.read_bytes() for path in demo.draw_new_pictures(tmp_path)} == drawn
    mine = tmp_path / "dog-1.png"
    mine.write_bytes(jpeg(1))
    (tmp_path / "cat-0.png").unlink()
    with pytest.raises(CatordogError, match=r"dog-1\.png exists and was not drawn by 'catordog"):
        demo.draw_new_pictures(tmp_path)
    assert mine.read_bytes() == jpeg(1)
    assert not (tmp_path / "cat-0.png").exists()
