"""Decisions about photos: none is lost, the last one counts, and a dataset follows them."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from catordog.errors import CatordogError
from catordog.photos.datasets import open_dataset
from catordog.photos.decisions import Decision, DecisionLog, DecisionSummary, apply, read_decisions
from catordog.photos.splits import SplitFractions
from conftest import named, write_folder, write_zip


@pytest.fixture
def pets(tmp_path):
    files = {f"{name[:3]}/{name[4:]}": data for name, data in named(12).items()}
    return write_folder(tmp_path / "pets", files)


@pytest.fixture
def log(tmp_path):
    return DecisionLog(tmp_path / "decisions.jsonl")


def relabel(path: object, label: str = "dog") -> Decision:
    return Decision(str(path), "relabel", label=label, was="cat", queue="suspect labels")


def labels_of(dataset) -> dict[str, str]:
    return {photo.name: dataset.classes[photo.label] for photo in dataset.photos}


def test_the_last_decision_about_a_path_counts_and_all_are_in_the_history(log):
    first, other = relabel("a.jpg"), Decision("b.jpg", "leave_out", was="cat")
    again, undone = Decision("a.jpg", "keep", label="cat", was="cat"), Decision("b.jpg", "clear")
    log.append(first, other)
    log.append(again)
    log.append(undone)
    assert read_decisions(log.path) == log.decisions() == {"a.jpg": again, "b.jpg": undone}
    assert log.history() == [first, other, again, undone]
    assert log.history("a.jpg") == [first, again]


def test_a_line_has_the_keys_that_other_programs_read(log):
    log.append(relabel("größe\n\udce9.jpg"))
    (line,) = log.path.read_text().splitlines()
    values = json.loads(line)
    assert list(values) == ["time", "path", "action", "label", "was", "queue"]
    assert values["path"] == "größe\n\\xe9.jpg"
    assert values["action"] == "relabel"
    assert (values["label"], values["was"], values["queue"]) == ("dog", "cat", "suspect labels")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", values["time"])


@pytest.mark.parametrize("torn", [b'{"time": "2026', b"{", b'{"path": "caf\xc3', b"\0\0\0"])
def test_what_a_crash_leaves_of_a_line_is_ignored_now_and_after_the_next_decision(log, torn):
    log.append(relabel("a.jpg"))
    with log.path.open("ab") as file:
        file.write(torn)
    assert list(log.decisions()) == ["a.jpg"]
    log.append(relabel("b.jpg"))
    log.append(relabel("c.jpg"))
    assert list(log.decisions()) == ["a.jpg", "b.jpg", "c.jpg"]
    assert torn in log.path.read_bytes()


def test_a_complete_line_without_its_end_counts(log):
    log.append(relabel("a.jpg"))
    log.path.write_bytes(log.path.read_bytes().rstrip(b"\n"))
    log.append(relabel("b.jpg"))
    assert list(log.decisions()) == ["a.jpg", "b.jpg"]


GOOD = relabel("a.jpg").to_json()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "it is no JSON"),
        ("[1]", "it is no JSON object"),
        ("[" * 100_000, "it is no JSON|nested too deeply"),
        (GOOD.replace('"relabel"', '"delete"'), "its action is 'delete', not keep, relabel"),
        (GOOD.replace('"a.jpg"', '""'), "it has no path"),
        (GOOD.replace('"a.jpg"', "3"), "it has no path"),
        (GOOD.replace('"path"', '"name"'), "it has no 'path'"),
        (GOOD.replace('"dog"', "null"), "it relabels, but has no label"),
        (GOOD.replace('"dog"', "[]"), "its time, label, was or queue is no text"),
        (GOOD.replace('"relabel"', '"skip"'), "its action is 'skip', which takes no label"),
        (json.dumps({**json.loads(GOOD), "time": "yesterday"}), "yesterday"),
        ('"caf\\udce9', "it is no JSON"),
    ],
)
def test_any_other_broken_line_is_named_in_one_line(log, line, reason):
    log.path.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(CatordogError, match=rf"decisions\.jsonl, line 2: .*({reason})") as error:
        log.decisions()
    assert "\n" not in str(error.value)


def test_a_file_that_an_editor_has_saved_is_read(log):
    log.path.write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n\r\n{GOOD}\r\n".encode())
    assert list(log.decisions()) == ["a.jpg"]


def test_a_file_that_is_too_large_or_missing_is_refused(log, tmp_path):
    with log.path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(CatordogError, match="1,024 MiB, and a file of decisions at most 256"):
        log.decisions()
    with pytest.raises(CatordogError, match=r"can't read .*none\.jsonl: No such file"):
        read_decisions(tmp_path / "none.jsonl")


def test_a_decision_that_cannot_be_stored_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CatordogError, match=r"can't write .*: the last decision is not stored"):
        DecisionLog(tmp_path / "file" / "decisions.jsonl").append(relabel("a.jpg"))


WRITER = """
import sys
from catordog.photos.decisions import Decision, DecisionLog
log = DecisionLog(sys.argv[1])
for number in range(int(sys.argv[3])):
    log.append(Decision(f"{sys.argv[2]}{number}", "skip", queue="x" * 3000))
    print(number, flush=True)
