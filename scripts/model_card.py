"""Print the tables of docs/model-card.md: the bundled model, source by source, as people use it.

python scripts/model_card.py --data FOLDER [--out F.md]

FOLDER holds the archives that scripts/release/sources.py names. Only test photos count: none of
them was used for training or for calibration.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from release.sources import Row

NAMES = {
    "dogs-vs-cats-200px": "Kaggle *Dogs vs. Cats*, squashed to 200 × 200",
    "dogs-vs-cats-original": "the same as first published, up to 500 px",
    "pets-224": "PASCAL VOC, Caltech-256, image searches",
    "oxford-3-breeds-224": "Oxford-IIIT Pet, three breeds",
    "oxford-iiit-pet-60": "Oxford-IIIT Pet, 60 full-size photos",
    "neither-224": "everyday things, food, clothes, houses",
    "neither-cat-nor-dog": "COCO 2017 val",
    "tasks-224": "hands and insects, a source that training never saw",
}


def rate(count: int, n: int) -> str:
    """A fraction in percent with its 95 % interval."""
    from catordog.confidence.wilson import wilson

    low, high = wilson(count, n)
    return f"{count / n:.2%} ({low * 100:.2f} to {high * 100:.2f})".replace("%", " %", 1)


class Card:
    """Predicts photos and prints tables."""

    def __init__(self, root: Path, write: Callable[[str], object]) -> None:
        import catordog
        from release.sources import Sources

        self.sources = Sources(root)
        self.rows = self.sources.rows()
        self.classifier = catordog.load()
        self.write = write

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table in Markdown."""
        self.write("| " + " | ".join(header) + " |")
        self.write("|" + "---|" * len(header))
        for row in rows:
            self.write("| " + " | ".join(row) + " |")
        self.write("")

    def predict(self, photos: Sequence[Any], image: Callable[[Any, int], Image.Image]) -> Any:
        """Predictions of photos that can all be read."""
        found = []
        for _, output in self.classifier.stream(photos, image):
            if isinstance(output, Exception):
                raise output
            found.append((self.classifier.judge(output), output))
        return found

    def rows_of(self, source: str, *, animals: bool = False, split: str = "test") -> list[Row]:
        """The test photos of a source."""
        return [
            row for row in self.rows
            if row.source == source and row.is_animal == animals
            and split in ("all", row.split)
        ]  # fmt: skip

    def image(self, row: Row, near: int) -> Image.Image:
        """A photo, decoded as `catordog predict` does."""
        from catordog.photos.decode import decode

        return decode(self.sources.read(row.source, row.name), near=near)

    def pets(self) -> None:
        """Accuracy and verdicts on cats and dogs."""
        import numpy as np

        from catordog.evaluation.metrics import ece
        from catordog.evaluation.predictions import Predictions
        from catordog.photos.photo import Photo
        from release.sources import KAGGLE, PETS

        groups: list[tuple[str, list[Any], list[int], Callable[[Any, int], Image.Image]]] = []
        for source in (KAGGLE, *PETS):
            rows = self.rows_of(source)
            groups.append((source, rows, [row.label for row in rows], self.image))
        held_out = {Path(row.name).stem for row in self.rows_of(KAGGLE)}
        files = [
            path
            for path in sorted((self.sources.root / "dogs-vs-cats-original-600").rglob("*.jpg"))
            if path.stem in held_out
        ]
        labels = [int(path.stem.startswith("dog")) for path in files]
        groups.append(
            ("dogs-vs-cats-original", [*map(Photo.from_file, files)], labels, Photo.image)
        )
        files = sorted((self.sources.root / "oxford-iiit-pet-60" / "images").rglob("*.jpg"))
        labels = [int(path.name[0].islower()) for path in files]
        groups.append(("oxford-iiit-pet-60", [*map(Photo.from_file, files)], labels, Photo.image))
        table = []
        for source, photos, truth, image in groups:
            found = self.predict(photos, image)
            logits = np.stack([output.logits for _, output in found])
            result = Predictions(
                self.classifier.classes, np.array(truth), logits, self.classifier.model.temperature
            )
            verdicts = [prediction.verdict for prediction, _ in found]
            table.append(
                [
                    NAMES[source],
                    str(len(photos)),
                    rate(int(result.correct.sum()), len(photos)),
                    f"{result.losses.mean():.4f}",
                    f"{ece(result.confidences, result.labels):.2%}".replace("%", " %"),
                    rate(verdicts.count("neither"), len(photos)),
                    rate(verdicts.count("not sure"), len(photos)),
                ]
            )
        self.table(
            ["cats and dogs", "photos", "accuracy", "log loss", "ECE", "called `neither`",
             "`not sure`"],
            table,
        )  # fmt: skip

    def others(self) -> None:
        """How often photos of neither are taken for a pet."""
        from release.sources import THINGS, UNSEEN

        table = []
        for source in (*THINGS, *UNSEEN):
            rows = self.rows_of(source, split="all" if source in UNSEEN else "test")
            found = self.predict(rows, self.image)
            taken = sum(prediction.verdict != "neither" for prediction, _ in found)
            sure = sum(prediction.verdict in self.classifier.classes for prediction, _ in found)
            table.append([NAMES[source], str(len(rows)), rate(taken, len(rows)), str(sure)])
        self.table(["photos of neither", "photos", "taken for a pet", "called cat or dog"], table)
        rows = [row for row in self.rows_of("neither-224", animals=True, split="all")
                if row.split != "train"]  # fmt: skip
        found = self.predict(rows, self.image)
        counts: dict[str, list[int]] = {}
        for row, (prediction, _) in zip(rows, found, strict=True):
            animal = row.name.split("_")[1]
            count = counts.setdefault(animal, [0, 0])
            count[0] += prediction.verdict != "neither"
            count[1] += 1
        total = [sum(column) for column in zip(*counts.values(), strict=True)]
        self.write(f"Other animals taken for a pet: {rate(total[0], total[1])} of {total[1]}.\n")
        self.write(
            ", ".join(f"{animal} {taken} of {n}" for animal, (taken, n) in sorted(counts.items()))
            + "\n"
        )

    def both(self) -> None:
        """How often a second animal is named."""
        from release.composites import BOTH, composites
        from release.sources import KAGGLE, PETS

        rows = [row for row in self.rows if Path(row.name).stem in BOTH]
        found = self.predict(rows, self.image)
        named = sum(bool(prediction.also) for prediction, _ in found)
        table = [["photos with a cat and a dog", str(len(rows)), rate(named, len(rows))]]
        made = [image for image, _ in composites(self.sources, self.rows, 500, 23, same=False)]
        found = self.predict(made, lambda image, _: image)
        named = sum(bool(prediction.also) for prediction, _ in found)
        table.append(["composites of two photos", str(len(made)), rate(named, len(made))])
        for source in (KAGGLE, *PETS):
            rows = [row for row in self.rows_of(source) if Path(row.name).stem not in BOTH]
            found = self.predict(rows, self.image)
            named = sum(bool(prediction.also) for prediction, _ in found)
            table.append([f"one animal: {NAMES[source]}", str(len(rows)), rate(named, len(rows))])
        self.table(["photos", "n", "a second animal is named"], table)

    def first_stage(self) -> None:
        """How many photos the first stage answers for, at each of its resolutions."""
        from release.sources import KAGGLE, PETS, THINGS

        small = self.classifier.first_stage
        assert small is not None
        table = []
        for source in (KAGGLE, *PETS, *THINGS):
            left = self.rows_of(source)
            line = [NAMES[source], str(total := len(left))]
            for bounds in small.bounds:
                pixels = [
                    small.preprocess(bounds).pixels(self.image(row, bounds.size)) for row in left
                ]
                outputs = small.look(pixels, bounds)
                sure = [small.is_sure(output, bounds) for output in outputs]
                left = [row for row, is_sure in zip(left, sure, strict=True) if not is_sure]
                line.append(rate(sum(sure), total))
            table.append(line)
        sizes = [f"answered at {bounds.size} px" for bounds in small.bounds]
        self.table(["photos", "n", *sizes], table)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="F.md", help="default: standard output")
    args = parser.parse_args()
    lines: list[str] = []
    card = Card(args.data.resolve(), lines.append if args.out else print)
    for part in (card.pets, card.others, card.both, card.first_stage):
        part()
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
