"""`catordog audit` finds problems in a folder; its fix list is for `--exclude`."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from catordog.cli import main
from catordog.evaluation.audit import audit
from catordog.photos.datasets import open_dataset
from catordog.photos.decisions import Decision, DecisionLog
from conftest import jpeg, picture, save, write_folder


def photo(seed: int, **options: object) -> bytes:
    return save(picture(seed), "JPEG", **{"quality": 90, **options})


@pytest.fixture
def dirty(tmp_path):
    """A folder with one of each flaw, and twelve good photos."""
    files = {f"{name}/{i}.jpg": photo(100 * label + i)
             for label, name in enumerate(["Cat", "Dog"]) for i in range(6)}  # fmt: skip
    files |= {
        "Cat/copy.jpg": photo(0),
        "Dog/smaller.jpg": save(picture(101).resize((40, 30)), "JPEG", quality=60),
        "Dog/mirrored.png": save(ImageOps.mirror(picture(102)), "PNG"),
        "Dog/also a cat.jpg": photo(3),
        "Cat/666.jpg": b"",
        "Dog/11702.jpg": photo(150)[:900],
        "Dog/<b>page & more.jpg": b"<html><body>404</body></html>",
        "Cat/blank.png": save(Image.new("RGB", (64, 48), "teal"), "PNG"),
        "Cat/blank too.png": save(Image.new("RGB", (64, 48), "navy"), "PNG"),
        "Cat/tiny.png": save(picture(160, (16, 12)), "PNG"),
        "Dog/long.png": save(picture(170, (400, 40)), "PNG"),
        "Dog/called.jpg": save(picture(180), "PNG"),
    }
    return write_folder(tmp_path / "dirty", files)


@pytest.fixture
def audited(dirty, tmp_path, capsys):
    files = [tmp_path / name for name in ("a.json", "a.html", "fix.csv")]
    words = ["--json", str(files[0]), "--html", str(files[1]), "--fix-list", str(files[2])]
    assert (
        main(["audit", "--data", str(dirty), "--no-labels", *words]) == 1
    )  # some photos can't be read
    return json.loads(files[0].read_text("utf-8")), *files[1:], capsys.readouterr()


def short(groups):
    return [{"/".join(path.split("/")[-2:]) for path in group} for group in groups]


def test_exact_copies_near_copies_and_contradictions_are_separate_lists(audited):
    facts = audited[0]
    assert short(facts["exact_copies"]) == [
        {"Cat/0.jpg", "Cat/copy.jpg"},
        {"Cat/3.jpg", "Dog/also a cat.jpg"},
    ]
    assert sorted(short(facts["near_copies"]), key=sorted) == [
        {"Dog/1.jpg", "Dog/smaller.jpg"},
        {"Dog/2.jpg", "Dog/mirrored.png"},
    ]
    assert short(facts["contradictions"]) == [{"Cat/3.jpg", "Dog/also a cat.jpg"}]


def test_blank_photos_are_no_copies_of_each_other(audited):
    assert not any("blank" in path for group in short(audited[0]["near_copies"]) for path in group)


def test_unreadable_and_suspicious_files_are_named_with_reasons(audited):
    facts = audited[0]
    reasons = {row["path"].rpartition("/")[2]: row["reason"] for row in facts["unreadable"]}
    assert set(reasons) == {"666.jpg", "11702.jpg", "<b>page & more.jpg"}
    assert "empty" in reasons["666.jpg"]
    assert "truncated" in reasons["11702.jpg"]
    assert "HTML" in reasons["<b>page & more.jpg"]
    odd = {row["path"].rpartition("/")[2]: row["reason"] for row in facts["suspicious"]}
    assert odd["blank.png"].startswith("blank")
    assert odd["tiny.png"].startswith("tiny: 16 × 12")
    assert odd["long.png"].startswith("very long")
    assert odd["called.jpg"].startswith("misnamed")


def test_the_counts_add_up(audited):
    facts = audited[0]
    assert facts["n"] == 24
    assert facts["classes"] == {"cat": 11, "dog": 13}
    assert sum(facts["formats"].values()) == facts["n"] - len(facts["unreadable"])
    assert (facts["width"]["min"], facts["width"]["max"]) == (16, 400)
    assert facts["suspect_labels"] == facts["neither"] == []


def test_the_text_summarises_the_findings(audited):
    out = audited[3].out
    assert re.search(r"contradictions +1 ", out)
    assert re.search(r"unreadable +3 ", out)
    assert "4 groups of copies: a random split" in out
    assert "Labels were not judged (--no-labels)" in out


def test_the_page_is_self_contained_and_escapes_names(audited):
    page = audited[1].read_text("utf-8")
    assert "&lt;b&gt;page &amp; more.jpg" in page
    assert "<b>page" not in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert "<script" not in page
    assert page.count("data:image/jpeg;base64,") >= 10
    anchors = ("contradictions", "unreadable", "suspicious", "near", "exact")
    order = [page.index(f'id="{anchor}"') for anchor in anchors]
    assert order == sorted(order)


def test_without_the_photos_of_the_fix_list_the_folder_is_clean(audited, dirty, tmp_path, capsys):
    rows = list(csv.DictReader(audited[2].open(encoding="utf-8")))
    assert len(rows) == len({row["path"] for row in rows})
    assert {"path", "label", "suggested", "reason"} == set(rows[0])
    left_out = {row["path"].rpartition("/")[2] for row in rows}
    assert {"666.jpg", "also a cat.jpg", "copy.jpg", "blank.png"} <= left_out
    assert "called.jpg" not in left_out  # a wrong name does no harm
    for row in rows:
        Path(row["path"]).unlink()
    assert main(["audit", "--data", str(dirty), "--no-labels"]) == 0
    out = capsys.readouterr().out
    for name in ("contradictions", "unreadable", "near copies", "exact copies"):
        assert re.search(rf"{name} +0 ", out), out


def test_python_gets_the_same_findings_as_the_command(audited, dirty):
    assert json.loads(json.dumps(audit(str(dirty), labels=False).to_dict())) == audited[0]


def test_a_clean_folder_has_no_findings(tmp_path, capsys):
    write_folder(tmp_path / "clean", {f"{'cd'[i % 2]}/{i}.jpg": photo(i) for i in range(8)})
    page = tmp_path / "a.html"
    words = ["--html", str(page), "--no-labels"]
    assert main(["audit", "--data", str(tmp_path / "clean"), *words]) == 0
    assert "No problems found" in page.read_text("utf-8")
    assert "of copies" not in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["flat", "one class"])
@pytest.mark.parametrize("model", [None, "bundled"])
def test_photos_without_labels_or_of_one_class_can_be_audited(tmp_path, layout, model, capsys):
    prefix = {"flat": "holiday ", "one class": "cat/"}[layout]
    names = {f"{prefix}{i}.jpg": photo(i) for i in range(8)}
    files = names | {f"{prefix}copy.jpg": photo(3), f"{prefix}broken.jpg": b"text"}
    write_folder(tmp_path / "photos", files)
    outputs = [tmp_path / name for name in ("a.json", "a.html", "f.csv")]
    words = ["--json", str(outputs[0]), "--html", str(outputs[1]), "--fix-list", str(outputs[2])]
    words += ["--model", model] if model else []
    assert main(["audit", "--data", str(tmp_path / "photos"), *words]) == 1
    facts = json.loads(outputs[0].read_text("utf-8"))
    assert facts["n"] == 10
    assert facts["classes"] == ({} if layout == "flat" else {"cat": 10})
    assert len(facts["exact_copies"]) == len(facts["unreadable"]) == 1
    assert facts["contradictions"] == facts["suspect_labels"] == []
    out, page = capsys.readouterr().out, outputs[1].read_text("utf-8")
    assert "labelled" not in out
    assert "broken.jpg" in out
    assert "broken.jpg" in page
    assert "copy.jpg" in page
    rows = list(csv.DictReader(outputs[2].open(encoding="utf-8")))
    assert {row["path"].rpartition("/")[2] for row in rows} >= {
        f"{prefix}broken.jpg".rpartition("/")[2]
    }


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory):
    """500 synthetic pictures, of which 15 have the wrong label, and a chequered board."""
    root = tmp_path_factory.mktemp("mislabelled")
    planted = set()
    for i in range(500):
        label = ("cat", "dog")[i % 2]
        if i % 34 == 5:
            label = "cat" if label == "dog" else "dog"
            planted.add(f"{i}.jpg")
        write_folder(root / "pets", {f"{label}/{i}.jpg": jpeg(i, seed=99, size=96)})
    board = np.indices((96, 96)).sum(0) // 12 % 2 * 255
    (root / "pets/cat/board.png").write_bytes(save(Image.fromarray(board.astype(np.uint8)), "PNG"))
    return root / "pets", planted


@pytest.fixture(scope="module")
def few_mislabelled(tmp_path_factory):
    """72 synthetic pictures of two classes, 4 of them under the other label; 3 of a third class."""
    root = tmp_path_factory.mktemp("few") / "pets"
    planted = {"5.jpg", "22.jpg", "39.jpg", "56.jpg"}
    for i in range(72):
        label = ("cat", "dog")[(i % 2) ^ (f"{i}.jpg" in planted)]
        write_folder(root, {f"{label}/{i}.jpg": jpeg(i, seed=99, size=96)})
    write_folder(root, {f"rabbit/{i}.jpg": photo(200 + i) for i in range(3)})
    return root, planted


def test_labels_are_judged_without_a_model_and_a_class_of_few_photos_is_named(
    few_mislabelled, catordog, tmp_path
):
    pets, planted = few_mislabelled
    ended = catordog("audit", "--data", pets, "--json", "a.json", "--html", "a.html", cwd=tmp_path)
    assert ended.code == 0, ended.err
    facts = json.loads((tmp_path / "a.json").read_text("utf-8"))
    suspects = [row["path"].rpartition("/")[2] for row in facts["suspect_labels"]]
    assert planted <= set(suspects[:6])
    assert facts["model"] == "general backbone"
    assert facts["classes_unjudged"] == ["rabbit"]
    assert not any("rabbit" in row["path"] for row in facts["suspect_labels"])
    assert "fewer than 5 different photos: rabbit" in ended.out
    assert "suspect labels" in ended.out
    assert 'id="suspects"' in (tmp_path / "a.html").read_text("utf-8")


def test_photos_that_a_person_has_confirmed_are_suspected_no_more(few_mislabelled, tmp_path):
    pets, _ = few_mislabelled
    before = audit(str(pets))
    log = DecisionLog(tmp_path / "d.jsonl")
    for suspect in before.suspects:
        path = before.findings.path(suspect.index)
        label = before.findings.label(suspect.index)
        log.append(Decision(path, "keep", label=label, was=label))
    after = audit(str(pets), decisions=str(log.path))
    known = {before.findings.path(suspect.index) for suspect in before.suspects}
    assert not known & {after.findings.path(suspect.index) for suspect in after.suspects}
    assert after.wrong == 0


@pytest.mark.parametrize("folders", [{"cat": 4, "dog": 4}, {"cat": 4, "dog": 30}])
def test_sets_that_are_too_small_are_audited_without_judging_labels(folders, tmp_path):
    files = {f"{name}/{i}.jpg": photo(100 * len(name) + i)
             for name, count in folders.items() for i in range(count)}  # fmt: skip
    pets = write_folder(tmp_path / "pets", files)
    result = audit(str(pets))
    assert result.suspects == []
    assert result.unjudged == tuple(name for name, count in folders.items() if count < 5)


@pytest.mark.slow
def test_a_model_finds_wrong_labels_and_photos_of_no_class(
    mislabelled, drawn_run, catordog, tmp_path
):
    pets, planted = mislabelled
    out = ["--json", "a.json", "--html", "a.html", "--fix-list", "f.csv"]
    model = drawn_run.checkpoint
    ended = catordog("audit", "--data", pets, "--model", model, *out, cwd=tmp_path)
    assert ended.code == 0, ended.err
    facts = json.loads((tmp_path / "a.json").read_text("utf-8"))
    suspects = [row["path"].rpartition("/")[2] for row in facts["suspect_labels"]]
    assert len(planted.intersection(suspects)) >= 0.9 * len(planted)
    assert len(planted.intersection(suspects[: len(planted)])) >= 0.7 * len(planted)
    assert all(row["suggested"] != row["label"] for row in facts["suspect_labels"])
    scores = [row["score"] for row in facts["suspect_labels"]]
    assert scores == sorted(scores, reverse=True)
    assert 0.5 * len(planted) <= facts["wrong_labels_estimated"] <= 2 * len(planted)
    assert any(row["path"].endswith("board.png") for row in facts["neither"][:5])
    rows = list(csv.DictReader((tmp_path / "f.csv").open(encoding="utf-8")))
    suggested = {row["path"].rpartition("/")[2] for row in rows if row["suggested"]}
    assert len(suggested & planted) >= 0.6 * len(planted)
    assert "suspect labels" in ended.out
    assert 'id="suspects"' in (tmp_path / "a.html").read_text("utf-8")


@pytest.mark.slow
def test_evaluate_reports_the_accuracy_with_and_without_the_excluded_photos(
    mislabelled, drawn_run, catordog, tmp_path
):
    pets, planted = mislabelled
    rows = [
        ["path"],
        *([path] for path in map(str, pets.rglob("*.jpg")) if path.rpartition("/")[2] in planted),
    ]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    (tmp_path / "f.csv").write_text(text.getvalue(), "utf-8")
    ended = catordog("evaluate", drawn_run.checkpoint, "--data", pets, "--split", "all",
                     "--exclude", "f.csv", "--json", "e.json", cwd=tmp_path)  # fmt: skip
    assert ended.code == 0, ended.err
    facts = json.loads((tmp_path / "e.json").read_text("utf-8"))
    assert facts["excluded"] == len(planted)
    assert facts["n"] == 501 - len(planted)
    right = facts["accuracy"] * facts["n"]
    # The network predicts the true class of mislabelled pictures, which counts as a mistake.
    assert facts["accuracy"] > facts["accuracy_with_excluded"] >= right / 501
    assert f"with the {len(planted)} excluded photos" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "few", "--model", "nothing.ckpt"], "nothing.ckpt"),
        (["--data", "few", "--model", "MODEL"], "without --model"),
        (["--data", "few", "--json", "few/c/0.jpg/a.json"], "0.jpg"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    words, message, drawn_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "few", {f"{'cd'[i % 2]}/{i}.jpg": photo(i) for i in range(8)})
    words = [str(drawn_run.checkpoint) if word == "MODEL" else word for word in words]
    assert main(["audit", *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_known_problems_of_the_real_photos_are_found(shared_photos, tmp_path):
    """Every known copy and contradiction in the zip."""
    data = shared_photos / "dogs-vs-cats-200px.zip"
    words = ["--data", str(data), "--no-labels", "--json", str(tmp_path / "a.json")]
    assert main(["audit", *words]) == 0
    facts = json.loads((tmp_path / "a.json").read_text("utf-8"))

    def has(groups, *names):
        wanted = {f"{name}.jpg" for name in names}
        return any(wanted <= {path.rpartition("/")[2] for path in group} for group in groups)

    exact = facts["exact_copies"]
    assert has(exact, "cat.10360", "cat.3345")
    assert has(exact, "cat.12408", "cat.2339")
    assert has(exact, "cat.6143", "cat.6204")
    assert has(exact, "dog.10401", "dog.10797", "dog.2877")
    assert has(exact, "dog.2027", "dog.3082")
    assert has(facts["contradictions"], "cat.8456", "dog.8736")
    assert has(facts["contradictions"], "cat.11565", "dog.2877")
    assert len(facts["near_copies"]) >= 20


@pytest.mark.parametrize("prefix", ["", "cat/"])
def test_photos_without_labels_or_of_one_class_are_audited(tmp_path, capsys, prefix):
    files = {f"{prefix}IMG_{i}.jpg": photo(i) for i in range(8)}
    files |= {f"{prefix}copy.jpg": photo(0), f"{prefix}page.jpg": b"<html>"}
    root = write_folder(tmp_path / "photos", files)
    outputs = {f"--{form}": tmp_path / f"audit.{form}" for form in ("json", "html", "fix-list")}
    words = ["audit", "--data", root, "--model", "bundled"]
    words += [word for pair in outputs.items() for word in pair]
    assert main(list(map(str, words))) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{root}: 10 photos")
    assert "contradictions" not in out
    assert "suspect labels" not in out
    assert "no class" not in out
    assert f"{prefix}IMG_0.jpg" in out.partition("exact copies\n")[2]
    found = json.loads(outputs["--json"].read_text("utf-8"))
    assert found["classes"] == ({"cat": 10} if prefix else {})
    assert len(found["exact_copies"]) == len(found["unreadable"]) == 1
    assert found["suspect_labels"] == found["contradictions"] == []
    assert "copy of" in outputs["--fix-list"].read_text("utf-8")
    assert "none of the classes" not in outputs["--html"].read_text("utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
def test_a_file_name_that_is_not_utf8_is_escaped_in_every_output(tmp_path, capsys):
    stray = os.fsdecode(b"cat/caf\xe9.jpg")
    files = {f"{label}/{i}.jpg": photo(10 * ord(label[0]) + i) for label in ("cat", "dog")
             for i in range(4)}  # fmt: skip
    files |= {stray: files["cat/0.jpg"], os.fsdecode(b"dog/half\xe9.jpg"): b"x"}
    root = write_folder(tmp_path / "photos", files)
    outputs = {f"--{form}": tmp_path / f"audit.{form}" for form in ("json", "html", "fix-list")}
    words = ["audit", "--data", root, *(word for pair in outputs.items() for word in pair)]
    assert main(list(map(str, words))) == 1
    for text in (capsys.readouterr().out, outputs["--html"].read_text("utf-8")):
        assert r"cat/caf\xe9.jpg" in text
        assert r"half\xe9.jpg" in text
    listed = outputs["--fix-list"]
    assert rf"{root}/dog/half\xe9.jpg" in listed.read_text("utf-8")
    assert len(open_dataset(str(root), exclude=str(listed)).excluded) == 2
