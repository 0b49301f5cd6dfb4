"""Find labels that are probably wrong, and photos that show none of the classes.

A network that was trained on a wrong label has memorised it and can't find it. So a linear
classifier on the network's features predicts each photo without having been fitted on it
(cross-validation; copies stay in one fold), and confident learning finds the labels that disagree
(Northcutt et al. 2021; the cleanlab library).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FOLDS = 5
NEIGHBOURS = 10
MOST_NEIGHBOURS = 20_000
_INVERSE_PENALTY = 16.0
"""Of the linear classifier, with respect to the mean loss over photos."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A photo whose label is probably wrong.

    Attributes:
        index: of the photo.
        suggested: index of the class that it seems to show.
        score: the confidence in that class minus the confidence in the label, 0…1.
    """

    index: int
    suggested: int
    score: float


def cross_validated(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    groups: Sequence[int],
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Confidences `[N, C]` of a linear classifier that was not fitted on the photo it predicts.

    Args:
        features: `[N, D]`.
        labels: `[N]`, each of the C classes in at least two groups.
        groups: for each photo the number of its group of copies.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = _signed_sqrt(features)
    classes = int(labels.max()) + 1
    confidences = np.full((len(labels), classes), 1 / classes)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, held_out in folds.split(features, labels, groups):
        linear = make_pipeline(
            StandardScaler(), LogisticRegression(C=_INVERSE_PENALTY / len(train), max_iter=500)
        )
        linear.fit(features[train], labels[train])
        confidences[np.ix_(held_out, linear.classes_)] = linear.predict_proba(features[held_out])
    return confidences


def suspect_labels(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[list[Suspect], int]:
    """Photos whose label is not the class that a model predicts.

    Args:
        confidences: `[N, C]`, of a model that was not fitted on the photo it predicts.
        labels: `[N]`.

    Returns:
        these photos, the highest score first, and an estimate of how many labels are wrong, by
        confident learning: that many of the first are probably wrong; the rest are worth a look.
    """
    from cleanlab.filter import find_label_issues

    disagree = find_label_issues(
        labels,
        confidences,
        filter_by="predicted_neq_given",
        return_indices_ranked_by="normalized_margin",
        n_jobs=1,
    )
    wrong = find_label_issues(labels, confidences, n_jobs=1)
    found = []
    for index in disagree.tolist():
        suggested = int(confidences[index].argmax())
        score = float(confidences[index, suggested] - confidences[index, labels[index]])
        found.append(Suspect(index, suggested, score))
    return found, int(wrong.sum())


def ood_scores(features: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.float64]:
    """The mean cosine distance of each photo from its ten nearest neighbours, `[N]`, 0…2.

    Args:
        features: `[N, D]`. With more than 20,000 photos, neighbours are taken from a random sample.
        seed: of the sample.
    """
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    unit = normalize(_signed_sqrt(features))
    sample = unit
    if len(unit) > MOST_NEIGHBOURS:
        sample = np.random.default_rng(seed).choice(unit, MOST_NEIGHBOURS, replace=False)
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(sample))).fit(sample)
    distance, _ = nearest.kneighbors(unit)
    # For unit vectors the cosine distance is half the squared Euclidean distance. The nearest
    # neighbour of a photo is the photo itself.
    return np.asarray((distance[:, 1:] ** 2 / 2).mean(axis=1), dtype=np.float64)


def _signed_sqrt(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Signed square roots, so that a few large features don't dominate (Perronnin et al. 2010)."""
    return np.sign(features) * np.sqrt(np.abs(features))
