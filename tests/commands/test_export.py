"""`catordog export`, exported files, and the bundled model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper

import catordog
from catordog.cli import main
from catordog.model.backends.torch import TorchBackend
from catordog.model.bundled import BUNDLED
from catordog.model.classifier import Classifier
from catordog.model.export import eight_bits
from catordog.model.export.onnx import to_onnx
from catordog.model.info import ModelInfo
from catordog.model.networks import ResidualNet, build_network
from catordog.photos.preprocess import Preprocess
from catordog.photos.synthetic import draw
from conftest import ROOT, jpeg, named, write_folder
from model.small import write_checkpoint

PHOTOS = [draw(index, 31, size=90 + 7 * index).image for index in range(20)]


def made(network: str = "residual", *, tta_flip: bool = False, size: int = 64) -> Classifier:
    """An untrained classifier."""
    torch.manual_seed(0)
    built = build_network(network, 2, size=size)
    model = ModelInfo(("cat", "dog"), network, preprocess=Preprocess(size), tta_flip=tta_flip)
    return Classifier(TorchBackend(built, size), model)


@pytest.fixture(scope="module")
def exported(drawn_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "m.onnx"
    assert main(["export", str(drawn_run.checkpoint), "--out", str(out)]) == 0
    return out


class TestTheFile:
    def test_its_logits_are_those_of_the_checkpoint(self, exported, drawn_run):
        ours, theirs = catordog.load(drawn_run.checkpoint), catordog.load(exported)
        assert np.abs(ours.logits(PHOTOS) - theirs.logits(PHOTOS)).max() < 1e-4

    def test_the_file_has_everything_else_too(self, exported, drawn_run):
        ours, theirs = catordog.load(drawn_run.checkpoint), catordog.load(exported)
        assert theirs.model == replace(ours.model, tta_flip=False)
        for mine, other in zip(ours.predict(PHOTOS), theirs.predict(PHOTOS), strict=True):
            assert (mine.label, mine.verdict) == (other.label, other.verdict)
            assert mine.ood_score == pytest.approx(other.ood_score, abs=0.01)

    @pytest.mark.slow
    def test_all_commands_take_it(self, exported, capsys, tmp_path):
        words = ["--data", "drawn:n=200", "--split", "all"]
        assert main(["evaluate", str(exported), *words]) == 0
        assert main(["compare", str(exported), "bundled", *words]) == 0
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        assert main(["predict", str(tmp_path / "a.jpg"), "--model", str(exported)]) == 0
        assert "cat" in capsys.readouterr().out

    def test_other_programs_need_only_the_file(self, exported, drawn_run, tmp_path):
        """The example of docs/export.md, unchanged."""
        page = (ROOT / "docs/export.md").read_text()
        code = page.split("<!-- example: onnx -->\n```python\n")[1].split("```")[0]
        assert len(code.strip().splitlines()) <= 15
        (tmp_path / "photo.jpg").write_bytes(jpeg(1, size=80))
        (tmp_path / "model.onnx").write_bytes(exported.read_bytes())
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        prediction = catordog.load(drawn_run.checkpoint).predict(tmp_path / "photo.jpg")
        for name, confidence in prediction.confidences.items():
            assert name in ended.stdout
            assert f"{confidence:.4f}" in ended.stdout

    @pytest.mark.parametrize(
        "network",
        [
            "residual",
            pytest.param("resnet18", marks=pytest.mark.slow),
            pytest.param("mobilenet_v3_small", marks=pytest.mark.slow),
        ],
    )
    @pytest.mark.parametrize("tta_flip", [pytest.param(False, marks=pytest.mark.slow), True])
    def test_any_network_gives_the_same_logits_for_any_batch_size(
        self, network, tta_flip, tmp_path
    ):
        classifier = made(network, tta_flip=tta_flip)
        path = tmp_path / "m.onnx"
        path.write_bytes(to_onnx(classifier))
        assert not {"Loop", "If"} & {node.op_type for node in onnx.load(path).graph.node}
        back = catordog.load(path)
        pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
        for n in (1, 2, 5):
            wanted, features = classifier.features_of_pixels(pixels[:n])
            got, same = back.features_of_pixels(pixels[:n])
            assert np.abs(wanted - got).max() < 1e-4
            assert np.abs(features - same).max() < 1e-3

    @pytest.mark.slow
    def test_16_bits_halve_the_size_and_change_logits_little(
        self, exported, drawn_run, tmp_path, capsys
    ):
        out = tmp_path / "half.onnx"
        words = ["export", str(drawn_run.checkpoint), "--out", str(out), "--half"]
        assert main([*words, "--data", "drawn:n=300"]) == 0
        assert "after" in capsys.readouterr().err
        bank = 2 * catordog.load(exported).model.ood.bank.size
        assert out.stat().st_size - bank < 0.7 * (exported.stat().st_size - bank)
        difference = catordog.load(out).logits(PHOTOS) - catordog.load(exported).logits(PHOTOS)
        assert np.abs(difference).max() < 0.1

    @pytest.mark.slow
    def test_8_bits_lose_little_accuracy_and_the_loss_is_printed(self, drawn_run, tmp_path, capsys):
        out = tmp_path / "int8.onnx"
        words = ["export", str(drawn_run.checkpoint), "--out", str(out), "--int8"]
        assert main([*words, "--data", "drawn:n=1000"]) == 0
        err = capsys.readouterr().err
        before, after = (
            float(err.split(word)[0].rsplit(None, 1)[1].rstrip("%"))
            for word in (" before", " after")
        )
        assert after > before - 1
        assert float(re.search(r"its logits are within (\S+) of", err)[1]) < 1
        sums = list(eight_bits.quantised_sums(onnx.load(out)))
        assert sums
        assert all(eight_bits.rounding_margin(*scales) > 3e-5 for _, *scales in sums)


class Unsuitable(ResidualNet):
    """A network that can't be exported, for a reason of each subclass."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, widths=(4,), blocks=(1,))


