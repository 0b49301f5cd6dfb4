"""Judge the labels of a dataset by cross-validation on the features of a network.

Without a model, the network is the general backbone that comes with the package, at a size at which
a photo takes half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood_general import own_distances
from catordog.errors import CatordogError, PhotoError
from catordog.evaluation.labels import (
    Suspect,
    cross_validated,
    ood_scores,
    signed_sqrt,
    suspect_labels,
)
from catordog.model.backbone import Backbone, compact_rows, rows_of
from catordog.model.classifier import Classifier
from catordog.model.feature_cache import features_of
from catordog.photos.decode import DecodeRules
from catordog.photos.findings import Findings
from catordog.photos.parallel import batched
from catordog.photos.photo import NO_LABEL, Photo
from catordog.photos.reading import decoded
from catordog.terminal import info, progress

GENERAL = "general backbone"
"""The name of the network that judges labels where no model is given."""

SIZE = 224
"""Of its input, in pixels."""

LEAST_PHOTOS = 5
"""Cross-validation needs this many different photos of each class."""

OOD_DEVIATIONS = 5.0
"""A photo counts as out-of-distribution if its cosine distance from its neighbours in a model's
features is this many robust standard deviations above the median."""

GENERAL_DEVIATIONS = 2.7
"""Likewise of the distance by the general backbone, whose tail is short, in deviations that the
upper tenth gives. One in 250 photos of *Dogs vs. Cats* is beyond it, and most of these show no pet,
or a drawing of one; of sets without such photos, up to one in 50."""

LEAST_FOR_OOD = 20
"""Different photos, of which one can be said to be unlike the others by the general backbone."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the features of a network say of labels and photos.

    Attributes:
        suspects: photos whose label is probably wrong, the highest score first.
        wrong: an estimate of how many labels are wrong: that many of the first suspects.
        ood: indices of photos that seem to show none of the classes, each with its score in robust
            standard deviations, the highest first.
        unjudged: classes with too few photos for their labels to be judged.
    """

    suspects: list[Suspect] = field(default_factory=list)
    wrong: int = 0
    ood: list[tuple[int, float]] = field(default_factory=list)
    unjudged: tuple[str, ...] = ()


def judge_by_backbone(findings: Findings, rules: DecodeRules) -> Judgement:
    """Judge labels and photos by the general backbone, whose features are cached.

    Labels of classes with fewer than `LEAST_PHOTOS` different readable photos are not judged.

    Args:
        findings: what was found without a model.
        rules: that the photos are decoded by.
    """
    readable = [index for index, facts in enumerate(findings.facts) if facts]
    few = _small_classes(findings, readable)
    names = tuple(findings.dataset.classes[label] for label in few)
    labels, skipped = findings.dataset.photos.labels, {NO_LABEL, *few}
    judged = {index for index in readable if labels[index] not in skipped}
    classes = {labels[index] for index in judged}
    groups = len({findings.groups[index] for index in readable})
    if len(classes) < 2 and groups < LEAST_FOR_OOD:
        return Judgement(unjudged=names)
    backbone = Backbone.read(size=SIZE)
    photos = [findings.photos[index] for index in readable]
    records, found, _ = features_of(photos, backbone, rules)
    indices = [readable[row] for row in found]
    features = records["features"].astype(np.float32)
    concepts = backbone.concepts(features)
    ood = []
    own = np.array([findings.groups[index] for index in indices])
    if len(np.unique(own)) >= LEAST_FOR_OOD:
        distances = own_distances(features, concepts, own)
        ood = _outliers(
            distances, indices, findings.confirmed, GENERAL_DEVIATIONS, _upper_deviation
        )
    result = Judgement(ood=ood, unjudged=names)
    if len(classes) < 2:
        return result
    chosen = [row for row, index in enumerate(indices) if index in judged]
    rows = rows_to_judge(backbone, features[chosen], concepts[chosen])
    suspects, wrong = _suspects(findings, [indices[row] for row in chosen], rows)
    return replace(result, suspects=suspects, wrong=wrong)


def rows_to_judge(
    backbone: Backbone, features: npt.NDArray[np.float32], concepts: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Rows by which `cross_validated` judges labels, of similar scales; one for each photo.

    Args:
        backbone: whose features these are.
        features: `[N, D]`.
        concepts: raw, `[N, K]`.
    """
    if len(features) < features.shape[1] + concepts.shape[1]:
        return rows_of(features, concepts)  # the rows span fewer dimensions than these
    return compact_rows(backbone, features, concepts)


