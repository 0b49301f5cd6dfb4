"""`catordog softmax`: the examples of the documentation."""

from __future__ import annotations

import pytest

from catordog.cli import main


def table(capsys, *words: str) -> str:
    assert main(["softmax", *words]) == 0
    return capsys.readouterr().out


def test_logits_that_are_far_apart(capsys):
    out = table(capsys, "16.917", "0.772")
    dog, cat, words = out.splitlines()[1:]
    assert dog.split()[:4] == ["dog", "16.917", "1", "0.9999"]
    assert cat.split() == ["cat", "0.772", "9.735e-08", "0.0001", "9.7e-08"]
    assert words == "in words: dog 99.99999 %"


def test_logits_that_are_close(capsys):
    out = table(capsys, "1.004", "0.709")
    assert "0.5732" in out
    assert "0.4268" in out
    assert out.endswith("in words: not sure (dog 57 %)\n")


def test_a_temperature_above_1_softens_and_keeps_the_order(capsys):
    dog, cat = table(capsys, "1.004", "0.709", "--temperature", "2").splitlines()[1:3]
    assert dog.split()[:4] == ["dog", "1.004", "1", "0.5368"]
    assert cat.split()[:4] == ["cat", "0.709", "0.8629", "0.4632"]


def test_any_number_of_classes_negative_logits_and_names(capsys):
    out = table(capsys, "-1", "2", "3.5", "--names", "cat", "dog", "rabbit")
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["cat", "dog", "rabbit"]
    assert "rabbit 81 %" in out


@pytest.mark.parametrize(
    ("words", "logits"),
    [
        (["-1e-3", "2"], ["-0.001", "2"]),
        (["-1E+1", "-.5"], ["-10", "-0.5"]),
        (["-2.", "-3.5e-2"], ["-2", "-0.035"]),
        (["--", "-1", "2"], ["-1", "2"]),
        (["--temperature", "2", "--", "-1", "-2"], ["-1", "-2"]),
    ],
)
def test_negative_numbers_are_logits_and_no_options(capsys, words, logits):
    assert [line.split()[1] for line in table(capsys, *words).splitlines()[1:3]] == logits


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["1"], "two or more"),
        (["1", "nan"], "finite"),
        (["1", "2", "--names", "a"], "as many names"),
        (["1", "-inf"], "finite"),
        (["1", "2", "--temperature", "0"], "above 0"),
        (["1", "2", "--temperature", "-1"], "above 0"),
        (["1", "2", "--temperature", "nan"], "above 0"),
        (["1", "2", "--temperature", "inf"], "above 0"),
        (["1", "two"], "invalid float"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, words, reason):
    assert main(["softmax", *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert reason in err
    assert err.count("\n") == 1
