"""Classes of a dataset are matched to those of a model by name."""

from __future__ import annotations

import pytest

from catordog.errors import CatordogError
from catordog.model.class_matching import match_classes


@pytest.mark.parametrize(
    ("data", "model", "indices"),
    [
        (("cat", "dog"), ("ant", "cat", "dog"), [1, 2]),
        (("Cats", "DOG"), ("cat", "dog"), [0, 1]),
        (("cat", "cats"), ("cat", "cats"), [0, 1]),
        (("cat", "cats"), ("cats", "cat"), [1, 0]),
        (("CAT",), ("cats", "cat"), [1]),
        (("glass",), ("glass", "glas"), [0]),
    ],
)
def test_the_same_name_wins_then_case_then_a_final_s(data, model, indices):
    assert match_classes(data, model, "pets") == indices


def test_an_unknown_class_is_refused():
    with pytest.raises(CatordogError, match=r"pets has the class 'fox'.* it knows cat, dog"):
        match_classes(("cat", "fox"), ("cat", "dog"), "pets")


def test_an_ambiguous_class_is_refused():
    with pytest.raises(CatordogError, match="the class 'CatS' may be 'cats' or 'CATS'"):
        match_classes(("CatS",), ("cats", "CATS"), "pets")
