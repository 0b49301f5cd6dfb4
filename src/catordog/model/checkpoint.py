"""What a model file says of itself: written by training, read by the Classifier."""

from __future__ import annotations

import io
import pickle  # for the name of its error  # nosec B403
import zipfile
from pathlib import Path
from typing import Any

from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.model.info import ModelInfo

MAX_CHECKPOINT_BYTES = 16 * 2**30


def run_folder(model: Path) -> Path:
    """The folder of the run that a model file belongs to: RUN/checkpoints/best.ckpt is of RUN."""
    return model.parent.parent if model.parent.name == "checkpoints" else model.parent


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

    def __init__(self, model: ModelInfo, state: dict[str, Any], content: dict[str, Any]) -> None:
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
        model = ModelInfo.from_dict(content["catordog"])
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


def rewrite(path: Path, model: ModelInfo) -> None:
    """Replace what a `.ckpt` says of itself, and leave its weights as they are.

    Raises:
        CatordogError: it can't be read, or the disk has no room; then it is as it was.
    """
    content = load_checkpoint(path).content
    import torch

    packed = io.BytesIO()
    torch.save({**content, "catordog": model.to_dict()}, packed)
    write_bytes(path, packed.getvalue())