class Dropping(Unsuitable):
    def forward(self, photos):
        return self.head(F.dropout(self.features(photos), 0.5, training=True))


class Noisy(Unsuitable):
    def forward(self, photos):
        features = self.features(photos)
        return self.head(features + torch.randn_like(features))


class Looping(Unsuitable):
    def forward(self, photos):
        return torch.stack([super(Looping, self).forward(photo[None])[0] for photo in photos])


class Branching(Unsuitable):
    def forward(self, photos):
        features = self.features(photos)
        if features.mean() > 0.3:
            features = 2 * features
        return self.head(features)


@pytest.mark.parametrize(
    ("network", "cause"),
    [
        (Dropping, "dropout or noise that stays on"),
        (Noisy, "dropout or noise that stays on"),
        (Looping, "a loop over the batch"),
        (Branching, r"decides by the values of the photos, such as `if x.mean\(\) > 0.3`"),
    ],
)
def test_a_network_that_cannot_be_exported_leaves_the_good_file_and_the_cause_is_named(
    network, cause, tmp_path, capsys
):
    named = f"{network.__module__}.{network.__name__}"
    model = write_checkpoint(tmp_path / "m.ckpt", network=named, network_args={})
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    out.write_bytes(b"good")
    assert main(["export", str(model), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert re.search(cause, err)
    assert f"{out} is not written: " in err
    assert len(err.splitlines()) == 1
    assert len(err) < 500
    assert out.read_bytes() == b"good"
    assert [file.name for file in out.parent.iterdir()] == ["m.onnx"]


@pytest.mark.slow
def test_a_file_that_gives_other_logits_is_not_written(drawn_run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "m.onnx"
    content = to_onnx(made())
    monkeypatch.setattr("catordog.model.export.export", lambda *_: content)
    assert main(["export", str(drawn_run.checkpoint), "--out", str(out)]) == 2
    assert "gives other logits" in capsys.readouterr().err
    assert not out.exists()


BAD = [
    (["export", "{model}", "--out", "m.bin"], "give a file that ends in .onnx"),
    (["export", "{model}", "--out", "m.onnx", "--int8"], "--data"),
    (["export", "bundled", "--out", "m.onnx"], "an ONNX file already"),
    (["export", "{bundled}", "--out", "m.onnx"], "M.ONNX is an ONNX file already"),
    (["export", "nowhere.ckpt", "--out", "m.onnx"], "no such file"),
]


@pytest.mark.parametrize(("words", "error"), BAD)
def test_wrong_usage_is_an_error_in_one_line(
    drawn_run, tmp_path, monkeypatch, capsys, words, error
):
    monkeypatch.chdir(tmp_path)
    bundled = tmp_path / "M.ONNX"
    bundled.write_bytes(BUNDLED.read_bytes())
    assert main([word.format(model=drawn_run.checkpoint, bundled=bundled) for word in words]) == 2
    err = capsys.readouterr().err
    assert error in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("*.onnx"))


class TestUntrustedFiles:
    def refused(self, tmp_path: Path, capsys, data: bytes) -> str:
        path = tmp_path / "x.onnx"
        path.write_bytes(data)
        (tmp_path / "a.jpg").write_bytes(jpeg(0))
        assert main(["predict", str(tmp_path / "a.jpg"), "--model", str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert len(err.splitlines()) == 1, err
        assert "x.onnx" in err
        return err

    def test_data_that_is_no_model_is_refused(self, tmp_path, capsys):
        for data in (b"", b"nonsense", bytes(1000)):
            assert "not a complete ONNX file" in self.refused(tmp_path, capsys, data)

    def test_half_a_file_is_refused(self, tmp_path, capsys, exported):
        self.refused(tmp_path, capsys, exported.read_bytes()[:100_000])

    def test_a_model_of_another_program_is_refused(self, tmp_path, capsys):
        assert "catordog export" in self.refused(tmp_path, capsys, graph("logits"))
        assert "catordog export" in self.refused(tmp_path, capsys, graph("y"))

    def test_a_model_that_refers_to_other_files_reads_none(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
        self.refused(tmp_path, capsys, graph("logits", external="secret.bin"))

    def test_a_complete_model_with_weights_elsewhere_is_refused(
        self, tmp_path, capsys, monkeypatch, exported
    ):
        monkeypatch.chdir(tmp_path)
        proto = onnx.load_from_string(exported.read_bytes())
        weights = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        Path("secret.bin").write_bytes(weights.raw_data)
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="secret.bin")
        self.refused(tmp_path, capsys, proto.SerializeToString())

    @pytest.mark.parametrize(
        "change",
        [
            {"classes": ["cat", "dog", "fox"]},
            {"classes": ["cat"]},
            {"temperature": 0},
            {"preprocess": {"size": 32, "resize": "squash", "mean": [0] * 3, "std": [1] * 3}},
            {"format": 99},
            {"ood": {"bank": "AAAA", "photos": 1, "step": 1.0, "distances": [0.0] * 513}},
        ],
    )
    def test_a_description_of_another_network_is_refused(self, tmp_path, capsys, exported, change):
        proto = onnx.load_from_string(exported.read_bytes())
        known = json.loads(proto.metadata_props[0].value)
        proto.metadata_props[0].value = json.dumps({**known, **change})
        self.refused(tmp_path, capsys, proto.SerializeToString())


def graph(output: str, external: str | None = None) -> bytes:
    """An ONNX file that adds four numbers."""
    weights = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    if external:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=external)
    built = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], [output])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [4])],
        [weights],
    )
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


