"""Compare `catordog teach` with the usual transfer recipes of fastai and Keras, in the same time.

    python scripts/transfer.py pets insects --photos 10 50 --seeds 0 1 2

All start from the same network, EfficientNet-Lite2 with ImageNet weights, learn from the same
photos, and are tested on the same others. `teach` takes the CPU time that it takes. fastai and
Keras get as much, and ten times as much (`--times`). fastai takes at least an epoch of each of its
two phases, even if that takes longer.

Each contender has one thread. For `teach`, everything but the test is counted; for the libraries
neither their start-up, 7 s, nor reading the photos. Each line of stdout is a JSON object; a table
of means follows on stderr.

It needs the extras `bench` and `release`. Keras runs on torch, with the weights of the package:
its own are a download. Windows does not tell the CPU time of `teach`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.model.backbone import MEAN, STD, Backbone
from catordog.model.teaching_photos import find_photos
from catordog.photos.decode import DEFAULT_RULES
from catordog.photos.photo import Photo
from catordog.terminal import table

BATCH = 16
"""Photos a step, at most: enough memory for any machine, and many steps in little time."""

BACKWARD = 4
"""How many times as long an epoch of the whole network takes as one of the new layer, at most."""

FEATURES = 1280
"""D, that the pretrained network ends in."""

Pixels = npt.NDArray[np.uint8]


class Draw:
    """Photos to learn from, and others for the test.

    Args:
        data: labelled photos, as for `catordog teach`.
        photos: to learn from, of each class.
        tested: photos of the test, at most.
        seed: of the draw.
    """

    def __init__(self, data: str, photos: int, tested: int, seed: int) -> None:
        found = find_photos(data, DEFAULT_RULES)
        self.classes = found.classes
        order = random.Random(seed).sample(list(found.photos), len(found.photos))
        self.taught: list[Photo] = []
        for label, name in enumerate(found.classes):
            own = [photo for photo in order if photo.label == label][:photos]
            if len(own) < photos:
                sys.exit(f"{data}: class {name!r} has {len(own)} photos; --photos {photos} is more")
            self.taught += own
        chosen = {photo.path for photo in self.taught}
        self.tested = [photo for photo in order if photo.path not in chosen][:tested]

    @cached_property
    def taught_pixels(self) -> Pixels:
        """Photos to learn from as the backbone sees them, `uint8 [N, S, S, 3]`."""
        return _pixels(self.taught)

    @cached_property
    def tested_pixels(self) -> Pixels:
        """Photos of the test, likewise."""
        return _pixels(self.tested)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Of the photos to learn from, `[N]`."""
        return np.array([photo.label for photo in self.taught])

    def accuracy(self, logits: npt.NDArray[np.floating]) -> float:
        """Of logits `[N, C]` for the photos of the test, 0…1."""
        return float((logits.argmax(axis=1) == [photo.label for photo in self.tested]).mean())


def _pixels(photos: Sequence[Photo]) -> Pixels:
    preprocess = Backbone.read().preprocess
    return np.stack([preprocess.pixels(photo.image(preprocess.size)) for photo in photos])


