"""`catordog teach`: own classes from a few photos."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import catordog
from catordog.cli import main
from catordog.model.backbone import Backbone
from catordog.model.classifier import load
from catordog.model.knowledge import Knowledge
from catordog.model.onnx_graph import metadata_of, with_metadata
from catordog.model.taught_file import EXAMPLES_KEY, MOST_KEPT
from conftest import write_folder
from model.tiny_backbone import CONCEPTS, coloured, colours, write_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return colours(tmp_path_factory.mktemp("data") / "colours", red=20, green=20)


@pytest.fixture(scope="module")
def model(data, backbone, tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "colours.onnx"
    assert main(["teach", str(data), "--backbone", str(backbone), "--out", str(file)]) == 0
    return file


def jsonl(out):
    return [json.loads(line) for line in out.splitlines()]


def test_it_prints_how_good_the_model_is_and_how_to_use_it(
    data, backbone, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["teach", str(data), "--backbone", str(backbone)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "colours.onnx\n"
    assert "learnt 2 classes from 40 photos: 20 green, 20 red" in captured.err
    assert re.search(
        r"by cross-validation: [\d.]+ %, on new photos [\d.]+ % to [\d.]+ % \(95 % interval",
        captured.err,
    )
    assert not re.search(r"\d%", captured.err)
    assert "photos a class:" in captured.err
    assert "catordog predict photo.jpg --model colours.onnx" in captured.err
    assert (tmp_path / "colours.onnx").is_file()


def test_new_photos_get_their_class_and_others_neither(model, tmp_path, capsys):
    new = write_folder(
        tmp_path, {f"{name}{i}.png": coloured(name, 100 + i) for name in ("red", "green", "blue")
                   for i in range(8)},
    )  # fmt: skip
    assert main(["predict", str(new), "--model", str(model), "--format", "jsonl"]) == 0
    rows = jsonl(capsys.readouterr().out)
    for row in rows:
        name = re.search(r"(red|green|blue)\d", row["path"])[1]
        if name != "blue":
            assert row["label"] == name
    verdicts = [row["verdict"] for row in rows]
    assert (
        sum(v == "neither" for v, row in zip(verdicts, rows, strict=True) if "blue" in row["path"])
        >= 7
    )
    assert verdicts.count("red") >= 6


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "{model}", "--data", "{new}", "--split", "all"],
        ["compare", "{model}", "{model}", "--data", "{new}", "--split", "all"],
        ["explain", "{new}/red/1.png", "--model", "{model}", "--out", "{tmp}/x.png"],
        ["audit", "--data", "{new}", "--model", "{model}"],
        ["calibrate", "{model}", "--data", "{new}", "--split", "all"],
    ],
    ids=lambda words: words[0],
)
def test_other_commands_take_a_taught_model(words, model, tmp_path, capsys):
    copy = tmp_path / "m.onnx"
    copy.write_bytes(model.read_bytes())
    files = {f"{c}/{i}.png": coloured(c, 200 + i) for c in ("red", "green") for i in range(12)}
    new = write_folder(tmp_path / "new", files)
    names = {"model": copy, "new": new, "tmp": tmp_path}
    assert main([word.format(**names) for word in words]) == 0, capsys.readouterr().err
    assert catordog.load(copy).classes == ("green", "red")
    assert EXAMPLES_KEY in metadata_of(copy.read_bytes())


def test_the_python_twin_predicts_and_saves(data, backbone, tmp_path):
    taught = catordog.teach(data, backbone=backbone)
    prediction = taught.predict(coloured("red", 300))
    assert prediction.label == "red"
    low, high = taught.learned.interval
    assert low <= taught.learned.accuracy <= high
    taught.save(tmp_path / "m.onnx")
    loaded = catordog.load(tmp_path / "m.onnx")
    assert loaded.predict(coloured("red", 300)).logits == prediction.logits
    assert loaded.model == taught.classifier.model
    # Raw logits of the network are those of the layer on its features.
    pixels = loaded.model.preprocess.pixels(catordog_image(coloured("red", 301)))[None]
    logits, features, concepts = loaded.run(pixels, "logits", "features", "concepts")
    assert np.allclose(logits, taught.learned.head.logits(features, concepts), atol=1e-4)


def catordog_image(data):
    from catordog.photos.decode import decode

    return decode(data)


def test_teaching_again_computes_no_features_and_gives_the_same_file(data, backbone, monkeypatch):
    first = catordog.teach(data, backbone=backbone)

    def never(self, pixels):
        raise AssertionError(f"{len(pixels)} photos were read again")

    monkeypatch.setattr(Backbone, "features", never)
    assert catordog.teach(data, backbone=backbone).data == first.data


def test_a_class_is_added_without_the_old_photos(model, tmp_path, capsys):
    blue = write_folder(tmp_path / "Blue", {f"{i}.png": coloured("blue", i) for i in range(12)})
    out = tmp_path / "three.onnx"
    words = ["teach", str(blue), "--add-to", str(model), "--out", str(out)]
    assert main(words) == 0
    assert "learnt 3 classes from 52 photos" in capsys.readouterr().err
    classifier = catordog.load(out)
    assert classifier.classes == ("green", "red", "blue")
    right = [classifier.predict(coloured(name, 400)).label == name for name in classifier.classes]
    assert all(right)
    # The same photos again change nothing.
    again = catordog.teach(blue, add_to=out)
    assert again.counts == {"green": 20, "red": 20, "blue": 12}
    assert again.copies == 12


def test_a_forgotten_model_keeps_no_features_and_refuses_more(model, data, tmp_path, capsys):
    out = tmp_path / "f.onnx"
    assert main(["teach", "--add-to", str(model), "--forget", "--out", str(out)]) == 0
    assert EXAMPLES_KEY not in metadata_of(out.read_bytes())
    detector = catordog.load(out).model.ood
    assert len(detector.bank) == 0
    assert catordog.load(out).predict(coloured("red", 500)).label == "red"
    capsys.readouterr()
    assert main(["teach", str(data), "--add-to", str(out)]) == 2
    error = capsys.readouterr().err
    assert "written with --forget" in error
    assert error.count("\n") == 1


def test_a_single_class_is_told_from_everything_else(backbone, tmp_path, capsys):
    red = write_folder(tmp_path / "red", {f"{i}.png": coloured("red", i) for i in range(20)})
    out = tmp_path / "one.onnx"
    assert main(["teach", str(red), "--backbone", str(backbone), "--out", str(out)]) == 0
    classifier = catordog.load(out)
    assert classifier.classes == ("red",)
    own = [classifier.predict(coloured("red", 600 + i)) for i in range(20)]
    others = [classifier.predict(coloured("blue", i)) for i in range(20)]
    assert sum(p.verdict == "red" for p in own) >= 15
    assert sum(p.verdict == "neither" for p in others) >= 18
    assert all(0 < p.confidence < 1 for p in own + others)
    capsys.readouterr()
    assert main(["evaluate", str(out), "--data", str(tmp_path), "--split", "all"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_kept_features_are_limited(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("catordog.model.taught_file.MOST_KEPT", 5)
    taught = catordog.teach(colours(tmp_path, red=12, green=3), backbone=backbone)
    assert taught.counts == {"green": 3, "red": 12}
    assert taught.examples == 8
    assert MOST_KEPT == 500


def everyday(backbone, folder, shares):
    """The backbone with the mean confidences in its concepts on everyday photos."""
    file = folder / "everyday.onnx"
    knowledge = Knowledge(background=np.array(shares, np.float32))
    file.write_bytes(with_metadata(backbone.read_bytes(), knowledge.to_metadata()))
    return file


def test_a_model_hands_on_what_its_backbone_knows_of_everyday_photos(data, backbone, tmp_path):
    shares = np.arange(CONCEPTS) / CONCEPTS / 8
    informed = everyday(backbone, tmp_path, shares)
    taught = catordog.teach(data, backbone=informed)
    taught.save(tmp_path / "m.onnx")
    assert np.allclose(Backbone.read(tmp_path / "m.onnx").knowledge.background, shares, atol=1e-3)
    weights = taught.classifier.model.ood.weights
    uninformed = catordog.teach(data, backbone=backbone).classifier.model.ood
    assert not np.allclose(weights, uninformed.weights)
    again = catordog.teach(None, add_to=tmp_path / "m.onnx")
    assert np.allclose(again.classifier.model.ood.weights, weights, atol=0.01)  # 8 bits
    catordog.calibrate(tmp_path / "m.onnx", data, "all")
    assert np.allclose(load(tmp_path / "m.onnx").model.ood.weights, weights, atol=0.01)


def test_damaged_confidences_of_everyday_photos_are_refused(data, backbone, tmp_path, capsys):
    damaged = everyday(backbone, tmp_path, [0.5])
    assert main(["teach", str(data), "--backbone", str(damaged)]) == 2
    error = capsys.readouterr().err
    assert "is no general backbone: catordog.background is not one confidence" in error


def test_the_bundled_backbone_knows_everyday_photos():
    background = Backbone.read().knowledge.background
    assert abs(background.sum() - 1) < 0.01
    assert background[151:269].sum() < 0.05  # dogs


def test_a_broken_photo_is_named_and_the_others_are_learnt(backbone, tmp_path, capsys):
    data = colours(tmp_path / "d", red=4, green=4)
    (data / "red" / "broken.png").write_bytes(b"no photo")
    out = tmp_path / "m.onnx"
    assert main(["teach", str(data), "--backbone", str(backbone), "--out", str(out)]) == 1
    assert "broken.png" in capsys.readouterr().err
    assert catordog.load(out).classes == ("green", "red")


def test_a_picture_in_two_classes_is_left_out_and_named(backbone, tmp_path):
    data = colours(tmp_path, red=5, green=5)
    for name in ("red", "green"):
        (data / name / "both.png").write_bytes(coloured("blue", 0))
    (data / "red" / "again.png").write_bytes(coloured("red", 0))
    taught = catordog.teach(data, backbone=backbone)
    assert taught.counts == {"green": 5, "red": 5}
    assert [path[-8:] for path in taught.contradictions] == ["both.png", "both.png"]
    assert taught.copies == 1


def test_one_photo_a_class_says_what_it_cannot_promise(backbone, tmp_path, capsys):
    data = colours(tmp_path / "d", red=1, green=1)
    out = tmp_path / "m.onnx"
    assert main(["teach", str(data), "--backbone", str(backbone), "--out", str(out)]) == 0
    text = capsys.readouterr().err
    assert "accuracy: unknown" in text
    assert "no photo will be called 'neither'" in text
    assert catordog.load(out).predict(coloured("red", 9)).label == "red"


def test_very_unequal_classes_and_any_names_are_learnt(backbone, tmp_path):
    data = colours(tmp_path / "d", red=60, green=1)
    (data / "red").rename(data / "ré d=[1]'")
    taught = catordog.teach(data, backbone=backbone)
    assert taught.counts == {"green": 1, "ré d=[1]'": 60}
    assert taught.predict(coloured("red", 99)).label == "ré d=[1]'"


def test_fifty_classes_of_two_photos(backbone, tmp_path):
    files = {f"c{k:02}/{i}.png": coloured(("red", "green", "blue")[k % 3], 10 * k + i)
             for k in range(50) for i in range(2)}  # fmt: skip
    taught = catordog.teach(write_folder(tmp_path, files), backbone=backbone)
    assert len(taught.classifier.classes) == 50
    assert taught.learned.accuracy is not None


def refused(tmp_path):
    """Words for teach, by what is wrong with them."""
    few = colours(tmp_path / "few", red=2)
    none = colours(tmp_path / "none", red=3)
    (none / "dog").mkdir()
    broken = colours(tmp_path / "broken", red=3)
    write_folder(broken, {"dog/1.png": b"x"})
    twice = colours(tmp_path / "twice", red=3)
    write_folder(twice, {"dog/1.png": coloured("red", 0)})
    write_folder(tmp_path / "verdict", {f"{c}/1.png": coloured("red", 1) for c in ("neither", "a")})
    single = write_folder(tmp_path / "not sure", {"1.png": coloured("red", 1)})
    (tmp_path / "empty").mkdir()
    return {
        "has fewer than 3 different photos": [few],
        "no photo of 'dog'": [none],
        "no photo of 'dog' could be read": [broken],
        "every photo of 'dog' is in another class": [twice],
        "the class name 'neither' is a verdict": [tmp_path / "verdict"],
        "the class name 'not sure' is a verdict": [single],
        "no photos in it": [tmp_path / "empty"],
        "no such file or folder": [tmp_path / "nothing"],
        "no photos given": [],
        "end its name in .onnx": [few, "--out", tmp_path / "m.ckpt"],
        "No such file": [few, "--add-to", tmp_path / "none.onnx"],
        "is no general backbone": [few, "--backbone", few / "red" / "0.png"],
    }


CASES = [
    "has fewer than 3 different photos",
    "no photo of 'dog'",
    "no photo of 'dog' could be read",
    "every photo of 'dog' is in another class",
    "the class name 'neither' is a verdict",
    "the class name 'not sure' is a verdict",
    "no photos in it",
    "no such file or folder",
    "no photos given",
    "end its name in .onnx",
    "No such file",
    "is no general backbone",
]


@pytest.mark.parametrize("words", CASES)
def test_wrong_input_is_one_line(words, backbone, tmp_path, capsys):
    given = [str(word) for word in refused(tmp_path)[words]]
    if not {"--backbone", "--add-to"} & set(given):
        given += ["--backbone", str(backbone)]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out.onnx")]
    assert main(["teach", *given]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error
    assert not (tmp_path / "out.onnx").exists()


def test_a_file_of_another_kind_is_not_overwritten_by_default(
    data, backbone, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colours.onnx").write_bytes(backbone.read_bytes())
    assert main(["teach", str(data), "--backbone", str(backbone)]) == 2
    assert "colours.onnx" in capsys.readouterr().err
    assert (tmp_path / "colours.onnx").read_bytes() == backbone.read_bytes()


def test_damaged_features_in_a_model_file_are_refused(model, data, tmp_path, capsys):
    from catordog.model.onnx_graph import with_metadata

    content = model.read_bytes()
    metadata = metadata_of(content)
    for text in ("{}", "[", '{"format": 1}', metadata[EXAMPLES_KEY][:-40] + '"}'):
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(with_metadata(content, metadata | {EXAMPLES_KEY: text}))
        assert main(["teach", str(data), "--add-to", str(bad)]) == 2
        assert "damaged" in capsys.readouterr().err