def judge_by_model(findings: Findings, classifier: Classifier) -> Judgement:
    """Judge labels and photos by the features of a model, and not by its predictions.

    Raises:
        CatordogError: a class has fewer than `LEAST_PHOTOS` different readable photos.
    """
    readable = [index for index, facts in enumerate(findings.facts) if facts]
    indices, features = _features(classifier, findings.photos, readable)
    ood = []
    if len(indices) > 1:
        ood = _outliers(
            ood_scores(features), indices, findings.confirmed, OOD_DEVIATIONS, _median_deviation
        )
    if len(findings.dataset.classes) < 2:  # no label can be wrong
        return Judgement(ood=ood)
    if few := _small_classes(findings, indices):
        class_name = findings.dataset.classes[few[0]]
        different = {findings.groups[i] for i in indices if findings.photos[i].label == few[0]}
        raise CatordogError(
            f"--model: {findings.dataset.name} has only {len(different)} different readable "
            f"photos of {class_name}, and checking labels needs {LEAST_PHOTOS}: audit it "
            "without --model"
        )
    rows = signed_sqrt(features)
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
    suspects, wrong = _suspects(findings, indices, rows)
    return Judgement(suspects, wrong, ood)


def _small_classes(findings: Findings, indices: Sequence[int]) -> list[int]:
    """The classes that have too few different photos among these."""
    different: dict[int, set[int]] = {
        label: set() for label in range(len(findings.dataset.classes))
    }
    for index in indices:
        label = findings.dataset.photos.labels[index]
        if label != NO_LABEL:
            different[label].add(findings.groups[index])
    return [label for label, groups in different.items() if len(groups) < LEAST_PHOTOS]


def _suspects(
    findings: Findings, indices: Sequence[int], rows: npt.NDArray[np.float32]
) -> tuple[list[Suspect], int]:
    """Suspect labels, and how many are wrong; without photos whose label a person has confirmed.

    Args:
        findings: of the dataset.
        indices: the N photos to judge.
        rows: their features, of similar scales, `[N, D]`.
    """
    info("checking labels")
    all_labels = findings.dataset.photos.labels
    judged, labels = np.unique([all_labels[index] for index in indices], return_inverse=True)
    groups = [findings.groups[index] for index in indices]
    ranked, wrong = suspect_labels(cross_validated(rows, labels, groups), labels)
    suspects = [
        Suspect(indices[each.index], int(judged[each.suggested]), each.score) for each in ranked
    ]
    confirmed = findings.confirmed
    return (
        [suspect for suspect in suspects if suspect.index not in confirmed],
        sum(suspect.index not in confirmed for suspect in suspects[:wrong]),
    )


def _features(
    classifier: Classifier, photos: Sequence[Photo], indices: Sequence[int]
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """The indices of the photos that are still readable, and their features `[N, D]`.

    Features of a photo and of its horizontal flip are averaged: what the network finds in only one
    of them doesn't belong to the animal.
    """
    found: list[int] = []
    rows = []
    pixels = decoded((photos[index] for index in indices), classifier.model.preprocess)
    stream = zip(indices, pixels, strict=True)
    with progress("running the model", len(indices)) as done:
        for batch in batched(stream, 64):
            good = [(index, one) for index, one in batch if not isinstance(one, PhotoError)]
            if good:
                batch_pixels = np.stack([one for _, one in good])
                both = (batch_pixels, batch_pixels[:, :, ::-1])
                rows.append(np.mean([classifier.features_of_pixels(x)[1] for x in both], axis=0))
                found += [index for index, _ in good]
            done(len(found))
    return found, np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)


def _outliers(
    scores: npt.NDArray[np.float64],
    indices: Sequence[int],
    confirmed: Container[int],
    deviations: float,
    deviation_of: Callable[[npt.NDArray[np.float64]], float],
) -> list[tuple[int, float]]:
    """Photos whose ood score is far above the others', in robust standard deviations."""
    above = scores - np.median(scores)
    deviation = deviation_of(above)
    if not deviation > 0:  # most photos are copies, and say nothing of how much others differ
        return []
    out = above / deviation
    far = [(indices[i], float(out[i])) for i in np.argsort(-out) if out[i] > deviations]
    return [(index, score) for index, score in far if index not in confirmed]


def _median_deviation(above: npt.NDArray[np.float64]) -> float:
    """The median absolute deviation, scaled so that it estimates a normal standard deviation."""
    return 1.4826 * float(np.median(np.abs(above)))


def _upper_deviation(above: npt.NDArray[np.float64]) -> float:
    """The standard deviation of a normal distribution with the same upper tenth."""
    return float(np.quantile(above, 0.9)) / 1.2816
