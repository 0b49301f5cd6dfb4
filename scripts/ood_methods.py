"""Compare six out-of-distribution scores on the same features.

python scripts/ood_methods.py --data D --neither FOLDER [--model M]

Each score is fitted on the validation photos of D. It then has to separate the test photos of D
from five sets of out-of-distribution images: the photos in FOLDER, synthetic pictures, noise,
textures and flat colours. The table gives the area under the ROC curve, and the false-accept rate
at a true-accept rate of 95 % on the validation photos.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Floats = npt.NDArray[np.floating[Any]]
    Score = Callable[[Floats, Floats], Floats]
    """From logits [N, C] and features [N, D] to an ood score per photo, [N]: higher is less like
    the training photos."""

TRUE_ACCEPT_RATE = 0.95
IMAGES = 100
"""Number of images in each generated set."""


def fit_scores(logits: Floats, features: Floats, labels: npt.NDArray[np.int64]) -> dict[str, Score]:
    """Fit six ood scores.

    Args:
        logits: raw, of in-distribution photos, `[N, C]`.
        features: penultimate, of the same photos, `[N, D]`.
        labels: `[N]`.

    The methods: maximum softmax probability (Hendrycks and Gimpel 2017), maximum logit (Hendrycks
    et al. 2022), energy (Liu et al. 2020), Mahalanobis distance (Lee et al. 2018), ViM (Wang et al.
    2022), and the nearest neighbour (Sun et al. 2022), which is catordog's own.
    """
    import numpy as np
    from scipy.special import logsumexp
    from sklearn.covariance import LedoitWolf

    from catordog.confidence.ood import fit_ood

    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    covariance = LedoitWolf().fit(features - means[labels])
    centre = features.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((features - centre).T))
    minor = vectors[:, : features.shape[1] // 2]  # the directions of least variance

    def residual(x: Floats) -> Floats:
        return np.linalg.norm((x - centre) @ minor, axis=1)

    scale = logits.max(axis=1).mean() / residual(features).mean()
    nearest = fit_ood(features)

    def mahalanobis(_: Floats, x: Floats) -> Floats:
        return np.min([covariance.mahalanobis(x - mean) for mean in means], axis=0)

    return {
        "maximum softmax": lambda z, _: -np.exp(z.max(axis=1) - logsumexp(z, axis=1)),
        "maximum logit": lambda z, _: -z.max(axis=1),
        "energy": lambda z, _: -logsumexp(z, axis=1),
        "Mahalanobis": mahalanobis,
        "ViM": lambda z, x: scale * residual(x) - logsumexp(z, axis=1),
        "nearest neighbour": lambda _, x: nearest.scores(x),
    }


def out_of_distribution(size: int, folder: str) -> dict[str, list[Image.Image]]:
    """Images that show none of the classes, by kind; generated ones are `size` pixels square."""
    import numpy as np
    from PIL import Image

    from catordog.photos.inputs import Inputs
    from catordog.photos.synthetic import draw

    generator = np.random.default_rng(0)

    def noise() -> Image.Image:
        return Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8))

    def texture() -> Image.Image:
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)

    def flat() -> Image.Image:
        return Image.new("RGB", (size, size), tuple(generator.integers(0, 256, 3).tolist()))

    return {
        "photos": [photo.image(near=size) for photo in Inputs([folder])],
        "synthetic": [draw(index, 3, size=size).image for index in range(IMAGES)],
        "noise": [noise() for _ in range(IMAGES)],
        "textures": [texture() for _ in range(IMAGES)],
        "flat colours": [flat() for _ in range(IMAGES)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="D", help="as in 'catordog evaluate'")
    parser.add_argument(
        "--neither", required=True, metavar="FOLDER", help="photos that show none of the classes"
    )
    parser.add_argument("--model", default="bundled", metavar="M")
    parser.add_argument(
        "--most", type=int, default=2000, metavar="N", help="read at most N photos of a split"
    )
    compare(parser.parse_args())


def compare(args: argparse.Namespace) -> None:
    """Print a Markdown table: a row for each score, a column for each kind of image."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    import catordog
    from catordog.photos.datasets import open_dataset
    from catordog.photos.reading import read_pixels

    classifier = catordog.load(args.model)
    model = classifier.model
    dataset = open_dataset(args.data)

    def photos_of(split: Any) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        photos = list(dataset.split(split, model.split_fractions))[: args.most]
        read = read_pixels(photos, model.preprocess)
        logits, features = classifier.features_of_pixels(read.pixels)
        return logits, features, np.array([photo.label for photo in read.photos])

    known_logits, known_features, labels = photos_of("val")
    scores = fit_scores(known_logits, known_features, labels)
    logits, features, _ = photos_of("test")
    unknown = {
        kind: classifier.features_of_pixels(
            np.stack([model.preprocess.pixels(image) for image in images])
        )
        for kind, images in out_of_distribution(model.preprocess.size, args.neither).items()
    }
    print(f"| | {' | '.join(unknown)} |\n|---|{'---|' * len(unknown)}")
    for name, score in scores.items():
        threshold = np.quantile(score(known_logits, known_features), TRUE_ACCEPT_RATE)
        inside = score(logits, features)
        cells = []
        for outside in (score(*outputs) for outputs in unknown.values()):
            truth = np.repeat([0, 1], [len(inside), len(outside)])
            auroc = roc_auc_score(truth, np.concatenate([inside, outside]))
            cells.append(f"{auroc:.3f}, {(outside <= threshold).mean():.1%}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
