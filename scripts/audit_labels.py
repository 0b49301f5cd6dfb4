"""Measure how well `catordog audit` finds wrong labels: plant some, and look for them.

python scripts/audit_labels.py --data D [--photos 2000] [--planted 20] [--draws 5]

"First N" is the recall, and the precision, of as many suspects as labels were planted. Labels that
are wrong in the dataset itself count as false alarms here, so it is a lower bound: the photos that
were among these without being planted are listed last, to be looked at. The features are computed
once; each draw judges the labels anew.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace

import numpy as np

from catordog.evaluation.judging import SIZE, judge_by_backbone, rows_to_judge
from catordog.evaluation.labels import cross_validated, suspect_labels
from catordog.model.backbone import Backbone
from catordog.model.feature_cache import features_of
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DEFAULT_RULES
from catordog.photos.findings import audit
from catordog.terminal import table


def main() -> None:
    """Print a row for each draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="D", help="any form of --data")
    parser.add_argument("--photos", type=int, default=2000, help="taken at random (default: 2000)")
    parser.add_argument("--planted", type=int, default=20, help="wrong labels (default: 20)")
    parser.add_argument("--draws", type=int, default=5, help="of the wrong labels (default: 5)")
    args = parser.parse_args()
    dataset = open_dataset(args.data)
    chosen = np.random.default_rng(0).permutation(len(dataset.photos))[: args.photos]
    dataset = replace(dataset, photos=dataset.photos.subset(np.sort(chosen).tolist()))
    start = time.perf_counter(), time.process_time()
    findings = audit(dataset)
    inspected = time.perf_counter(), time.process_time()
    judge_by_backbone(findings, DEFAULT_RULES)
    judged = time.perf_counter(), time.process_time()
    n = len(dataset.photos)
    for what, before, after in (("inspecting", start, inspected), ("judging", inspected, judged)):
        wall, cpu = (1000 * (b - a) / n for a, b in zip(before, after, strict=True))
        print(f"{what} {n:,} photos: {wall:.2f} ms a photo, {cpu:.2f} ms of CPU time")
    backbone = Backbone.read(size=SIZE)
    records, found, _ = features_of(list(dataset.photos), backbone, DEFAULT_RULES)
    features = records["features"].astype(np.float32)
    rows_of_photos = rows_to_judge(backbone, features, backbone.concepts(features))
    groups = [findings.groups[index] for index in found]
    rows = [["draw", "recall", "first N", "first 1.5 N", "estimate", "suspects", "CPU seconds"]]
    others: Counter[str] = Counter()
    for draw in range(args.draws):
        generator = np.random.default_rng(draw)
        wrong = set(generator.choice(n, args.planted, replace=False).tolist())
        labels = [
            (label + 1 + int(generator.integers(len(dataset.classes) - 1))) % len(dataset.classes)
            if index in wrong
            else label
            for index, label in enumerate(dataset.photos.labels)
        ]
        start_of_draw = time.process_time()
        given = np.array(labels)[found]
        suspects, estimate = suspect_labels(cross_validated(rows_of_photos, given, groups), given)
        seconds = time.process_time() - start_of_draw
        indices = [found[suspect.index] for suspect in suspects]
        ranked = [index in wrong for index in indices]
        others.update(
            dataset.photos.names[index] for index in indices[: args.planted] if index not in wrong
        )
        first = [sum(ranked[: round(k * args.planted)]) for k in (1, 1.5)]
        rows.append(
            [
                str(draw),
                f"{sum(ranked) / args.planted:.3f}",
                *(f"{each / args.planted:.3f}" for each in first),
                str(estimate),
                str(len(ranked)),
                f"{seconds:.1f}",
            ]
        )
    print(table(rows, frozenset(range(1, 7))))
    print("not planted, but among the first N; in how many draws:")
    for name, count in others.most_common():
        print(f"{count:>4} {name}")


if __name__ == "__main__":
    main()
