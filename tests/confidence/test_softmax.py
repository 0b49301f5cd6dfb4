"""Softmax, confidences as text, and verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catordog.confidence import format_confidence, format_percent, judge, softmax
from catordog.confidence.verdict import check_rules
from catordog.errors import CatordogError

# Raw logits of (dog, cat), confidences to four digits, and exact confidences.
EXAMPLES = [
    ((16.917, 0.772), (0.9999, 0.0001), (1 - 9.7340e-08, 9.7340e-08)),
    ((1.004, 0.709), (0.5732, 0.4268), (0.5732197727, 0.4267802273)),
]
logits = st.lists(st.floats(-1e4, 1e4, width=64), min_size=1, max_size=8)


@pytest.mark.parametrize(("raw", "digits", "exact"), EXAMPLES)
def test_the_worked_examples_agree_to_four_digits_and_to_1e_9(raw, digits, exact):
    confidences = softmax(raw)
    assert [format_confidence(p) for p in confidences] == [f"{p:.4f}" for p in digits]
    assert confidences == pytest.approx(exact, abs=1e-9)


def test_the_worked_examples_agree_with_the_formula_at_high_precision():
    from decimal import Decimal, getcontext

    getcontext().prec = 50
    for raw, _, _ in EXAMPLES:
        powers = [Decimal(str(x)).exp() for x in raw]
        exact = [float(power / sum(powers)) for power in powers]
        assert softmax(raw) == pytest.approx(exact, rel=1e-14, abs=0)


@given(logits, st.floats(-1e4, 1e4))
def test_adding_a_number_to_all_logits_changes_nothing(raw, shift):
    assert softmax(np.array(raw) + shift) == pytest.approx(softmax(raw), abs=1e-9)


@given(logits, st.floats(0.01, 100))
def test_confidences_are_finite_within_0_and_1_and_sum_to_1(raw, temperature):
    confidences = softmax(raw, temperature)
    assert np.isfinite(confidences).all()
    assert (confidences >= 0).all()
    assert (confidences <= 1).all()
    assert confidences.sum() == pytest.approx(1, abs=1e-12)


@given(logits, st.floats(0.01, 100))
def test_a_temperature_never_changes_the_order(raw, temperature):
    confidences = softmax(raw, temperature)
    for i, x in enumerate(raw):
        for j, y in enumerate(raw):
            if x >= y:
                assert confidences[i] >= confidences[j]


@given(st.floats(-1e4, 1e4), st.integers(1, 10))
def test_equal_logits_share_the_confidence(value, count):
    assert softmax([value] * count) == pytest.approx([1 / count] * count, abs=1e-15)


def test_extreme_logits_stay_finite():
    assert softmax([1e4, -1e4]).tolist() == [1.0, 0.0]
    assert softmax([-1e4, 1e4]).tolist() == [0.0, 1.0]
    assert softmax([1e4, 1e4]).tolist() == [0.5, 0.5]
    assert softmax([1e308, -1e308, 0.0]).tolist() == [1.0, 0.0, 0.0]


def test_softmax_works_along_the_last_axis():
    rows = np.array([[16.917, 0.772], [1.004, 0.709]])
    assert softmax(rows).shape == (2, 2)
    assert softmax(rows)[1] == pytest.approx(softmax(rows[1]))


def test_a_temperature_above_1_softens():
    assert softmax([2.0, 0.0], 2.0) == pytest.approx(softmax([1.0, 0.0]))


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf, 1.0], [], 3.0])
def test_values_that_are_not_logits_are_refused(bad):
    with pytest.raises(CatordogError, match="logit"):
        softmax(bad)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_a_temperature_that_is_not_a_positive_number_is_refused(temperature):
    with pytest.raises(CatordogError, match="temperature"):
        softmax([1.0, 2.0], temperature)


@pytest.mark.parametrize(
    ("confidence", "words"),
    [
        (0.5732, "57 %"),
        (0.95, "95 %"),
        (0.983, "98 %"),
        (0.9999, "99.99 %"),
        (1 - 9.7e-08, "99.99999 %"),
        (0.9989, "99.8 %"),
        (0.99999999999, "99.999999999 %"),
        (1e-14, "0.000000000001 %"),
        (1e-15, "0.0000000000001 %"),
        (9e-16, "< 0.0000000000001 %"),
        (0.0, "< 0.0000000000001 %"),
        (0.004, "0.4 %"),
        (0.0095, "1 %"),
        (2.3e-9, "0.0000002 %"),
        (0.9, "90 %"),
        (0.949, "94 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.99904, "99.9 %"),
    ],
)
def test_percent_has_as_many_nines_as_the_confidence(confidence, words):
    assert format_percent(confidence) == words


@given(st.floats(0, 1))
def test_no_confidence_reads_as_certain(confidence):
    assert not format_percent(confidence).startswith(("100", "0 "))
    assert format_confidence(confidence) not in {"1.0000", "0.0000"}


@pytest.mark.parametrize(
    ("digits", "most", "least"), [(2, "0.99", "0.01"), (6, "0.999999", "0.000001")]
)
def test_a_fixed_number_of_digits_never_reads_as_0_or_1(digits, most, least):
    assert format_confidence(1.0, digits) == most
    assert format_confidence(0.0, digits) == least


def test_a_confidence_that_float64_rounds_to_0_or_1_does_not_read_as_certain():
    assert format_percent(softmax([1e4, -1e4])[0]) == "> 99.9999999999999 %"
    assert format_percent(softmax([1e4, -1e4])[1]) == "< 0.0000000000001 %"
    assert format_percent(softmax([16.917, 0.772], 0.1)[0]) == "> 99.9999999999999 %"


@given(st.floats(0.9, 1, exclude_max=True))
def test_percent_never_rounds_up_to_certainty(confidence):
    shown = float(format_percent(confidence).removesuffix(" %").removeprefix("> ")) / 100
    assert shown <= confidence + 1e-15
    assert 1 - shown < 11 * (1 - confidence) + 1e-15


def test_the_verdict_of_the_examples():
    sure = judge([0.772, 16.917], ("cat", "dog"))
    guess = judge([0.709, 1.004], ("cat", "dog"))
    assert (sure.label, sure.verdict, sure.in_words()) == ("dog", "dog", "dog 99.99999 %")
    assert (guess.label, guess.verdict) == ("dog", "not sure")
    assert guess.in_words() == "not sure (dog 57 %)"
    assert guess.logits == {"cat": 0.709, "dog": 1.004}
    assert judge([0.709, 1.004], ("cat", "dog"), threshold=0.5).verdict == "dog"


def test_the_label_follows_the_logits_where_confidences_are_rounded_to_one_number():
    # Both confidences are 0.5 in float64, but the logits differ.
    assert judge([0.0, 1e-300], ("cat", "dog")).label == "dog"


def test_a_prediction_uses_the_temperature_and_has_every_field():
    sure = judge([4.0, 0.0], ("cat", "dog"), ood_score=0.5)
    soft = judge([4.0, 0.0], ("cat", "dog"), temperature=4.0, ood_score=0.5)
    assert (sure.verdict, soft.verdict) == ("cat", "not sure")
    assert soft.confidence == softmax([1.0, 0.0])[0]
    assert list(soft.confidences) == ["cat", "dog"]
    assert [*soft.confidences.values()] == softmax([1.0, 0.0]).tolist()
    assert soft.ood_score == 0.5
    assert soft.to_dict() == {
        "label": "cat",
        "confidence": soft.confidence,
        "confidences": soft.confidences,
        "logits": {"cat": 4.0, "dog": 0.0},
        "verdict": "not sure",
    }


def test_a_confidence_at_the_threshold_gives_the_class():
    assert judge([0.0, 0.0], ("cat", "dog"), threshold=0.5).verdict == "cat"


def test_there_must_be_as_many_logits_as_classes():
    with pytest.raises(ValueError, match="zip"):
        judge([1.0, 2.0], ("cat", "dog", "hare"))


def test_a_notebook_shows_the_verdict_bars_and_logits():
    page = judge([1.004, 0.709], ("dog", "<cat>"))._repr_html_()
    assert "<b>not sure (dog 57 %)</b>" in page
    assert "width:57.32%" in page
    assert "<td>43 %</td>" in page
    assert "logit 0.709" in page
    assert "&lt;cat&gt;" in page
    assert "<cat>" not in page
    assert "<img" not in page


def test_logits_in_16_bits_are_computed_in_64():
    raw = np.array([1.004, 0.709], np.float16)
    assert softmax(raw).tolist() == softmax(raw.astype(np.float64)).tolist()
    prediction = judge(raw, ("dog", "cat"))
    assert [*prediction.logits.values()] == raw.astype(np.float64).tolist()
    assert prediction.confidence == softmax(raw.astype(np.float64))[0]


def test_logits_far_apart_give_no_warning():
    with np.errstate(all="raise"):
        assert softmax([1e308, -1e308, 0.0], 0.01).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"threshold": 1.5}, "--threshold 1.5 is not a confidence"),
        ({"accept": 0}, "--accept 0 is not a fraction"),
        ({"threshold": 0.5, "error_rate": 0.1}, "give one"),
    ],
)
def test_rules_out_of_their_range_are_refused(rules, words):
    given = {"threshold": None, "error_rate": None, "accept": None, **rules}
    with pytest.raises(CatordogError, match=words):
        check_rules(**given)
