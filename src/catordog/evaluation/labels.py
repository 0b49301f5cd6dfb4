"""Which labels are probably wrong, and which photos show none of the classes.

A network that has learnt a wrong label can't be asked about it. So the question goes to a linear
classifier on the network's features that has seen every photo but those it judges
(cross-validation; copies stay together), and its answers are weighed by confident learning
(Northcutt et al. 2021, the cleanlab library).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FOLDS = 5
NEIGHBOURS = 10
MOST_NEIGHBOURS = 20_000
_STRENGTH = 16.0  # of the linear classifier: its penalty on the mean loss is the inverse


@dataclass(frozen=True, slots=True)
class Suspect:
    """A photo whose label is probably wrong.

    Attributes:
        place: index of the photo.
        suggested: index of the class that it seems to show.
        score: how far the confidence in that class is above the confidence in the label, 0…1.
    """

    place: int
    suggested: int
    score: float


def cross_validated(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    groups: Sequence[int],
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Confidences `[N, C]` of a linear classifier that has not seen the photo it judges.

    Args:
        features: `[N, D]`.
        labels: `[N]`, each of the C classes in at least two groups.
        groups: for each photo a number that its copies share.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = _levelled(features)
    classes = int(labels.max()) + 1
    confidences = np.full((len(labels), classes), 1 / classes)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, held_out in folds.split(features, labels, groups):
        linear = make_pipeline(
            StandardScaler(), LogisticRegression(C=_STRENGTH / len(train), max_iter=500)
        )
        linear.fit(features[train], labels[train])
        confidences[np.ix_(held_out, linear.classes_)] = linear.predict_proba(features[held_out])
    return confidences


def suspect_labels(
    confidences: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[list[Suspect], int]:
    """Photos whose labels a model disagrees with.

    Args:
        confidences: `[N, C]`, of a model that has not seen the photo it judges.
        labels: `[N]`.

    Returns:
        these photos, the surest first, and how many labels are wrong by the estimate of confident
        learning: so many of the first are probably wrong, and the others are worth a look.
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
    for place in disagree.tolist():
        suggested = int(confidences[place].argmax())
        own = confidences[place, labels[place]]
        found.append(Suspect(place, suggested, float(confidences[place, suggested] - own)))
    return found, int(wrong.sum())


def ood_scores(features: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.float64]:
    """How little each photo is like its nearest neighbours: mean cosine distance, `[N]`, 0…2.

    Args:
        features: `[N, D]`. Of more than 20,000 photos a random sample are the neighbours.
        seed: of the sample.
    """
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    unit = normalize(_levelled(features))
    sample = unit
    if len(unit) > MOST_NEIGHBOURS:
        sample = np.random.default_rng(seed).choice(unit, MOST_NEIGHBOURS, replace=False)
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(sample))).fit(sample)
    distance, _ = nearest.kneighbors(unit)
    # For unit vectors the cosine distance is half the squared Euclidean one; the first is itself.
    return np.asarray((distance[:, 1:] ** 2 / 2).mean(axis=1), dtype=np.float64)


def _levelled(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Square roots: a few large features must not have the only say (Perronnin et al. 2010)."""
    return np.sign(features) * np.sqrt(np.abs(features))
