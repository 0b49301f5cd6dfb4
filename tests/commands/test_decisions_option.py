"""`--decisions F`: every command that reads labels takes those that people have decided on."""

from __future__ import annotations

import csv
import json

import pytest

from catordog.cli import main
from catordog.photos.datasets import open_dataset
from catordog.photos.decisions import Decision, DecisionLog
from catordog.photos.shards import INDEX
from catordog.photos.splits import SplitFractions
from conftest import named, write_folder
from model.tiny_backbone import coloured, colours, write_backbone

LEFT_OUT = "green/0.png"
WRONG = [f"red/{name}.png" for name in ("a", "b", "c")]


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A folder of 43 photos of which 3 have the wrong label, what was decided, and a model."""
    root = tmp_path_factory.mktemp("mislabelled")
    data = colours(root / "colours", red=20, green=20)
    backbone = write_backbone(root)
    words = ["teach", str(data), "--backbone", str(backbone), "--out", str(root / "m.onnx")]
    assert main(words) == 0
    write_folder(data, {name: coloured("green", 90 + i) for i, name in enumerate(WRONG)})
    log = DecisionLog(root / "decisions.jsonl")
    for name in WRONG:
        log.append(Decision(str(data / name), "relabel", label="green", was="red"))
    log.append(Decision(str(data / LEFT_OUT), "leave_out", was="green"))
    return root


def opened(pets, decisions: str | None = None):
    return open_dataset(
        str(pets / "colours"), decisions=None if decisions is None else str(pets / decisions)
    )


def test_evaluate_shows_the_figures_with_and_without_the_decisions(pets, catordog, tmp_path):
    words = ["evaluate", "m.onnx", "--data", "colours", "--split", "all", "--json"]
    decided = ["--decisions", "decisions.jsonl"]
    ended = catordog(*words, tmp_path / "e.json", *decided, cwd=pets)
    assert ended.code == 0, ended.err
    facts = json.loads((tmp_path / "e.json").read_text("utf-8"))
    assert (facts["n"], facts["excluded"], facts["relabelled"]) == (42, 1, 3)
    assert facts["accuracy"] == 1
    assert facts["accuracy_with_excluded"] == 1
    assert facts["accuracy_as_labelled"] == pytest.approx(40 / 43)
    row = "with the dataset's own labels of the 3 relabelled photos, and the excluded ones"
    assert row in ended.out
    assert catordog(*words, tmp_path / "plain.json", cwd=pets).code == 0
    plain = json.loads((tmp_path / "plain.json").read_text("utf-8"))
    assert plain["accuracy"] == pytest.approx(40 / 43)
    assert plain["accuracy_as_labelled"] is None


def test_a_fix_list_relabels_where_its_label_was_changed_and_leaves_the_rest(pets):
    with (pets / "fix.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "suggested", "reason"])
        for name in WRONG:
            rows.writerow([f"colours/{name}", " Green", "green", "probably a wrong label"])
        rows.writerow(["red/1.png", "red", "green", "its label is unchanged"])
        rows.writerow([LEFT_OUT, "", "", "its label is empty"])
    decided = opened(pets, "fix.csv")
    assert decided.photos.labels == opened(pets, "decisions.jsonl").photos.labels
    assert set(decided.relabelled) == set(WRONG)
    assert not decided.excluded
    assert decided.confirmed == set(WRONG)  # nobody has looked at the others


def test_shards_have_the_new_labels_also_if_packing_started_without_them(pets, tmp_path):
    words = ["shard", "--data", str(pets / "colours"), "--out", str(tmp_path / "shards")]
    assert main(words) == 0
    (tmp_path / "shards" / INDEX).unlink()
    assert main([*words, "--decisions", str(pets / "decisions.jsonl")]) == 0
    packed, decided = open_dataset(str(tmp_path / "shards")), opened(pets, "decisions.jsonl")
    kept = decided.split("all", SplitFractions())
    labels = {photo.key(): photo.label for photo in kept}
    assert {photo.key(): photo.label for photo in packed.photos} == labels
    assert len(packed.photos) == 42


def test_audit_leaves_out_and_relabels_and_doubts_no_confirmed_photo(tmp_path, capsys):
    files = {f"{name[:3]}/{name[4:]}": data for name, data in named(16).items()}
    pets = write_folder(tmp_path / "pets", {**files, "dog/also.jpg": files["cat/1.jpg"]})
    words = ["audit", "--data", str(pets), "--no-labels", "--json", str(tmp_path / "a.json")]
    assert main(words) == 0
    assert len(json.loads((tmp_path / "a.json").read_text("utf-8"))["contradictions"]) == 1
    log = DecisionLog(tmp_path / "decisions.jsonl")
    log.append(Decision(str(pets / "dog/also.jpg"), "relabel", label="cat", was="dog"))
    log.append(Decision(str(pets / "cat/0.jpg"), "leave_out", was="cat"))
    assert main([*words, "--decisions", str(log.path)]) == 0
    facts = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert facts["contradictions"] == []
    assert len(facts["exact_copies"]) == 1
    assert (facts["n"], facts["classes"]) == (16, {"cat": 8, "dog": 8})
    assert "1 excluded, 1 relabelled" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["folders", "one folder"])
def test_teach_learns_the_new_labels_and_may_gain_a_class(layout, tmp_path, capsys):
    if layout == "folders":
        data = colours(tmp_path / "colours", red=20, green=20)
        blue = write_folder(data, {f"red/b{i}.png": coloured("blue", 50 + i) for i in range(10)})
        paths = [blue / f"red/b{i}.png" for i in range(10)]
        expected = "learnt 3 classes from 50 photos: 10 blue, 20 green, 20 red"
    else:
        data = write_folder(tmp_path / "red", {f"{name}{i}.png": coloured(name, i)
                            for name in ("red", "blue") for i in range(10)})  # fmt: skip
        paths = [data / f"blue{i}.png" for i in range(10)]
        expected = "learnt 2 classes from 20 photos: 10 blue, 10 red"
    log = DecisionLog(tmp_path / "decisions.jsonl")
    log.append(*(Decision(str(path), "relabel", label="Blue", was="red") for path in paths))
    backbone = write_backbone(tmp_path)
    assert main(["teach", str(data), "--backbone", str(backbone), "--out", str(tmp_path / "m.onnx"),
                 "--decisions", str(log.path)]) == 0  # fmt: skip
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"path": "cat.1.jpg"}\n', "line 1: it has no 'time'"),
        ("", "No such file"),
    ],
)
def test_a_wrong_file_of_decisions_is_refused_in_one_line(tmp_path, catordog, text, reason):
    write_folder(tmp_path / "pets", named(8))
    if text:
        (tmp_path / "d.jsonl").write_text(text)
    ended = catordog(
        "evaluate", "bundled", "--data", "pets", "--decisions", "d.jsonl", cwd=tmp_path
    )
    assert ended.code == 2
    assert reason in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_fix_list_without_labels_or_with_an_unknown_one_is_refused(tmp_path, capsys):
    pets = write_folder(tmp_path / "pets", named(8))
    words = ["shard", "--data", str(pets), "--out", str(tmp_path / "out"), "--decisions"]
    for text, reason in {
        "path,reason\ncat.1.jpg,blurred\n": "it has no column 'label'",
        "path,label\ncat.1.jpg,rabbit\n": "'rabbit', which is no class of",
    }.items():
        (tmp_path / "f.csv").write_text(text)
        assert main([*words, str(tmp_path / "f.csv")]) == 2
        assert reason in capsys.readouterr().err