@dataclass(frozen=True, slots=True)
class Learned:
    """What a contender has learned.

    Attributes:
        seconds: of CPU time.
        epochs: of the new layers alone, and of the whole network; None for `teach`.
        accuracy: on the photos of the test, 0…1.
    """

    seconds: float
    epochs: tuple[int, int] | None
    accuracy: float


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the output: a contender, its task, its budget and what it has learned.

    Attributes:
        photos: of each class, learned from.
        n: photos of the test.
        times: the budget, as a multiple of the CPU time of `teach`.
    """

    contender: str
    data: str
    photos: int
    seed: int
    n: int
    times: float
    seconds: float
    epochs: tuple[int, int] | None
    accuracy: float


def teach(draw: Draw) -> Learned:
    """The command `catordog teach` with an empty cache."""
    import catordog

    with tempfile.TemporaryDirectory() as folder:
        for number, photo in enumerate(draw.taught):
            path = Path(folder, "photos", draw.classes[photo.label or 0])
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{number}{photo.suffix}").write_bytes(photo.read())
        before = os.times()
        ended = subprocess.run(
            [sys.executable, "-m", "catordog", "teach", "photos"],
            cwd=folder, env={**os.environ, "CATORDOG_DATA": folder}, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        after = os.times()
        if ended.returncode:
            sys.exit(f"catordog teach failed:\n{ended.stderr[-2000:]}")
        seconds = sum(after[2:4]) - sum(before[2:4])  # of the process that has ended
        model = catordog.load(Path(folder, "photos.onnx"))
        order = [model.classes.index(name) for name in draw.classes]
        logits = np.concatenate([model.logits(photo.image()) for photo in draw.tested])
        return Learned(seconds, None, draw.accuracy(logits[:, order]))


def _body() -> Any:
    """The pretrained network without its last layer: photos in 0…1 to a feature map."""
    import torch
    from torch import nn

    from release.networks import pretrained

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = pretrained(2)
            self.network._fc = nn.Identity()
            self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
            self.register_buffer("std", torch.tensor(STD)[:, None, None])

        def forward(self, photos: Any) -> Any:
            return self.network.extract_features((photos - self.mean) / self.std)

    return Body()


def fastai(draw: Draw, budgets: Sequence[float]) -> Iterator[Learned]:
    """`vision_learner(…).fine_tune(epochs)`, with its usual augmentation, head and rates.

    It takes at least an epoch of each phase, even if that takes longer than the budget.
    """
    from fastai.vision.all import (
        Callback,
        CategoryBlock,
        DataBlock,
        ImageBlock,
        PILImage,
        RandomSplitter,
        aug_transforms,
        create_head,
        set_seed,
        vision_learner,
    )
    from torch import nn

    photos, rows = draw.taught_pixels, len(draw.taught)
    tested = [PILImage.create(x) for x in draw.tested_pixels]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(range(len(draw.classes))))),
        get_x=lambda row: PILImage.create(photos[row]),
        get_y=lambda row: int(draw.labels[row]),
        splitter=RandomSplitter(0.0, seed=0),
        batch_tfms=aug_transforms(),
    )

    class Clock(Callback):  # type: ignore[misc]
        """Records when each phase starts."""

        def __init__(self) -> None:
            self.starts: list[float] = []

        def before_fit(self) -> None:
            self.starts.append(time.process_time())

    def arch(**_: Any) -> Any:
        return nn.Sequential(_body(), nn.AdaptiveAvgPool2d(1))  # it cuts the pooling off

    def groups(model: Any) -> list[list[Any]]:
        """Parameters of the early layers, the late ones and the head, for their learning rates."""
        network = model[0][0].network
        early = [network._conv_stem, network._bn0, *network._blocks[:14]]
        late = [*network._blocks[14:], network._conv_head, network._bn1]
        parts = (early, late, [model[1]])
        return [[p for part in group for p in part.parameters()] for group in parts]

    @cache
    def run(epochs: int) -> tuple[Learned, float, float]:
        """Learn; also the seconds of an epoch of each phase."""
        set_seed(0)
        # fastai drops an incomplete batch: with two batches it uses all photos but one, at most.
        size = min(BATCH, max(2, rows // 2))
        loaders = block.dataloaders(list(range(rows)), bs=size, num_workers=0)
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock()
            learner = vision_learner(
                loaders, arch, normalize=False, splitter=groups, path=Path(folder), cbs=clock,
                custom_head=create_head(FEATURES, len(draw.classes)),
            )  # fmt: skip
            with learner.no_bar(), learner.no_logging():
                start = time.process_time()
                learner.fine_tune(epochs)
                end = time.process_time()
                first, second = clock.starts
                logits, _ = learner.get_preds(dl=loaders.test_dl(tested))
        learned = Learned(end - start, (1, epochs), draw.accuracy(logits.numpy()))
        return learned, second - first, (end - second) / epochs

    _, new, whole = run(1)
    for budget in budgets:
        yield run(max(1, int((budget - new) / whole)))[0]


def keras(draw: Draw, budgets: Sequence[float]) -> Iterator[Learned]:
    """The recipe of Keras's guide to transfer learning: a new layer, then the whole network.

    The new layer has two thirds of the time and at least one epoch, or all of the time where a
    third is too short for an epoch of the whole network.
    """
    os.environ["KERAS_BACKEND"] = "torch"
    return (_keras_within(budget, draw) for budget in budgets)


def _keras_within(budget: float, draw: Draw) -> Learned:
    import keras

    photos, labels = draw.taught_pixels.astype(np.float32), draw.labels
    keras.utils.clear_session()  # frees the last model
    keras.utils.set_random_seed(0)
    model, body = _keras_model(len(draw.classes), photos.shape[1])
    model.predict(photos[:1], verbose=0)  # what it prepares on its first use is start-up
    start = time.process_time()
    end = start + budget

    def epoch() -> float:
        """Learn from all photos once; returns the seconds that it took."""
        before = time.process_time()
        model.fit(photos, labels, batch_size=BATCH, epochs=1, verbose=0)
        return time.process_time() - before

    def reserved() -> float:
        """Seconds for the whole network."""
        return budget / 3 if BACKWARD * layer <= budget / 3 else 0.0

    _compile(model, body, whole=False)
    layer = epoch()
    new_done, whole_done = 1, 0
    while time.process_time() + layer <= end - reserved():
        layer = epoch()
        new_done += 1
    _compile(model, body, whole=True)
    whole = BACKWARD * layer
    while time.process_time() + whole <= end:
        whole = epoch()
        whole_done += 1
    seconds = time.process_time() - start
    logits = model.predict(draw.tested_pixels.astype(np.float32), batch_size=BATCH, verbose=0)
    return Learned(seconds, (new_done, whole_done), draw.accuracy(logits))


def _keras_model(classes: int, size: int) -> tuple[Any, Any]:
    """The model of the guide, and its pretrained part."""
    import torch
    from keras import Input, Model, layers

    class ChannelsLast(torch.nn.Module):
        """Features of photos `[N, S, S, 3]`; batch norms as in inference, as the guide has them."""

        def __init__(self) -> None:
            super().__init__()
            self.body = _body()

        def forward(self, photos: Any) -> Any:
            return self.body.eval()(photos.permute(0, 3, 1, 2)).mean(dim=(2, 3))

    body = layers.TorchModuleWrapper(ChannelsLast(), output_shape=(None, FEATURES))
    inputs = Input((size, size, 3))
    hidden = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    hidden = layers.Dropout(0.2)(body(layers.Rescaling(1 / 255)(hidden)))
    return Model(inputs, layers.Dense(classes)(hidden)), body


def _compile(model: Any, body: Any, *, whole: bool) -> None:
    """Prepare a phase: of the new layer alone, or of the whole network."""
    import keras

    body.trainable = whole
    for parameter in body.module.parameters():
        parameter.requires_grad_(whole)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-5 if whole else 1e-3), loss=loss)


LIBRARIES: dict[str, Callable[[Draw, Sequence[float]], Iterator[Learned]]] = {
    "fastai": fastai,
    "keras": keras,
}


def results(args: argparse.Namespace) -> Iterator[Result]:
    """Of all contenders, for each task, number of photos and draw."""
    for photos in args.photos:
        for seed in args.seeds:
            for data in args.data:
                draw = Draw(data, photos, args.tested, seed)
                about = (Path(data).name, photos, seed, len(draw.tested))
                ours = teach(draw)
                yield Result("teach", *about, 1, *astuple(ours))
                for name in args.libraries:
                    learned = LIBRARIES[name](draw, [ours.seconds * t for t in args.times])
                    for times, theirs in zip(args.times, learned, strict=True):
                        yield Result(name, *about, times, *astuple(theirs))
                        gc.collect()  # models that refer to themselves


def rows(found: Sequence[Result]) -> list[list[str]]:
    """A table: a row for each task and number of photos, with means over the draws."""
    columns = list(dict.fromkeys((result.contender, result.times) for result in found))
    heads = [name if name == "teach" else f"{name}, {times:g} times" for name, times in columns]
    lines = [["data", "photos", *heads]]
    for data, photos in dict.fromkeys((result.data, result.photos) for result in found):
        cells = []
        for column in columns:
            own = [
                (result.accuracy, result.seconds)
                for result in found
                if (result.data, result.photos) == (data, photos)
                and (result.contender, result.times) == column
            ]
            accuracy, seconds = np.mean(own, axis=0) if own else (np.nan, np.nan)
            cells.append(f"{100 * accuracy:.1f} % {seconds:.1f} s")
        lines.append([data, str(photos), *cells])
    return lines


def main() -> None:
    """Print a JSON object for each result, and a table of their means."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", help="labelled photos, as for catordog teach")
    parser.add_argument("--photos", type=int, nargs="+", default=[10, 50], help="of each class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the random draws")
    parser.add_argument("--tested", type=int, default=100, help="photos of the test, at most")
    parser.add_argument(
        "--libraries", nargs="*", choices=LIBRARIES, default=list(LIBRARIES), help="to compare with"
    )
    parser.add_argument(
        "--times", type=float, nargs="+", default=[1, 10], help="budgets, as multiples of teach's"
    )
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", CATORDOG_THREADS="1")  # read when torch is imported
    found = []
    for result in results(args):
        found.append(result)
        print(json.dumps(asdict(result)), flush=True)
    lines = rows(found)
    print(table(lines, right=frozenset(range(1, len(lines[0])))), file=sys.stderr)


if __name__ == "__main__":
    main()
