"""The documentation: its examples run, its options exist, and its numbers come from the code."""

from __future__ import annotations

import ast
import math
import re
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from catordog import softmax
from catordog.cli import COMMANDS, main, options_of
from catordog.confidence.temperature import LEAST, fit_temperature
from catordog.confidence.verdict import judge
from conftest import ROOT, Example, examples, jpeg, pages

SURE, GUESS = (16.917, 0.772), (1.004, 0.709)
EXAMPLES = examples()


def files_of(example: Example) -> set[str]:
    """The names of files in an example: strings in its code, and not words in its comments."""
    constants = (
        node for node in ast.walk(ast.parse(example.code)) if isinstance(node, ast.Constant)
    )
    return {str(constant.value) for constant in constants}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.page}:{e.line}")
def test_every_python_example_runs(example, tmp_path, monkeypatch, request):
    """In a folder with a photo and the models that it names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(jpeg(1, size=80))
    bundled = ROOT / "src" / "catordog" / "model" / "bundled.onnx"
    shutil.copy(bundled, tmp_path / "model.onnx")
    if "best.ckpt" in files_of(example):
        shutil.copy(request.getfixturevalue("drawn_run").checkpoint, tmp_path / "best.ckpt")
    lines = "\n" * (example.line - 1) + example.code  # so that a traceback has the page's lines
    exec(compile(lines, str(ROOT / example.page), "exec"), {"__name__": "example"})


COMMAND_LINE = re.compile(rf"catordog ({'|'.join(COMMANDS)})\b([^`\n|#]*)")
OPTION = re.compile(r"(?<![\w-])--[A-Za-z][\w.-]*")


def documented_options() -> dict[str, dict[str, str]]:
    """The options of each command in the documentation, and the page of each."""
    found: dict[str, dict[str, str]] = {name: {} for name in COMMANDS}
    for page in pages():
        text = page.read_text("utf-8").replace("\\\n", " ")  # a line that is continued
        for name, words in COMMAND_LINE.findall(text):
            for option in OPTION.findall(words):
                found[name].setdefault(option.rstrip("."), page.relative_to(ROOT).as_posix())
    return found


def test_the_documentation_mentions_only_options_that_exist(capsys):
    documented = documented_options()
    assert sum(map(len, documented.values())) > 20
    missing = {
        f"catordog {name} {option}": page
        for name in set(COMMANDS) - {"train"}
        for option, page in documented[name].items()
        if option not in options_of(name)
    }
    assert not missing


def test_the_documentation_mentions_only_options_of_train_that_exist(capsys):
    assert main(["train", "--help-all"]) == 0
    exist = set(OPTION.findall(capsys.readouterr().out)) | options_of("train")
    # Arguments of a class that the user chooses are not listed: --model.network_args.blocks.
    missing = {
        option: page
        for option, page in documented_options()["train"].items()
        if option not in exist and option.rpartition(".")[0] not in exist
    }
    assert not missing


@pytest.fixture(scope="module")
def page() -> str:
    return " ".join((ROOT / "docs/logits.md").read_text("utf-8").split())


def powers(value: float) -> str:
    """9.7e-08 as `9.7 × 10⁻⁸`."""
    digits, exponent = f"{value:.1e}".split("e")
    small = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{small}"


def test_logits_and_odds(page):
    for logits in (SURE, GUESS):
        difference = logits[0] - logits[1]
        assert f"{difference:.3f}" in page
    assert f"({math.exp(16.917 - 0.772):,.0f})" in page
    assert f"odds of {math.exp(1.004 - 0.709):.2f} to one" in page
    shifted = softmax([logit + 100 for logit in GUESS])
    assert shifted == pytest.approx(softmax(GUESS))


def test_softmax(page):
    small = softmax(SURE)[1]
    assert f"(exactly 1 − {powers(small)})" in page
    assert f"(exactly {powers(small)})" in page
    assert "| second | 0.5732 | 0.4268 |" in page
    assert softmax(GUESS).round(4).tolist() == [0.5732, 0.4268]
    for logits in (SURE, GUESS):
        assert f"`{judge(logits, ('dog', 'cat')).in_words()}`" in page


def test_activations_at_the_end(page):
    raw = np.array([-1.2, -3.4])
    sigmoid = 1 / (1 + np.exp(-raw))
    assert f"−1.2, −3.4: confidence {softmax(raw)[0]:.4f}" in page
    assert f"0, 0: confidence {softmax(np.maximum(raw, 0))[0]:.4f}" in page
    assert f"{sigmoid[0]:.4f}, {sigmoid[1]:.4f}: confidence {softmax(sigmoid)[0]:.4f}" in page
    twice = softmax(softmax(raw))[0]
    assert f"{softmax(raw)[0]:.4f}, {softmax(raw)[1]:.4f}: confidence {twice:.4f}" in page
    assert page.count(f"{softmax([1.0, 0.0])[0]:.4f}") == 3


def test_cross_entropy_takes_logits(page):
    extreme = torch.tensor([[200.0, 0.0]])
    assert extreme.softmax(1)[0, 1] == 0
    assert float(F.cross_entropy(extreme, torch.tensor([1]))) == 200
    wrong = torch.tensor([[-8.0, 0.0]], dtype=torch.float64, requires_grad=True)
    slopes = []
    for outputs in (wrong, wrong.softmax(1)):
        (slope,) = torch.autograd.grad(F.cross_entropy(outputs, torch.tensor([0])), wrong)
        slopes.append(abs(float(slope[0, 0])))
    assert f"the gradient is {slopes[0]:.4f} on logits, and {slopes[1]:.4f} after softmax" in page
    worst, best = (-math.log(softmax(softmax([x, 0.0]))[0]) for x in (-50.0, 50.0))
    assert f"flat there, at {worst:.2f}, and can't fall below {best:.2f}" in page


def test_a_temperature_from_two_photos(page):
    two = np.array([[3.0, 0.0], [1.0, 0.0]])
    assert f"a temperature of {fit_temperature(two, np.array([0, 0])):.2f} instead of 0" in page
    assert fit_temperature(two, np.array([0, 0]), prior=0) == LEAST


def test_temperatures(page):
    for temperature in (0.5, 1, 2, 4):
        (row,) = re.findall(rf"\| {temperature} \| ([^|]+) \| ([\d.]+) \|", page)
        doubt = softmax(SURE, temperature)[1]
        shown = f"1 − {powers(doubt)}" if doubt < 1e-3 else f"{1 - doubt:.4f}"
        assert row == (shown, f"{softmax(GUESS, temperature)[0]:.4f}")


def test_the_glossary_has_a_row_for_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    source = ROOT / "src" / "catordog"
    modules = [path.relative_to(source).as_posix() for path in source.rglob("*.py")]
    assert not [name for name in modules if f"| `{name}` |" not in text]
