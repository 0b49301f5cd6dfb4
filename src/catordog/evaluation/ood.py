"""Measure how well a model rejects out-of-distribution photos: those that show no class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood import ACCEPT, LEAST_PHOTOS
from catordog.errors import CatordogError, PhotoError
from catordog.model.classifier import Classifier, Output
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.inputs import Inputs


@dataclass(frozen=True, slots=True)
class OodResult:
    """How well a model separates out-of-distribution photos from photos of its classes.

    Attributes:
        n: the number of out-of-distribution photos.
        auroc: the probability that one of them has a higher ood score than an evaluated photo,
            0…1.
        false_accept: the false-accept rate: the fraction of them that is not called `neither`,
            0…1.
        false_reject: the fraction of the evaluated photos that is called `neither`, 0…1.
        failures: one error for each out-of-distribution photo that could not be read.
    """

    n: int
    auroc: float
    false_accept: float
    false_reject: float
    failures: tuple[PhotoError, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "n": self.n,
            "unreadable": len(self.failures),
            "auroc": self.auroc,
            "false_accept": self.false_accept,
            "false_reject": self.false_reject,
        }


def ood_unavailable() -> CatordogError:
    """The error for a model that has no ood detector."""
    return CatordogError(
        "this model can't detect photos of no class: it was not calibrated, or on too few photos; "
        f"calibrate it on {LEAST_PHOTOS} validation photos or more"
    )


def measure_ood(
    classifier: Classifier,
    ood_score: npt.NDArray[np.float64],
    paths: Sequence[str],
    *,
    accept: float = ACCEPT,
    rules: DecodeRules = DEFAULT_RULES,
) -> OodResult:
    """Compare the ood scores of the evaluated photos with those of photos that show no class.

    Args:
        classifier: a model with an ood detector.
        ood_score: of the evaluated photos, `[N]`.
        paths: of the out-of-distribution photos: files, folders, archives or glob patterns.
        accept: the true-accept rate, 0…1: photos with a higher ood score are called `neither`.
        rules: which photos are decoded.

    Raises:
        CatordogError: the model has no ood detector, or none of the photos can be read.
    """
    from sklearn.metrics import roc_auc_score

    if classifier.model.ood is None:
        raise ood_unavailable()
    inputs = Inputs(paths, rules)
    inputs.count()  # raises where there are none
    found = [output for _, output in classifier.stream(inputs, classifier.model.preprocess.load)]
    scores = [output.ood_score for output in found if isinstance(output, Output)]
    failures = tuple(output for output in found if isinstance(output, PhotoError))
    if not scores:
        raise CatordogError(
            f"none of the {len(failures):,} photos of {', '.join(paths)} could be read: "
            f"{failures[0]}"
        )
    outside = np.array(scores, dtype=np.float64)
    is_outside = np.arange(len(ood_score) + len(outside)) >= len(ood_score)
    return OodResult(
        n=len(outside),
        auroc=float(roc_auc_score(is_outside, np.concatenate([ood_score, outside]))),
        false_accept=float((outside <= accept).mean()),
        false_reject=float((ood_score > accept).mean()),
        failures=failures,
    )
