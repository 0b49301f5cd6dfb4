"""How accurate is `catordog teach` with 1, 2, 5, … photos a class, and is it honest about it?

Features of all photos are computed once. Then random subsets are drawn, a model is taught with
each, and the other photos measure it:

    python scripts/few_photos.py --data pets.zip --neither everyday.zip
    python scripts/few_photos.py --data tasks/signs --draws 20 --sizes 1 10 50

Columns: accuracy on the other photos with its standard deviation over the draws; that of
scikit-learn's logistic regression on standardised features; how often the accuracy lies within the
interval that the model states; its expected calibration error; the fraction of the other photos
that are accepted, and of photos of no class that are, at the default rate.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.confidence.ood import ACCEPT
from catordog.confidence.softmax import softmax
from catordog.model.backbone import Backbone
from catordog.model.feature_cache import features_of
from catordog.model.linear_head import learn
from catordog.model.teaching_photos import find_photos
from catordog.photos.decode import DEFAULT_RULES
from catordog.photos.inputs import Inputs
from catordog.photos.near_copies import Hashes, groups_of_pairs, similar_pairs
from catordog.photos.photo import Photo
from catordog.photos.records import Records
from catordog.terminal import table

SIZES = (1, 2, 5, 10, 20, 50, 100)
TESTED = 2000
"""Photos that measure each draw, at most."""


def main() -> None:
    """Print a table with a row for each number of photos a class."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="labelled photos, as for catordog teach")
    parser.add_argument("--neither", nargs="*", default=[], help="photos that show no class")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="photos a class")
    parser.add_argument("--draws", type=int, default=20, help="random subsets of each size")
    parser.add_argument("--pool", type=int, default=4000, help="photos to draw from, at most")
    parser.add_argument("--backbone", help="an ONNX file (default: the bundled model)")
    args = parser.parse_args()
    backbone = Backbone.read(args.backbone)
    generator = np.random.default_rng(0)
    found = find_photos(args.data, DEFAULT_RULES)
    chosen = generator.permutation(len(found.photos))[: args.pool]
    pool = [found.photos[index] for index in sorted(chosen.tolist())]
    records, readable, _ = features_of(pool, backbone, DEFAULT_RULES)
    labels = np.array([pool[index].label or 0 for index in readable])
    outside: list[Photo] = list(Inputs(args.neither)) if args.neither else []
    others = features_of(outside, backbone, DEFAULT_RULES)[0] if outside else None
    head = ["photos", "accuracy", "±", "sklearn", "in interval", "ECE", "accepted", "false-accept"]
    rows = [head]
    for size in args.sizes:
        if size * len(found.classes) < 0.7 * len(labels):
            draws = [
                _draw(backbone, records, labels, len(found.classes), size, others, seed)
                for seed in range(args.draws)
            ]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a column may be empty
                mean, spread = np.nanmean(draws, axis=0), np.std(draws, axis=0)
            cells = [f"{100 * value:.1f}" for value in mean]
            rows.append([str(size), cells[0], f"{100 * spread[0]:.1f}", *cells[1:]])
            print("  ".join(rows[-1]), flush=True)
    print(table(rows, right=frozenset(range(len(head)))))


def _draw(
    backbone: Backbone,
    records: Records,
    labels: npt.NDArray[np.int64],
    classes: int,
    size: int,
    others: Records | None,
    seed: int,
) -> list[float]:
    """The values of a row, for one random subset."""
    generator = np.random.default_rng([seed, size])
    taught = np.concatenate(
        [generator.permutation(np.flatnonzero(labels == c))[:size] for c in range(classes)]
    )
    rest = generator.permutation(np.setdiff1d(np.arange(len(labels)), taught))[:TESTED]
    features, concepts = _of(backbone, records[taught])
    hashes = Hashes(records["hash"][taught], records["mirrored"][taught])
    groups = np.array(groups_of_pairs(len(taught), similar_pairs(hashes)))
    learned = learn(features, concepts, labels[taught], classes, groups)
    new, new_concepts = _of(backbone, records[rest])
    logits = learned.head.logits(new, new_concepts)
    right = logits.argmax(axis=1) == labels[rest]
    low, high = learned.interval
    inside = float(low <= right.mean() <= high) if learned.accuracy is not None else np.nan
    detector = backbone.knowledge.fit_ood(features, concepts, groups, labels[taught])
    accepted = false_accept = np.nan
    if detector is not None:
        accepted = float((detector.scores(new, new_concepts) <= ACCEPT).mean())
    if detector is not None and others is not None:
        false_accept = float((detector.scores(*_of(backbone, others)) <= ACCEPT).mean())
    return [
        float(right.mean()),
        _sklearn(features, labels[taught], new, labels[rest]),
        inside,
        _ece(softmax(logits, learned.temperature), right),
        accepted,
        false_accept,
    ]


def _of(backbone: Backbone, records: Records) -> tuple[Any, Any]:
    features = records["features"].astype(np.float32)
    return features, backbone.concepts(features)


def _sklearn(features: Any, labels: Any, new: Any, new_labels: Any) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        return float(model.fit(features, labels).score(new, new_labels))


def _ece(confidences: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> float:
    """The expected calibration error with 15 bins of the same width."""
    highest = confidences.max(axis=1)
    bins = np.minimum((highest * 15).astype(int), 14)
    return float(sum(abs((highest - right)[bins == b].sum()) for b in range(15)) / len(right))


if __name__ == "__main__":
    main()
