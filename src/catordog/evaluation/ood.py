"""How well a model rejects photos that show none of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catordog.confidence.ood import ACCEPT, LEAST_PHOTOS
from catordog.errors import CatordogError
from catordog.evaluation.evaluate import Evaluation
from catordog.model.classifier import Classifier, Output


@dataclass(frozen=True, slots=True)
class OodResult:
    """How well a model tells photos that show none of its classes.

    Attributes:
        n: such photos.
        auroc: the chance that one of them looks stranger than one of the evaluated, 0…1.
        false_accept: the share of them that is not called `neither`, 0…1.
        false_reject: the share of the evaluated photos that is, 0…1.
    """

    n: int
    auroc: float
    false_accept: float
    false_reject: float


def ood_unavailable() -> CatordogError:
    """What to say where a model has no ood detector."""
    return CatordogError(
        "this model can't tell photos of no class: it was not calibrated, or on too few photos; "
        f"let a training with {LEAST_PHOTOS} validation photos or more run to its end"
    )


def measure_ood(classifier: Classifier, result: Evaluation, paths: Sequence[str]) -> OodResult:
    """Hold the evaluated photos against photos that show none of the classes.

    Args:
        classifier: the model.
        result: its evaluation.
        paths: of those photos: files, folders, zips or globs.

    Raises:
        CatordogError: the model can't tell, or none of the photos can be read.
    """
    from sklearn.metrics import roc_auc_score

    from catordog.photos.inputs import Inputs

    if result.ood_score is None:
        raise ood_unavailable()
    inputs = Inputs(paths)
    inputs.count()  # says so where there are none
    strange = [
        output.ood_score
        for _, output in classifier.stream(inputs, classifier.model.preprocess.load)
        if isinstance(output, Output) and output.ood_score is not None
    ]
    if not strange:
        raise CatordogError(f"none of the photos of {', '.join(paths)} could be read")
    scores = np.concatenate([result.ood_score, strange])
    none = np.arange(len(scores)) >= len(result.ood_score)
    return OodResult(
        len(strange),
        float(roc_auc_score(none, scores)),
        float((np.array(strange) <= ACCEPT).mean()),
        float((result.ood_score > ACCEPT).mean()),
    )
