"""`catordog export --out m.mlpackage`."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import catordog
from catordog.cli import main
from catordog.model.backbone import Backbone
from catordog.model.classifier import Classifier
from catordog.model.export.network import silence
from catordog.model.info import ModelInfo
from catordog.model.linear_head import LinearHead
from catordog.model.taught_layer import NETWORK, TaughtLayer
from catordog.photos.synthetic import draw
from model.mil import run_package
from model.small import write_checkpoint

installed = pytest.mark.skipif(find_spec("coremltools") is None, reason="needs coremltools")


def photos(classifier: Classifier, n: int) -> np.ndarray:
    size = classifier.model.preprocess.size
    return np.stack([np.asarray(draw(index, 5, size=size).image) for index in range(n)])


def outputs(package: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    with silence(), torch.no_grad():
        rows = [
            run_package(package, torch.tensor(row).permute(2, 0, 1)[None].float()) for row in pixels
        ]
    return {name: np.concatenate([row[name].numpy() for row in rows]) for name in rows[0]}


def taught(path: Path, network: str = NETWORK) -> Path:
    """A model as `catordog teach` writes one, whose last layer is random."""
    backbone = Backbone.read(size=64)
    generator = np.random.default_rng(0)
    weight = generator.normal(0, 0.02, (backbone.width + backbone.concept_count, 3))
    head = LinearHead(weight.astype(np.float32), np.float32([1, 0, -1]))
    model = ModelInfo(("ant", "bee", "cow"), network, preprocess=backbone.preprocess)
    path.write_bytes(TaughtLayer(model, head, None).to_onnx(backbone, None))
    return path


@pytest.fixture(scope="module")
def flipping(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coreml")
    write_checkpoint(folder / "m.ckpt", tta_flip=True, temperature=1.5)
    assert main(["export", str(folder / "m.ckpt"), "--out", str(folder / "m.mlpackage")]) == 0
    return folder


@installed
@pytest.mark.slow
class TestThePackage:
    def test_its_program_gives_the_logits_of_the_checkpoint_for_pixels(self, flipping):
        classifier = catordog.load(flipping / "m.ckpt")
        pixels = photos(classifier, 4)
        logits, features = classifier.features_of_pixels(pixels)
        found = outputs(flipping / "m.mlpackage", pixels)
        np.testing.assert_allclose(found["logits"], logits, atol=1e-3)
        np.testing.assert_allclose(found["features"], features, atol=1e-3)

    @pytest.mark.skipif(sys.platform != "darwin", reason="only Apple devices run Core ML")
    def test_an_apple_device_gives_the_logits_of_the_checkpoint(self, flipping):
        from coremltools.models import MLModel

        classifier = catordog.load(flipping / "m.ckpt")
        package = MLModel(str(flipping / "m.mlpackage"))
        for index in range(4):
            image = draw(index, 5, size=32).image
            logits = package.predict({"photo": image})["logits"]
            np.testing.assert_allclose(logits[0], classifier.logits([image])[0], atol=1e-2)

    def test_its_input_is_an_image_and_its_metadata_describe_the_model(self, flipping):
        with silence():
            from coremltools.models.utils import load_spec

        described = load_spec(str(flipping / "m.mlpackage")).description
        (photo,) = described.input
        assert (photo.name, photo.type.WhichOneof("Type")) == ("photo", "imageType")
        assert (photo.type.imageType.width, photo.type.imageType.height) == (32, 32)
        assert {
            output.name: list(output.type.multiArrayType.shape) for output in described.output
        } == {"logits": [1, 2], "features": [1, 16]}
        known = dict(described.metadata.userDefined)
        assert json.loads(known["classes"]) == ["cat", "dog"]
        assert (float(known["temperature"]), float(known["threshold"])) == (1.5, 0.7)
        model = ModelInfo.from_dict(json.loads(known["catordog"]))
        assert not model.tta_flip, "its program flips already"
        assert model.preprocess == catordog.load(flipping / "m.ckpt").model.preprocess

    def test_a_package_is_replaced_and_nothing_else_is_left(self, flipping, capsys):
        out = flipping / "m.mlpackage"
        (out / "old").write_text("of the old package")
        assert main(["export", str(flipping / "m.ckpt"), "--out", f"{out}/", "--half"]) == 0
        assert "only Apple devices run it" in capsys.readouterr().err
        assert not (out / "old").exists()
        assert sorted(path.name for path in flipping.iterdir()) == ["m.ckpt", "m.mlpackage"]
        weights = out / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
        state = torch.load(flipping / "m.ckpt", weights_only=True)["state_dict"]
        assert weights.stat().st_size < 3 * sum(x.numel() for x in state.values())

    def test_a_taught_model_gives_the_same_logits(self, tmp_path):
        classifier = catordog.load(taught(tmp_path / "m.onnx"))
        pixels = photos(classifier, 2)
        out = tmp_path / "m.mlpackage"
        assert main(["export", str(tmp_path / "m.onnx"), "--out", str(out)]) == 0
        found = outputs(out, pixels)["logits"]
        np.testing.assert_allclose(found, classifier.logits_of_pixels(pixels), atol=1e-3)


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        ("bundled", [], "two with rules between them"),
        ("m.onnx", [], "export the .ckpt that this one was made from"),
        ("m.ckpt", ["--data", "drawn"], "--data: only Apple devices run"),
        ("m.ckpt", ["--int8", "--data", "drawn"], "--int8 is not possible for .mlpackage"),
    ],
)
def test_what_cannot_be_exported_is_an_error_in_one_line(
    tmp_path, monkeypatch, capsys, model, options, error
):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "m.ckpt")
    if model == "m.onnx":
        taught(tmp_path / model, network="of another program")
    assert main(["export", model, "--out", "m.mlpackage", *options]) == 2
    err = capsys.readouterr().err
    assert error in err
    assert len(err.splitlines()) == 1
    assert not Path("m.mlpackage").exists()


def test_without_coremltools_the_error_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    write_checkpoint(tmp_path / "m.ckpt")
    words = ["export", str(tmp_path / "m.ckpt"), "--out", str(tmp_path / "m.mlpackage")]
    assert main(words) == 2
    assert capsys.readouterr().err.strip().endswith("run pip install 'catordog[coreml]'")


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_folder_or_file_that_is_no_package_is_kept(tmp_path, capsys, is_folder):
    out = tmp_path / "m.mlpackage"
    kept = out / "photo.jpg" if is_folder else out
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"mine")
    write_checkpoint(tmp_path / "m.ckpt")
    assert main(["export", str(tmp_path / "m.ckpt"), "--out", str(out)]) == 2
    assert "is no folder with a Manifest.json: give another name" in capsys.readouterr().err
    assert kept.read_bytes() == b"mine"
