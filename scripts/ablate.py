"""Measure what each part of a recipe contributes: train with and without it, over several seeds.

python scripts/ablate.py --data D [--config C] [--seeds 0 1 2] [--only NAME …] [--out F.csv]
                         [--set OPTION=VALUE]…

Every run is scored on the validation split; the test split is never read. Runs that are already
in the CSV file are skipped. At the end the table of docs/recipes.md is printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

RECIPE = "full recipe"

ABLATIONS: dict[str, list[str]] = {
    RECIPE: [],
    "SGD instead of Muon": [
        *("--model.optimizer", "sgd", "--model.lr", "0.1", "--model.momentum", "0.9"),
        *("--model.weight_decay", "0.0005"),
    ],
    "AdamW instead of Muon": [
        *("--model.optimizer", "adamw", "--model.lr", "0.002", "--model.weight_decay", "0.05"),
    ],
    "learned first layer instead of whitening": ["--model.whiten", "false"],
    "no weight averaging": ["--trainer.callbacks", "null"],
    "no progressive resizing": ["--data.start_size", "64"],
    "no progressive resizing, 3 epochs (the time of 5)": [
        *("--data.start_size", "64", "--trainer.max_epochs", "3"),
    ],
    "validation at the training size": ["--data.size", "64"],
    "no test-time flip": ["--model.tta_flip", "false"],
    "gentler crops (at least half of the area)": ["--data.augment.min_area", "0.5"],
    "no random crops": ["--data.augment.min_area", "1", "--data.augment.max_stretch", "1"],
    "no colour jitter": [
        *("--data.augment.brightness", "0", "--data.augment.contrast", "0"),
        *("--data.augment.saturation", "0"),
    ],
    "random erasing": ["--data.augment.erase", "0.25"],
    "label smoothing 0.1": ["--model.label_smoothing", "0.1"],
    "mixup 0.2": ["@mixup"],
    "GELU instead of ReLU": ["--model.network_args.activation", "gelu"],
    "alternating flip instead of random flip": ["@alternating_flip"],
    "lookahead": ["@lookahead"],
    "zero-initialised residual blocks": ["@zero_init"],
    "batch size 64": ["--data.batch_size", "64"],
    "learning rate × 2": ["--model.lr", "0.1"],
    "learning rate ÷ 2": ["--model.lr", "0.025"],
}
"""Options of `catordog train`; `@NAME` is a variant of variants.py."""


def run(config: str, data: str, seed: int, options: list[str]) -> dict[str, str]:
    """Train once and evaluate the best checkpoint on the validation split.

    Returns:
        Validation accuracy in percent, fitted temperature, loss before and after temperature
        scaling, and the seconds that training took.
    """
    catordog = [sys.executable, "-m", "catordog"]
    program = catordog
    if options[-1:] and options[-1].startswith("@"):
        program = [sys.executable, str(Path(__file__).with_name("variants.py")), options[-1][1:]]
        options = options[:-1]
    command = [*program, "train", "--config", config, "--data", data]
    command += ["--seed_everything", str(seed), *options]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        printed = _output(command, folder)
        seconds = time.perf_counter() - start
        # The last line is the command that evaluates the checkpoint on the test split.
        words = shlex.split(printed.splitlines()[-1])
        words[words.index("--split") + 1] = "val"
        file = Path(folder) / "evaluation.json"
        _output([*catordog, *words[1:], "--json", str(file)], folder)
        result = json.loads(file.read_text())
    return {
        "accuracy": f"{100 * result['accuracy']:.2f}",
        "temperature": f"{result['temperature']:.3f}",
        "nll_before": f"{result['uncalibrated']['nll']:.4f}",
        "nll": f"{result['nll']:.4f}",
        "seconds": f"{seconds:.0f}",
    }


def _output(command: list[str], folder: str) -> str:
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode not in {0, 1}:  # 1: finished, but some photos were unreadable
        sys.exit(f"{shlex.join(command)} failed:\n{ended.stderr[-2000:]}")
    return ended.stdout


def _absolute(name: str) -> str:
    """A path that stays valid in another folder; names such as `drawn` stay as they are."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="names for --only:\n  " + "\n  ".join(ABLATIONS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, metavar="D", help="as in 'catordog train'")
    parser.add_argument("--config", default="configs/dogs-vs-cats-quick.yaml", metavar="C")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument(
        "--only", nargs="+", choices=ABLATIONS, default=list(ABLATIONS), metavar="NAME",
        help="run these ablations only (names below)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("ablation.csv"), metavar="F.csv")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE",
        help="pass --OPTION=VALUE to every run, for example trainer.max_epochs=5",
    )  # fmt: skip
    args = parser.parse_args()
    config, data = _absolute(args.config), _absolute(args.data)
    rows: list[dict[str, str]] = []
    if args.out.exists():
        with args.out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["ablation"], row["seed"]) for row in rows}
    common = [f"--{option}" for option in args.set]
    for seed in args.seeds:
        for name in args.only:
            if (name, str(seed)) in done:
                continue
            result = run(config, data, seed, common + ABLATIONS[name])
            rows.append({"ablation": name, "seed": str(seed), **result})
            print(rows[-1], file=sys.stderr, flush=True)
            with args.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    print_table(rows)
    return 0


def print_table(rows: list[dict[str, str]]) -> None:
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row["ablation"]].append(row)
    print("| | accuracy, % | vs. full recipe | loss | vs. full recipe |\n|---|---|---|---|---|")
    for name, runs in groups.items():
        cells = [name]
        for key, digits in (("accuracy", 2), ("nll", 4)):
            values = [float(run[key]) for run in runs]
            baseline = [float(run[key]) for run in groups.get(RECIPE, [])]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{digits}f}{spread}")
            change = statistics.mean(values) - statistics.mean(baseline) if baseline else math.nan
            cells.append("" if name == RECIPE else f"{change:+.{digits}f}".replace("-", "−"))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