class TestTheBundledModel:
    def test_it_is_loaded_without_a_path(self, tmp_path):
        write_folder(tmp_path, named(2))
        assert catordog.load().classes == ("cat", "dog")
        assert catordog.load("bundled").classes == ("cat", "dog")

    @pytest.mark.slow
    def test_it_classifies_real_photos(self, shared_photos):
        classifier = catordog.load()
        folder = shared_photos / "oxford-iiit-pet-60"
        species = {}
        for line in (folder / "annotations" / "list.txt").read_text().splitlines():
            if not line.startswith("#"):
                name, _, kind, _ = line.split()
                species[name] = {"1": "cat", "2": "dog"}[kind]
        predictions = classifier.predict([folder / "images" / f"{name}.jpg" for name in species])
        right = [
            prediction.label == kind
            for prediction, kind in zip(predictions, species.values(), strict=True)
        ]
        assert np.mean(right) > 0.95
        others = sorted((shared_photos / "neither-cat-nor-dog").glob("*.jpg"))
        verdicts = [prediction.verdict for prediction in classifier.predict(others)]
        assert verdicts.count("neither") > 0.9 * len(verdicts)

    @pytest.mark.slow
    def test_a_wheel_predicts_without_torch(self, tmp_path):
        subprocess.run(
            ["uv", "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), str(ROOT)]
            if uv()
            else [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
                  "--wheel-dir", str(tmp_path), str(ROOT)],
            check=True,
        )  # fmt: skip
        (wheel,) = tmp_path.glob("*.whl")
        assert wheel.stat().st_size < 16e6
        venv.create(tmp_path / "venv", with_pip=not uv())
        python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        install = ["uv", "pip", "install", "--quiet", "--python", str(python)] if uv() else [
            str(python), "-m", "pip", "install", "--quiet"
        ]  # fmt: skip
        subprocess.run([*install, str(wheel)], check=True)
        elsewhere = tmp_path / "elsewhere"
        write_folder(elsewhere, named(2))
        code = (
            "import sys; from catordog.cli import main; code = main(['predict', 'cat.0.jpg']); "
            "assert 'torch' not in sys.modules; sys.exit(code)"
        )
        ended = subprocess.run(
            [str(python), "-c", code], cwd=elsewhere, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert "cat.0.jpg" in ended.stdout
        ended = subprocess.run(
            [str(python), "-m", "catordog", "evaluate", "bundled", "--data", "drawn:n=50"],
            cwd=elsewhere, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 2
        assert "pip install 'catordog[train]'" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def uv() -> bool:
    from shutil import which

    return which("uv") is not None


def test_predicting_imports_nothing_heavy(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    code = (
        "import sys; from catordog.cli import main; main(['predict', 'a.jpg']); "
        "heavy = {'torch', 'scipy', 'matplotlib', 'rich', 'sklearn', 'lightning', 'pandas'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"