"""


def writer(log: DecisionLog, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(log.path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_lose_nothing_of_each_other(log):
    both = [writer(log, name, 100) for name in "ab"]
    for process in both:
        process.communicate()
    paths = [decision.path for decision in log.history()]
    assert sorted(paths) == sorted(f"{name}{number}" for name in "ab" for number in range(100))
    for name in "ab":
        assert [x for x in paths if x[0] == name] == [f"{name}{number}" for number in range(100)]


def test_a_killed_process_has_lost_nothing_that_it_had_stored(log):
    with writer(log, "a", 10_000) as process:
        assert process.stdout
        seen = [process.stdout.readline() for _ in range(20)]
        process.kill()
    log.append(relabel("after.jpg"))
    paths = list(log.decisions())
    assert paths[: len(seen)] == [f"a{number}" for number in range(len(seen))]
    assert paths[-1] == "after.jpg"


def test_a_dataset_has_the_new_labels_and_lists_what_is_left_out(pets, log):
    log.append(
        relabel(pets / "cat/0.jpg", "Dog"),
        Decision(str(pets / "cat/1.jpg"), "leave_out", was="cat"),
        Decision(str(pets / "dog/2.jpg"), "keep", label="dog", was="dog"),
        relabel(pets / "dog/3.jpg", "dog"),
        relabel(pets / "dog/4.jpg", "cat"),
        Decision(str(pets / "dog/4.jpg"), "clear"),
        Decision(str(pets / "dog/5.jpg"), "skip"),
        relabel(pets / "gone.jpg"),
    )
    plain = open_dataset(str(pets))
    decided, summary = apply(plain, log.decisions(), log.path)
    changed = {
        name for name, label in labels_of(decided).items() if labels_of(plain)[name] != label
    }
    assert changed == set(summary.relabelled) == {"cat/0.jpg"}
    assert labels_of(decided)["cat/0.jpg"] == "dog"
    assert decided.excluded == set(summary.left_out) == {"cat/1.jpg"}
    assert set(summary.kept) == {"dog/2.jpg", "dog/3.jpg"}
    assert summary.not_found == (str(pets / "gone.jpg"),)
    assert decided.confirmed == {"cat/0.jpg", "dog/2.jpg", "dog/3.jpg"}
    assert "1 excluded, 1 relabelled" in decided.summary()
    assert plain.own_label(0) == decided.own_label(0)


def test_a_relabelled_photo_stays_in_its_split(pets, log):
    log.append(*(relabel(pets / f"cat/{number}.jpg") for number in range(4)))
    plain = open_dataset(str(pets))
    decided, _ = apply(plain, log.decisions(), log.path)
    fractions = SplitFractions(0.2, 0.2)
    assert decided.splits(fractions) == plain.splits(fractions)


@pytest.mark.parametrize(
    "form", ["{root}/{name}", "{name}", "pets/{name}", "./pets/../pets/{name}"]
)
def test_paths_match_as_those_of_exclude_do(pets, log, form):
    log.append(relabel(form.format(root=pets, name="cat/1.jpg")))
    with contextlib.chdir(pets.parent):
        _, summary = apply(open_dataset("pets"), log.decisions(), log.path)
    assert summary.relabelled == ("cat/1.jpg",)


def test_of_two_paths_of_one_photo_the_last_decision_counts(pets, log):
    dataset = open_dataset(str(pets))
    log.append(relabel(pets / "cat/1.jpg"))
    log.append(Decision("cat/1.jpg", "clear"))
    assert apply(dataset, log.decisions(), log.path)[1].relabelled == ()
    log.append(Decision(str(pets / "cat/1.jpg"), "leave_out"))
    assert apply(dataset, log.decisions(), log.path)[1].left_out == ("cat/1.jpg",)


def test_photos_in_an_archive_are_found(pets, log):
    files = {str(path.relative_to(pets)): path.read_bytes() for path in pets.rglob("*.jpg")}
    archive = write_zip(pets.parent / "pets.zip", files)
    dataset = open_dataset(str(archive))
    log.append(relabel(next(photo.path for photo in dataset.photos if photo.name == "cat/2.jpg")))
    assert apply(dataset, log.decisions(), log.path)[1].relabelled == ("cat/2.jpg",)


def test_a_class_that_no_photo_has_is_an_error_unless_new_ones_are_allowed(pets, log):
    log.append(relabel(pets / "cat/0.jpg", "Alpaca"))
    dataset = open_dataset(str(pets))
    with pytest.raises(CatordogError, match=r"'alpaca', which is no class of .*: it has cat, dog"):
        apply(dataset, log.decisions(), log.path)
    decided, _ = apply(dataset, log.decisions(), log.path, new_classes=True)
    assert decided.classes == ("alpaca", "cat", "dog")
    expected = {**labels_of(dataset), "cat/0.jpg": "alpaca"}
    assert labels_of(decided) == expected


def test_decisions_about_another_dataset_are_refused(pets, log):
    log.append(relabel("elsewhere/1.jpg"))
    with pytest.raises(CatordogError, match="none of its 1 paths is in"):
        apply(open_dataset(str(pets)), log.decisions(), log.path)


def test_no_decisions_change_nothing(pets, log):
    decided, summary = apply(open_dataset(str(pets)), log.decisions(), Path("none"))
    assert labels_of(decided) == labels_of(open_dataset(str(pets)))
    assert summary == DecisionSummary()


def test_a_reader_that_follows_the_file_sees_each_decision_once(log):
    assert log.since(0) == ([], 0)
    log.append(relabel("a.jpg"), relabel("b.jpg"))
    found, offset = log.since(0)
    assert [each.path for each in found] == ["a.jpg", "b.jpg"]
    with log.path.open("ab") as file:
        file.write(b'{"time": "2026')  # a crash
    assert log.since(offset) == ([], offset)
    log.append(relabel("c.jpg"))
    found, offset = log.since(offset)
    assert [each.path for each in found] == ["c.jpg"]
    assert offset == log.path.stat().st_size


@pytest.mark.parametrize("content", [b'{"a": 1, "photos": ["q"]}', b"no JSON at all"])
def test_a_file_of_something_else_is_not_taken_for_an_empty_one(log, content):
    log.path.write_bytes(content)
    with pytest.raises(CatordogError, match="line 1: "):
        log.decisions()
    assert log.path.read_bytes() == content
