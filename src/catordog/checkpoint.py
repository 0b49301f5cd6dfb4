"""What a model file says of itself: written by training, read by the Classifier."""

from __future__ import annotations

import io
import math
import pickle  # for the name of its error  # nosec B403
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from catordog.confidence.novelty import Novelty
from catordog.confidence.verdict import DEFAULT_THRESHOLD
from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.photos.preprocess import Preprocess
from catordog.photos.split import Fractions

FORMAT = 1

MAX_CHECKPOINT_BYTES = 16 * 2**30


def run_folder(model: Path) -> Path:
    """The folder of the run that a model file belongs to: RUN/checkpoints/best.ckpt is of RUN."""
    return model.parent.parent if model.parent.name == "checkpoints" else model.parent


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The part of a checkpoint that is not weights. Plain data, so that loading runs no code.

    Attributes:
        classes: names, in the order of the logits.
        network: as in `build_network`.
        network_args: as in `build_network`.
        preprocess: how a photo becomes input.
        fractions: how the photos were split, so that evaluation holds out the same ones.
        mirror: whether logits are the mean of those of a photo and of its mirror image.
        temperature: of `softmax`.
        threshold: below this confidence the verdict is `not sure`.
        strangeness: of the right answers on validation photos, each in 0…1, rising (see
            `confidence.conformal`); empty before calibration.
        novelty: what tells photos of no class; None before calibration, or where there were too
            few photos.
    """

    classes: tuple[str, ...]
    network: str
    network_args: dict[str, Any] = field(default_factory=dict)
    preprocess: Preprocess = field(default_factory=Preprocess)
    fractions: Fractions = field(default_factory=Fractions)
    mirror: bool = False
    temperature: float = 1.0
    threshold: float = DEFAULT_THRESHOLD
    strangeness: tuple[float, ...] = ()
    novelty: Novelty | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "network": self.network,
            "network_args": self.network_args,
            "preprocess": self.preprocess.to_dict(),
            "fractions": {"val": self.fractions.val, "test": self.fractions.test},
            "mirror": self.mirror,
            "temperature": self.temperature,
            "threshold": self.threshold,
            "strangeness": list(self.strangeness),
            "novelty": self.novelty and self.novelty.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read back what `to_dict` wrote; every value is checked, since files come from anywhere.

        Raises:
            CatordogError: something is missing, of the wrong kind, or out of its range.
        """
        try:
            if values["format"] != FORMAT:
                raise CatordogError(
                    f"the model file has format {values['format']}, and this version of catordog "
                    f"reads {FORMAT}: use the version that wrote it, or train again"
                )
            classes = tuple(values["classes"])
            if len(classes) < 2 or not all(isinstance(name, str) for name in classes):
                raise TypeError("classes are not two or more names")
            if not isinstance(values["network"], str):
                raise TypeError("network is not a name")
            return cls(
                classes=classes,
                network=values["network"],
                network_args=dict(values["network_args"]),
                preprocess=Preprocess.from_dict(values["preprocess"]),
                fractions=Fractions.of(values["fractions"]["val"], values["fractions"]["test"]),
                mirror=bool(values.get("mirror", False)),
                temperature=_positive(values["temperature"]),
                threshold=_positive(values["threshold"]),
                strangeness=tuple(_share(score) for score in values.get("strangeness", ())),
                novelty=_novelty(values.get("novelty")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CatordogError(f"the model file is incomplete or damaged: {error!r}") from None


def _positive(value: Any) -> float:
    number = float(value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{value} is not a number above 0")
    return number


def _novelty(values: Any) -> Novelty | None:
    return None if values is None else Novelty.from_dict(values)


def _share(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{value} is not within 0…1")
    return number


def check_file(path: Path, most: int, wanted: str) -> None:
    """Make sure that a model file is there, and no larger than `most` bytes.

    Raises:
        CatordogError: it isn't; the error says that `wanted` is what to give.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise CatordogError(f"model {path}: {what}; give {wanted}")
    if path.stat().st_size > most:
        raise CatordogError(f"model {path}: over {most / 2**30:.0f} GiB, refused")


class Checkpoint:
    """What is in a `.ckpt`: the model's description, its weights by name, and all the rest."""

    def __init__(self, model: ModelFile, state: dict[str, Any], content: dict[str, Any]) -> None:
        self.model = model
        self.state = state
        self.content = content


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a `.ckpt` as data: nothing in it is executed.

    Raises:
        CatordogError: it is missing, damaged, or not one of ours.
    """
    check_file(path, MAX_CHECKPOINT_BYTES, "a .ckpt that 'catordog train' has written")
    if not zipfile.is_zipfile(path):
        raise CatordogError(
            f"model {path}: not a whole checkpoint: it is truncated, or another kind of file; "
            "copy it again, or train again"
        )
    _check_whole(path)
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise CatordogError(f"model {path}: can't be read as a checkpoint ({first})") from None
    if not isinstance(content, dict) or "catordog" not in content or "state_dict" not in content:
        raise CatordogError(
            f"model {path}: not written by 'catordog train' (it has no class names and no "
            "preprocessing): train one, or pass its weights to training as --model.weights"
        )
    try:
        model = ModelFile.from_dict(content["catordog"])
    except CatordogError as error:
        raise CatordogError(f"model {path}: {error}") from None
    state = content["state_dict"]
    if not isinstance(state, dict):
        raise CatordogError(f"model {path}: its weights are not named tensors")
    return Checkpoint(model, state, content)


def _check_whole(path: Path) -> None:
    """Compare every part with its checksum, which torch doesn't; and unpack nothing.

    Raises:
        CatordogError: a part is damaged, or packed as torch packs none: it might fill the memory.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            for part in parts.infolist():
                compressed = part.compress_type != zipfile.ZIP_STORED
                if compressed or part.flag_bits & 0x1:
                    how = "compressed" if compressed else "encrypted"
                    raise CatordogError(
                        f"model {path}: its parts are {how}, refused: use the file that 'catordog "
                        "train' wrote"
                    )
            damaged = parts.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        damaged = str(error)
    if damaged is not None:
        raise CatordogError(
            f"model {path}: damaged ({damaged} is not what was written): copy it again, or train "
            "again"
        )


def rewrite(path: Path, model: ModelFile) -> None:
    """Replace what a `.ckpt` says of itself, and leave its weights as they are.

    Raises:
        CatordogError: it can't be read, or the disk has no room; then it is as it was.
    """
    content = load_checkpoint(path).content
    import torch

    packed = io.BytesIO()
    torch.save({**content, "catordog": model.to_dict()}, packed)
    write_bytes(path, packed.getvalue())
