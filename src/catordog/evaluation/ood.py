"""Measure how well a model rejects out-of-distribution photos: those that show no class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood import ACCEPT, LEAST_PHOTOS
from catordog.confidence.wilson import wilson
from catordog.errors import CatordogError, PhotoError
from catordog.model.classifier import Classifier
from catordog.model.first_stage import Output
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.inputs import Inputs
from catordog.photos.photo import Photo

Scores = npt.NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class OodSource:
    """How well a model rejects the out-of-distribution photos of one source.

    Attributes:
        source: the path, as the user gave it.
        n: how many of its photos could be read.
        unreadable: how many could not.
        false_accept: see `OodResult`; None where no photo could be read.
        false_accept_ci95: its 95 % interval; None as above.
        auroc: see `OodResult`; None as above.
    """

    source: str
    n: int
    unreadable: int
    false_accept: float | None = None
    false_accept_ci95: Interval | None = None
    auroc: float | None = None


@dataclass(frozen=True, slots=True)
class OodResult:
    """How well a model separates out-of-distribution photos from photos of its classes.

    Attributes:
        n: the number of out-of-distribution photos.
        auroc: the probability that one of them has a higher ood score than an evaluated photo,
            0…1.
        false_accept: the false-accept rate: the fraction of them that is not called `neither`,
            0…1.
        false_accept_ci95: Wilson's 95 % interval of that fraction.
        true_accept: the true-accept rate: the fraction of the evaluated photos that is not called
            `neither`, 0…1.
        true_accept_ci95: Wilson's 95 % interval of that fraction.
        false_reject: the fraction of the evaluated photos that is called `neither`, 0…1.
        sources: the same for each path that was given.
        failures: one error for each out-of-distribution photo that could not be read.
    """

    n: int
    auroc: float
    false_accept: float
    false_accept_ci95: Interval
    true_accept: float
    true_accept_ci95: Interval
    false_reject: float
    sources: tuple[OodSource, ...] = ()
    failures: tuple[PhotoError, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "n": self.n,
            "unreadable": len(self.failures),
            "auroc": self.auroc,
            "false_accept": self.false_accept,
            "false_accept_ci95": self.false_accept_ci95,
            "false_reject": self.false_reject,
            "true_accept": self.true_accept,
            "true_accept_ci95": self.true_accept_ci95,
            "sources": [asdict(source) for source in self.sources],
        }


def ood_unavailable() -> CatordogError:
    """The error for a model that has no ood detector."""
    return CatordogError(
        "this model can't detect photos of no class: it was not calibrated, or on too few photos; "
        f"calibrate it on {LEAST_PHOTOS} validation photos or more"
    )


def accept_rate(ood_score: Scores, accept: float) -> tuple[float, Interval]:
    """The fraction of photos that are not called `neither`, and its 95 % interval (Wilson).

    It is the true-accept rate of photos of the classes, and the false-accept rate of others.

    Args:
        ood_score: of the photos, `[N]`, N ≥ 1.
        accept: photos with a higher score are called `neither`, 0…1.

    >>> accept_rate(np.array([0.2, 0.9, 0.995, 1.0]), 0.99)[0]
    0.5
    """
    accepted = int((ood_score <= accept).sum())
    return accepted / len(ood_score), wilson(accepted, len(ood_score))


def measure_ood(
    classifier: Classifier,
    ood_score: Scores,
    paths: Sequence[str],
    *,
    accept: float = ACCEPT,
    rules: DecodeRules = DEFAULT_RULES,
) -> OodResult:
    """Compare the ood scores of the evaluated photos with those of photos that show no class.

    Args:
        classifier: a model with an ood detector.
        ood_score: of the evaluated photos, `[N]`.
        paths: of the out-of-distribution photos: files, folders, archives or glob patterns; each
            is a source of its own.
        accept: the true-accept rate, 0…1: photos with a higher ood score are called `neither`.
        rules: which photos are decoded.

    Raises:
        CatordogError: the model has no ood detector, or none of the photos can be read.
    """
    if classifier.model.ood is None:
        raise ood_unavailable()
    given = [Inputs([path], rules) for path in paths]
    for inputs in given:
        inputs.count()  # raises where there are none
    scores: list[Scores] = []
    sources: list[OodSource] = []
    failures: list[PhotoError] = []
    for path, inputs in zip(paths, given, strict=True):
        found, unreadable = _scores(classifier, inputs)
        scores.append(found)
        failures += unreadable
        source = OodSource(path, len(found), len(unreadable))
        if len(found):
            rates = (*accept_rate(found, accept), _auroc(ood_score, found))
            source = OodSource(path, len(found), len(unreadable), *rates)
        sources.append(source)
    outside = np.concatenate(scores)
    if not len(outside):
        raise CatordogError(
            f"none of the {len(failures):,} photos of {', '.join(paths)} could be read: "
            f"{failures[0]}"
        )
    false_accept, false_accept_ci95 = accept_rate(outside, accept)
    true_accept, true_accept_ci95 = accept_rate(ood_score, accept)
    return OodResult(
        n=len(outside),
        auroc=_auroc(ood_score, outside),
        false_accept=false_accept,
        false_accept_ci95=false_accept_ci95,
        true_accept=true_accept,
        true_accept_ci95=true_accept_ci95,
        false_reject=float((ood_score > accept).mean()),
        sources=tuple(sources),
        failures=tuple(failures),
    )


def _scores(classifier: Classifier, inputs: Inputs) -> tuple[Scores, list[PhotoError]]:
    """The ood scores of the readable photos, and the errors of the others."""
    found = [output for _, output in classifier.stream(inputs, Photo.image)]
    scores = [output.ood_score for output in found if isinstance(output, Output)]
    failures = [output for output in found if isinstance(output, PhotoError)]
    return np.array(scores, dtype=np.float64), failures


def _auroc(inside: Scores, outside: Scores) -> float:
    from sklearn.metrics import roc_auc_score

    is_outside = np.arange(len(inside) + len(outside)) >= len(inside)
    return float(roc_auc_score(is_outside, np.concatenate([inside, outside])))
