"""Measure how many labels `model/active_learning.py` saves against labelling random photos.

python scripts/active_learning.py --data D… [--target 0.98] [--seeds 5] [--photos 3000]

Half of the photos of each dataset are labelled a dozen at a time; the other half measures the
accuracy. Labels that the dataset has stand for those that a person would give.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catordog.model.active_learning import DOZEN, Round, pays, propose
from catordog.model.backbone import Backbone, rows_of
from catordog.model.feature_cache import features_of
from catordog.model.linear_head import DEFAULT_STRENGTH
from catordog.model.logistic_regression import Span, fit
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DEFAULT_RULES
from catordog.terminal import table

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """One simulated person: accuracies by number of labels, and where labels stopped paying."""

    labels: list[int]
    accuracy: list[float]
    stopped: int | None

    def needed(self, target: float) -> int | None:
        """The first number of labels with this accuracy."""
        reached = (n for n, a in zip(self.labels, self.accuracy, strict=True) if a >= target)
        return next(reached, None)


def logits_of(rows: Floats, labelled: list[int], labels: Labels, classes: int) -> Floats:
    """Raw logits of all photos `[N, C]`: as `learn_round`, without its cross-validation."""
    span = Span.of(rows[labelled])
    fits = fit(span.coordinates, labels, classes, DEFAULT_STRENGTH)
    weight = (span.basis @ fits.weights[0]).astype(np.float32)
    return rows @ weight + (fits.biases[0] - span.mean @ weight).astype(np.float32)


def simulate(rows: Floats, truth: Labels, most: int, seed: int, *, by_chance: bool) -> Run:
    """Label a dozen photos at a time, up to `most`."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(rows))
    pool, test = order[: len(order) // 2], order[len(order) // 2 :]
    classes = int(truth.max()) + 1
    run = Run([], [], None)
    stopped, labelled = None, list[int]()
    logits, before, rounds = None, None, list[Round]()
    while len(labelled) < min(most, len(pool)):
        if by_chance:
            rest = np.setdiff1d(np.arange(len(pool)), labelled)
            labelled += generator.permutation(rest)[:DOZEN].tolist()
        else:
            labelled += propose(rows[pool], labelled, logits, seed=seed)
        known, renamed = np.unique(truth[pool[labelled]], return_inverse=True)
        if len(known) < 2:
            continue
        everything = logits_of(
            np.concatenate([rows[pool], rows[test]]), labelled, renamed, len(known)
        )
        logits = everything[: len(pool)]
        predicted = known[everything.argmax(axis=1)]
        own = predicted[: len(pool)]
        changed = None if before is None else float((own != before).mean())
        rounds.append(Round(len(labelled), None, (0, 1), 0.0, changed))
        before = own
        if stopped is None and len(known) == classes and not pays(rounds):
            stopped = len(rounds) - 1
        run.labels.append(len(labelled))
        run.accuracy.append(float((predicted[len(pool) :] == truth[test]).mean()))
    return Run(run.labels, run.accuracy, stopped)


def rows_for(data: str, photos: int) -> tuple[Floats, Labels]:
    """Features `[N, D]` and labels `[N]` of random photos of a dataset."""
    dataset = open_dataset(data)
    chosen = np.random.default_rng(0).permutation(len(dataset.photos))[:photos]
    subset = dataset.photos.subset(np.sort(chosen).tolist())
    backbone = Backbone.read()
    records, found, _ = features_of(list(subset), backbone, DEFAULT_RULES)
    features = records["features"].astype(np.float32)
    labels = np.array(subset.labels, np.int64)[found]
    return rows_of(features, backbone.concepts(features)), labels


def report(name: str, rows: Floats, truth: Labels, args: argparse.Namespace) -> list[list[str]]:
    """Rows of the table: for each way of choosing the labels needed, by target."""
    found = []
    for by_chance in (True, False):
        runs = [
            simulate(rows, truth, args.most, seed, by_chance=by_chance)
            for seed in range(args.seeds)
        ]
        end = float(np.mean([run.accuracy[-1] for run in runs]))
        cells = [name, "random" if by_chance else "proposed"]
        for target in args.target:
            needed = [run.needed(target) for run in runs]
            reached = sorted(number if number is not None else args.most + 1 for number in needed)
            middle = reached[len(reached) // 2]
            several = f"{middle}" if middle <= args.most else f"> {args.most}"
            cells.append(f"{several} ({sum(x is not None for x in needed)} of {len(needed)})")
        stops = [run for run in runs if run.stopped is not None]
        at = [run.labels[run.stopped] for run in stops if run.stopped is not None]
        then = [run.accuracy[run.stopped] for run in stops if run.stopped is not None]
        cells += [f"{end:.2%}", f"{np.mean(at):.0f}: {np.mean(then):.2%}" if at else "–"]
        found.append(cells)
    return found


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--data", nargs="+", required=True, metavar="D")
    result.add_argument("--target", nargs="+", type=float, default=[0.95, 0.98])
    result.add_argument("--seeds", type=int, default=5)
    result.add_argument("--photos", type=int, default=3000, help="of each dataset, at random")
    result.add_argument("--most", type=int, default=300, help="labels (default: 300)")
    return result


def show(rows: list[list[str]], targets: list[float]) -> None:
    """Print the table."""
    head = ["data", "labels", *(f"for {x:.0%}" for x in targets), "at the end", "stopped at"]
    print(table([head, *rows]))


def main() -> None:
    """Print the table."""
    args = parser().parse_args()
    found = []
    for data in args.data:
        found += report(data, *rows_for(data, args.photos), args)
    show(found, args.target)


if __name__ == "__main__":
    main()
