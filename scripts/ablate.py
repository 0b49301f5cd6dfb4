"""What each trick of a recipe earns: the same run with it and without, over several seeds.

python scripts/ablate.py --data D [--config C] [--seeds 0 1 2] [--only NAME …] [--out F.csv]
                         [--set OPTION=VALUE]…

Judged on validation photos; no test photo is looked at. Runs that are in the CSV file already
are not run again. The table of docs/recipes.md is printed at the end.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

RECIPE = "the recipe"

TRICKS: dict[str, list[str]] = {
    RECIPE: [],
    "SGD instead of Muon": [
        *("--model.optimizer", "sgd", "--model.lr", "0.1", "--model.momentum", "0.9"),
        *("--model.weight_decay", "0.0005"),
    ],
    "AdamW instead of Muon": [
        *("--model.optimizer", "adamw", "--model.lr", "0.002", "--model.weight_decay", "0.05"),
    ],
    "a first layer that is learnt": ["--model.whiten", "false"],
    "no moving average": ["--trainer.callbacks", "null"],
    "full size from the start": ["--data.start_size", "64"],
    "full size from the start, 3 epochs in the time of 5": [
        *("--data.start_size", "64", "--trainer.max_epochs", "3"),
    ],
    "tested at the size of training": ["--data.size", "64"],
    "no mirror image in the test": ["--model.tta_flip", "false"],
    "gentler crops (half of the area)": ["--data.augment.min_area", "0.5"],
    "no crops": ["--data.augment.min_area", "1", "--data.augment.max_stretch", "1"],
    "no colour changes": [
        *("--data.augment.brightness", "0", "--data.augment.contrast", "0"),
        *("--data.augment.saturation", "0"),
    ],
    "rectangles erased": ["--data.augment.erase", "0.25"],
    "label smoothing of 0.1": ["--model.label_smoothing", "0.1"],
    "mixup of 0.2": ["@mixup"],
    "GELU instead of ReLU": ["--model.network_args", "{activation: gelu}"],
    "mirrored in turn, not at random": ["@alternate"],
    "lookahead": ["@lookahead"],
    "residual blocks begin as the identity": ["@zero"],
    "batches of 64": ["--data.batch_size", "64"],
    "twice the learning rate": ["--model.lr", "0.1"],
    "half the learning rate": ["--model.lr", "0.025"],
}
"""Options of `catordog train`; `@NAME` is a trick of variants.py."""

_SAID = re.compile(
    r"\(([\d.]+)% right\): temperature ([\d.]+), loss ([\d.]+) before and ([\d.]+) after"
)


def run(config: Path, data: Path, seed: int, options: list[str]) -> dict[str, str]:
    """Train once.

    Returns:
        validation accuracy in percent, temperature, loss before and after it, and seconds.
    """
    with tempfile.TemporaryDirectory() as made:
        program = ["-m", "catordog"]
        if options[-1:] and options[-1].startswith("@"):
            program = [str(Path(__file__).with_name("variants.py")), options[-1][1:]]
            options = options[:-1]
        words = [sys.executable, *program, "train", "--config", str(config)]
        words += ["--data", str(data), "--seed_everything", str(seed), *options]
        start = time.perf_counter()
        ended = subprocess.run(words, cwd=made, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
    said = _SAID.search(ended.stderr)
    if said is None:
        sys.exit(ended.stderr[-2000:])
    names = ("accuracy", "temperature", "nll_before", "nll")
    return {**dict(zip(names, said.groups(), strict=True)), "seconds": f"{seconds:.0f}"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/dogs-vs-cats-quick.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=TRICKS, default=list(TRICKS))
    parser.add_argument("--out", type=Path, default=Path("ablation.csv"))
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE")
    args = parser.parse_args()
    rows: list[dict[str, str]] = []
    if args.out.exists():
        with args.out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["trick"], row["seed"]) for row in rows}
    common = [f"--{option}" for option in args.set]
    for seed in args.seeds:
        for name in args.only:
            if (name, str(seed)) in done:
                continue
            found = run(args.config.resolve(), args.data.resolve(), seed, common + TRICKS[name])
            rows.append({"trick": name, "seed": str(seed), **found})
            print(rows[-1], file=sys.stderr, flush=True)
            with args.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    table(rows)
    return 0


def table(rows: list[dict[str, str]]) -> None:
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        groups[row["trick"]].append((float(row["accuracy"]), float(row["nll"])))
    print("| | accuracy | against the recipe | loss | against the recipe |\n|---|---|---|---|---|")
    for name, found in groups.items():
        cells = [name]
        for which, digits in ((0, 2), (1, 4)):
            each, base = ([run[which] for run in runs] for runs in (found, groups.get(RECIPE, [])))
            spread = f" ± {statistics.stdev(each):.{digits}f}" if len(each) > 1 else ""
            cells.append(f"{statistics.mean(each):.{digits}f}{spread}")
            gain = statistics.mean(each) - statistics.mean(base) if base else math.nan
            cells.append("" if name == RECIPE else f"{gain:+.{digits}f}".replace("-", "−"))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
