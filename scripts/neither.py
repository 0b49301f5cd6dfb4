"""Which score tells photos that show none of the classes? Six of them, on the same features.

python scripts/neither.py --data D --neither FOLDER [--model M]

All are fitted on validation photos, and tell test photos of D from photos of no class, drawn
pictures, noise, textures and flat colours: the area under the ROC curve, and the share of those
that is accepted where 95 % of the validation photos are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

import catordog
from catordog.confidence.ood import fit_ood
from catordog.photos.datasets import open_dataset
from catordog.photos.inputs import Inputs
from catordog.photos.reading import read_pixels
from catordog.photos.synthetic import draw

Floats = npt.NDArray[np.floating[Any]]
Score = Callable[[Floats, Floats], Floats]
"""From logits [N, C] and features [N, D] to how strange each photo is, [N]."""


def scores(logits: Floats, features: Floats, labels: npt.NDArray[np.int64]) -> dict[str, Score]:
    """Six scores, fitted on these photos."""
    means = np.stack([features[labels == kind].mean(axis=0) for kind in np.unique(labels)])
    spread = LedoitWolf().fit(features - means[labels])
    middle = features.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((features - middle).T))
    rest = vectors[:, : features.shape[1] // 2]  # the directions in which photos vary least

    def residual(x: Floats) -> Floats:
        return np.linalg.norm((x - middle) @ rest, axis=1)

    scale = logits.max(axis=1).mean() / residual(features).mean()
    nearest = fit_ood(features)

    def mahalanobis(_: Floats, x: Floats) -> Floats:
        return np.min([spread.mahalanobis(x - mean) for mean in means], axis=0)

    return {
        "largest softmax": lambda z, _: -np.exp(z.max(axis=1) - logsumexp(z, axis=1)),
        "largest logit": lambda z, _: -z.max(axis=1),
        "energy": lambda z, _: -logsumexp(z, axis=1),
        "Mahalanobis": mahalanobis,
        "ViM": lambda z, x: scale * residual(x) - logsumexp(z, axis=1),
        "nearest neighbour": lambda _, x: nearest.scores(x),
    }


def strangers(side: int, folder: str) -> dict[str, list[Image.Image]]:
    """Pictures that show no photographed cat or dog."""
    generator = np.random.default_rng(0)

    def noise() -> Image.Image:
        return Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))

    def texture() -> Image.Image:
        few = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(few).resize((side, side), Image.Resampling.BICUBIC)

    def flat() -> Image.Image:
        return Image.new("RGB", (side, side), tuple(generator.integers(0, 256, 3).tolist()))

    return {
        "photos": [photo.image(near=side) for photo in Inputs([folder])],
        "drawn": [draw(index, 3, size=side).image for index in range(100)],
        "noise": [noise() for _ in range(100)],
        "texture": [texture() for _ in range(100)],
        "flat": [flat() for _ in range(100)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--neither", required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--most", type=int, default=2000, help="test photos")
    args = parser.parse_args()
    classifier = catordog.load(args.model)
    model = classifier.model
    found = open_dataset(args.data)

    def seen(split: Any) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        photos = list(found.split(split, model.split_fractions))[: args.most]
        read = read_pixels(photos, model.preprocess)
        logits, features = classifier.features_of_pixels(read.pixels)
        return logits, features, np.array([photo.label for photo in read.photos])

    fitted = scores(*(known := seen("val")))
    logits, features, _ = seen("test")
    others = {
        kind: classifier.features_of_pixels(
            np.stack([model.preprocess.pixels(image) for image in images])
        )
        for kind, images in strangers(model.preprocess.size, args.neither).items()
    }
    print(f"| | {' | '.join(others)} |\n|---|{'---|' * len(others)}")
    for name, score in fitted.items():
        limit, ours = np.quantile(score(*known[:2]), 0.95), score(logits, features)
        cells = []
        for theirs in (score(*other) for other in others.values()):
            truth = np.repeat([0, 1], [len(ours), len(theirs)])
            area = roc_auc_score(truth, np.concatenate([ours, theirs]))
            cells.append(f"{area:.3f}, {(theirs <= limit).mean():.1%}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
