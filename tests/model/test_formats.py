"""Model files: format 1 stays readable, and format 2 survives writing and reading."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

import catordog
from catordog.confidence.ood import OodDetector, fit_ood
from catordog.errors import CatordogError
from catordog.model.bundled import BUNDLED
from catordog.model.formats import FORMATS, format_of
from catordog.model.info import ModelInfo
from catordog.photos.splits import SplitFractions
from catordog.photos.synthetic import draw
from model.small import INFO, write_checkpoint, write_model

FEATURES = np.random.default_rng(0).gamma(2, 1, (60, 16)).astype(np.float32)
FULL = replace(
    INFO,
    split_fractions=SplitFractions.of(0.2, 0.25),
    tta_flip=True,
    temperature=1.7,
    nonconformity=(0.1, 0.4),
    ood=OodDetector.from_dict(fit_ood(FEATURES).to_dict()),
)


def format_1() -> dict[str, object]:
    """The description of `FULL` with the keys of format 1."""
    assert FULL.ood is not None
    return {
        "format": 1,
        "classes": ["cat", "dog"],
        "network": "residual",
        "network_args": {"widths": [8, 16], "blocks": [1, 1]},
        "preprocess": FULL.preprocess.to_dict(),
        "fractions": {"val": 0.2, "test": 0.25},
        "mirror": True,
        "temperature": 1.7,
        "threshold": 0.7,
        "strangeness": [0.1, 0.4],
        "novelty": FULL.ood.to_dict(),
    }


def test_a_description_of_format_1_reads_like_one_of_format_2():
    assert replace(ModelInfo.from_dict(format_1()), network_args=INFO.network_args) == FULL


def test_a_description_of_format_2_survives_writing_and_reading():
    written = FULL.to_dict()
    assert written["format"] == 2
    assert ModelInfo.from_dict(written) == FULL
    assert ModelInfo.from_dict(INFO.to_dict()) == INFO


def test_a_checkpoint_of_format_1_gives_the_logits_of_one_of_format_2(tmp_path):
    old = catordog.load(write_checkpoint(tmp_path / "old.ckpt", format_1()))
    new = catordog.load(write_checkpoint(tmp_path / "new.ckpt", FULL.to_dict()))
    picture = draw(0).image
    assert (old.logits(picture) == new.logits(picture)).all()
    assert old.predict(picture) == new.predict(picture)


def test_an_onnx_file_of_format_1_is_read_in_full(tmp_path):
    path = write_model(tmp_path, "onnx")
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"catordog": json.dumps(format_1())})
    path.write_bytes(proto.SerializeToString())
    found = catordog.load(path).model
    assert replace(found, network_args=INFO.network_args) == FULL


def test_rewriting_a_checkpoint_of_format_1_makes_it_format_2(tmp_path):
    path = write_checkpoint(tmp_path / "old.ckpt", format_1())
    format_of(path).rewrite(path, catordog.load(path).model)
    assert torch.load(path, weights_only=True)["catordog"]["format"] == 2
    assert catordog.load(path).model.nonconformity == FULL.nonconformity


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_rewritten_description_is_read_back_and_logits_stay(tmp_path, suffix):
    path = write_model(tmp_path, suffix.removeprefix("."))
    before = catordog.load(path)
    changed = replace(before.model, temperature=2.5, nonconformity=(0.2,), ood=FULL.ood)
    FORMATS[suffix].rewrite(path, changed)
    after = catordog.load(path)
    assert after.model == changed
    picture = draw(0).image
    assert (after.logits(picture) == before.logits(picture)).all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_no_model_is_refused_and_not_rewritten(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_text("not a model")
    with pytest.raises(CatordogError, match="not a complete"):
        FORMATS[suffix].rewrite(path, FULL)
    assert path.read_text() == "not a model"


def test_suffixes_are_matched_in_any_case():
    assert format_of(BUNDLED.with_suffix(".ONNX")) is FORMATS[".onnx"]
