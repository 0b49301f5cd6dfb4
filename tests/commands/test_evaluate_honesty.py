"""`catordog evaluate` promises no more than it measures, and names what it skips."""

from __future__ import annotations

import json
import re

import pytest

import catordog
from catordog.cli import main
from catordog.confidence.wilson import wilson
from catordog.errors import CatordogError
from catordog.evaluation.evaluate import evaluate
from catordog.report.evaluation_page import evaluation_page
from catordog.report.evaluation_text import also_rows, ood_rows
from conftest import jpeg, named, picture, save, write_folder
from model.small import write_checkpoint, write_model


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Photos of cats and dogs, of which one is unreadable."""
    files = named(12) | {"cat.77.jpg": jpeg(0)[:300]}
    return write_folder(tmp_path_factory.mktemp("pets"), files)


@pytest.fixture(scope="module")
def neither(tmp_path_factory):
    """Photos of no class: a good one, a truncated one, a large one, and one that is text."""
    return write_folder(
        tmp_path_factory.mktemp("neither"),
        {
            "good.png": save(picture(1), "PNG"),
            "cut.jpg": save(picture(2, (300, 200)), "JPEG")[:-2000],
            "large.png": save(picture(3, (1100, 1000)), "PNG"),
            "text.jpg": b"text",
        },
    )


@pytest.mark.slow
def test_the_error_budget_is_not_claimed_for_photos_called_neither(tmp_path, capsys):
    words = ["evaluate", "bundled", "--data", "drawn:n=80,seed=3", "--split", "all"]
    file = tmp_path / "e.json"
    assert main([*words, "--error-rate", "0.05", "--accept", "0.5", "--json", str(file)]) == 0
    (check,) = json.loads(file.read_text())["promises"]
    classifier = catordog.load()
    verdicts = [
        classifier.predict(photo.image(), error_rate=0.05, accept=0.5).verdict
        for photo in evaluate(classifier, "drawn:n=80,seed=3", "all").photos
    ]
    assert check["neither"] == pytest.approx(verdicts.count("neither") / 80)
    assert check["not_sure"] == pytest.approx(verdicts.count("not sure") / 80)
    assert check["neither"] > 0
    assert check["missed"] >= check["neither"]
    assert check["missed"] == pytest.approx(check["outside_set"] + check["rejected"])
    out = capsys.readouterr().out
    assert "by the prediction set, which the budget covers, and" in out
    assert "called 'neither', which it does not" in out


class TestPhotosOfNoClass:
    def run(self, neither, tmp_path, capsys, *options: str):
        file = tmp_path / "e.json"
        words = ["evaluate", "bundled", "--data", "drawn:n=20,seed=3", "--split", "all"]
        code = main([*words, "--neither", str(neither), "--json", str(file), *options])
        return code, json.loads(file.read_text())["neither"], capsys.readouterr()

    def test_the_unreadable_ones_are_named_and_counted(self, neither, tmp_path, capsys):
        code, found, printed = self.run(neither, tmp_path, capsys)
        assert code == 1
        assert (found["n"], found["unreadable"]) == (2, 2)
        assert re.search(r"--neither: can't be read: .*cut.jpg: truncated", printed.err)
        assert re.search(r"--neither: can't be read: .*text.jpg: not a photo", printed.err)
        assert "; 2 unreadable" in printed.out

    def test_truncated_ones_are_read_on_request(self, neither, tmp_path, capsys):
        _, found, printed = self.run(neither, tmp_path, capsys, "--allow-truncated")
        assert (found["n"], found["unreadable"]) == (3, 1)
        assert "cut.jpg" not in printed.err

    def test_the_limit_of_megapixels_holds(self, neither, tmp_path, capsys):
        _, found, printed = self.run(neither, tmp_path, capsys, "--max-megapixels", "1")
        assert (found["n"], found["unreadable"]) == (1, 3)
        assert re.search(r"large.png: .*more than the limit of 1 megapixels", printed.err)

    def test_each_path_is_a_source_and_the_total_counts_all(self, neither, tmp_path, capsys):
        drawn = {f"{i}.png": save(picture(i), "PNG") for i in range(5)}
        more = write_folder(tmp_path / "more", drawn)
        broken = write_folder(tmp_path / "broken", {"text.jpg": b"text"})
        words = ("--neither", str(more), str(broken), "--accept", "0.9")
        code, found, printed = self.run(neither, tmp_path, capsys, *words)
        assert code == 1
        first, second, third = found["sources"]
        counts = [(each["source"], each["n"], each["unreadable"]) for each in found["sources"]]
        assert counts == [(str(neither), 2, 2), (str(more), 5, 0), (str(broken), 0, 1)]
        assert third["false_accept"] is third["false_accept_ci95"] is third["auroc"] is None
        accepted = 0
        for each in (first, second):
            count = round(each["n"] * each["false_accept"])
            assert each["false_accept_ci95"] == list(wilson(count, each["n"]))
            accepted += count
        assert (found["n"], found["unreadable"]) == (7, 3)
        assert found["false_accept"] == pytest.approx(accepted / 7)
        assert found["true_accept"] == pytest.approx(1 - found["false_reject"])
        assert found["true_accept_ci95"] == list(wilson(round(20 * found["true_accept"]), 20))
        lines = [line.split() for line in printed.out.splitlines()]
        assert [line[:3] for line in lines if line[:1] == ["total"]] == [["total", "7", "3"]]

    def test_at_a_true_accept_rate_of_1_none_is_rejected(self, neither, tmp_path, capsys):
        _, found, _ = self.run(neither, tmp_path, capsys, "--accept", "1")
        rates = {name: found[name] for name in ("true_accept", "false_accept", "false_reject")}
        assert rates == {"true_accept": 1, "false_accept": 1, "false_reject": 0}
        with pytest.raises(CatordogError, match=r"--accept 1\.5 is not a fraction"):
            evaluate("bundled", "drawn:n=20,seed=3", "all", accept=1.5)


class TestFurtherDatasets:
    def test_each_is_measured_like_a_dataset_of_its_own(self, pets, tmp_path, capsys):
        file = tmp_path / "e.json"
        words = ["evaluate", "bundled", "--data", "drawn:n=20,seed=3", "--split", "all"]
        also = ["--also", str(pets), "drawn:n=10,seed=5"]
        assert main([*words, *also, "--accept", "0.9", "--json", str(file)]) == 1
        found = json.loads(file.read_text())["also"]
        assert [(each["source"], each["n"], each["unreadable"]) for each in found] == [
            (str(pets), 12, 1),
            ("drawn:n=10,seed=5", 10, 0),
        ]
        alone = evaluate("bundled", str(pets), "all", accept=0.9)
        metrics, own = alone.metrics, found[0]
        assert own["accuracy"] == metrics.accuracy
        assert own["accuracy_ci95"] == list(metrics.accuracy_ci95)
        assert (own["nll"], own["ece"]) == pytest.approx((metrics.nll, metrics.ece), abs=1e-6)
        rate, interval = alone.true_accept or (None, ())
        assert (own["true_accept"], own["true_accept_ci95"]) == (rate, list(interval))
        printed = capsys.readouterr()
        assert re.search(r"--also: can't be read: .*cat.77.jpg: truncated", printed.err)
        assert "other datasets, all photos" in printed.out

    def test_the_page_has_a_table_of_each(self, pets, neither):
        photos = str(neither / "good.png")
        result = evaluate("bundled", "drawn:n=20,seed=3", "all", ood_photos=[photos],
                          also=[str(pets)])  # fmt: skip
        page = evaluation_page(result)
        for rows in (also_rows(result.also), ood_rows(result.ood)):
            for row in rows:
                assert all(cell in page for cell in row), row
        assert '<section id="also">' in page

    def test_a_model_without_a_detector_has_no_true_accept_rate(self, tmp_path):
        result = evaluate(write_model(tmp_path, "ckpt"), "drawn:n=10,seed=3", "all",
                          also=["drawn:n=10,seed=5"])  # fmt: skip
        assert result.true_accept is result.also[0].true_accept is None
        assert also_rows(result.also)[1][-2:] == ["–", "–"]

    def test_another_class_is_refused_before_any_photo_is_read(self, tmp_path):
        foxes = write_folder(tmp_path, {"fox/1.jpg": jpeg(0), "cat/1.jpg": jpeg(1)})
        with pytest.raises(CatordogError, match="'fox', which the model doesn't know"):
            evaluate("bundled", "drawn:n=10,seed=3", "all", also=[str(foxes)])


@pytest.mark.parametrize("model", ["bundled", "an exported file"])
def test_a_model_without_a_run_gets_no_list_of_unreadable_photos(
    pets, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    if model != "bundled":
        (tmp_path / "models").mkdir()
        model = str(write_model(tmp_path / "models", "onnx"))
    before = sorted(tmp_path.rglob("*"))
    assert main(["evaluate", model, "--data", str(pets), "--split", "all"]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    err = capsys.readouterr().err
    assert re.search(r"can't be read: .*cat.77.jpg: truncated", err)
    assert "1 photo could not be read" in err


def test_a_model_of_a_run_gets_one_in_the_folder_of_the_run(pets, tmp_path, capsys):
    (tmp_path / "version_0" / "checkpoints").mkdir(parents=True)
    model = write_model(tmp_path / "version_0" / "checkpoints", "ckpt")
    assert main(["evaluate", str(model), "--data", str(pets), "--split", "all"]) == 1
    listed = tmp_path / "version_0" / "unreadable-all.txt"
    assert "cat.77.jpg" in listed.read_text()
    assert str(listed) in capsys.readouterr().err


class TestAFolderThatIsOneSplit:
    @pytest.fixture(scope="class")
    def data(self, tmp_path_factory):
        """A dataset with splits of its own, and a folder without."""
        root = tmp_path_factory.mktemp("own")
        for number, split in enumerate(("train", "test")):
            files = {
                f"{('cat', 'dog')[i % 2]}/{i}.jpg": jpeg(i, seed=50 + number) for i in range(60)
            }
            write_folder(root / "pets" / split, files)
        write_folder(root / "alone" / "train", files)
        return root

    def test_photos_of_train_are_not_called_test_photos(self, data, capsys):
        train = data / "pets" / "train"
        assert main(["evaluate", "bundled", "--data", str(train)]) == 2
        err = capsys.readouterr().err
        assert f"--data {train} is the train split of {data / 'pets'}" in err
        assert f"give --data {data / 'pets'} --split test, or --split all" in err

    @pytest.mark.parametrize("split", ["train", "all"])
    def test_they_can_be_evaluated_as_what_they_are(self, data, split):
        assert evaluate("bundled", str(data / "pets" / "train"), split).split == split

    def test_a_model_of_this_very_folder_has_held_photos_of_it_out(self, data, tmp_path):
        train = data / "pets" / "train"
        (tmp_path / "checkpoints").mkdir()
        model = write_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
        for source in (train, train.parent):
            (tmp_path / "config.yaml").write_text(f"data:\n  source: {source}\n")
            if source == train:
                assert evaluate(str(model), str(train), "test").split == "test"
            else:
                with pytest.raises(CatordogError, match="so it has no test photos"):
                    evaluate(str(model), str(train), "test")

    def test_a_folder_of_test_photos_can_be_tested(self, data):
        assert evaluate("bundled", str(data / "pets" / "test")).split == "test"

    def test_a_folder_that_is_only_called_train_is_split_as_any_other(self, data):
        assert evaluate("bundled", str(data / "alone" / "train")).split == "test"

    def test_a_model_is_not_calibrated_on_them_either(self, data, tmp_path):
        model = write_model(tmp_path, "ckpt")
        with pytest.raises(CatordogError, match="so it has no val photos"):
            catordog.calibrate(model, str(data / "pets" / "train"))
