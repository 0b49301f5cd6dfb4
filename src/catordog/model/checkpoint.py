"""Read and write `.ckpt` model files: written by training, read by the `Classifier`."""

from __future__ import annotations

import io
import pickle  # for the name of its error  # nosec B403
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catordog.errors import CatordogError
from catordog.files import write_bytes
from catordog.model.info import ENSEMBLE, ModelInfo
from catordog.photos.splits import SplitFractions

if TYPE_CHECKING:
    from catordog.model.backends import Backend

MAX_CHECKPOINT_BYTES = 16 * 2**30


def run_folder(model: Path) -> Path:
    """The folder of the run that wrote a model file: RUN for RUN/checkpoints/best.ckpt."""
    return model.parent.parent if model.parent.name == "checkpoints" else model.parent


def check_file(path: Path, most: int, wanted: str) -> None:
    """Check that a model file exists and has at most `most` bytes.

    Args:
        path: the file.
        most: its largest size in bytes.
        wanted: what to give instead, for the error message.

    Raises:
        CatordogError: it does not exist, or is larger.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise CatordogError(f"model {path}: {what}; give {wanted}")
    if path.stat().st_size > most:
        raise CatordogError(f"model {path}: over {most / 2**30:.0f} GiB, refused")


class Checkpoint:
    """The content of a `.ckpt`.

    Attributes:
        model: its description.
        state: the weights by name.
        content: everything, as `torch.load` returns it.
    """

    def __init__(self, model: ModelInfo, state: dict[str, Any], content: dict[str, Any]) -> None:
        self.model = model
        self.state = state
        self.content = content


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a `.ckpt` as data: no code in it is executed.

    Raises:
        CatordogError: the file is missing, damaged, or not written by `catordog train`.
    """
    check_file(path, MAX_CHECKPOINT_BYTES, "a .ckpt that 'catordog train' has written")
    if not zipfile.is_zipfile(path):
        raise CatordogError(
            f"model {path}: not a complete checkpoint: truncated, or another kind of file; copy it "
            "again, or train again"
        )
    _check_parts(path)
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


def _check_parts(path: Path) -> None:
    """Compare every part with its checksum, which torch does not do, and refuse packed parts.

    Raises:
        CatordogError: a part is damaged, compressed or encrypted. torch writes none of the latter
            two, and a compressed part could expand until memory is full.
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
            f"model {path}: damaged (checksum of {damaged}): copy it again, or train again"
        )


def open_checkpoint(path: Path) -> tuple[Backend, ModelInfo]:
    """Read a `.ckpt`: a backend that runs its network, and its description.

    Raises:
        CatordogError: the file can't be read, or its weights do not fit its network.
    """
    checkpoint = load_checkpoint(path)
    from catordog.model.backends.torch import TorchBackend
    from catordog.model.networks import build_network, check_weights

    model = checkpoint.model
    weights = {
        key.removeprefix("network."): value
        for key, value in checkpoint.state.items()
        if key.startswith("network.")
    }
    try:
        check_weights(model.network, len(model.classes), model.network_args, weights)
        network = build_network(
            model.network, len(model.classes), model.network_args, size=model.preprocess.size
        )
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CatordogError(f"model {path}: its weights don't fit its network: {reason}") from None
    return TorchBackend(network, model.preprocess.size), model


def average_checkpoints(paths: Sequence[Path], out: Path) -> None:
    """Write a model whose raw logits are the mean of those of several checkpoints.

    It has the description of the first, without its calibration. No photo is held out from it.

    Args:
        paths: `.ckpt` files of the same network and classes.
        out: the `.ckpt` to write, atomically; its folder is created.

    Raises:
        CatordogError: a file can't be read, or can't be written.
    """
    import torch

    members = [load_checkpoint(path) for path in paths]
    first = members[0].model
    model = ModelInfo(
        classes=first.classes,
        network=ENSEMBLE,
        network_args={
            "network": first.network,
            "members": len(members),
            "args": dict(first.network_args),
        },
        preprocess=first.preprocess,
        split_fractions=SplitFractions(0, 0),
        tta_flip=first.tta_flip,
        tta_flip_below=first.tta_flip_below,
    )
    state = {
        f"network.members.{index}.{key.removeprefix('network.')}": value
        for index, member in enumerate(members)
        for key, value in member.state.items()
        if key.startswith("network.")
    }
    packed = io.BytesIO()
    torch.save({"state_dict": state, "catordog": model.to_dict()}, packed)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, packed.getvalue())


def rewrite(path: Path, model: ModelInfo) -> None:
    """Replace the description in a `.ckpt`. Its weights stay as they are.

    Args:
        path: the file; it is replaced atomically.
        model: the new description.

    Raises:
        CatordogError: the file can't be read or written; then it is unchanged.
    """
    content = load_checkpoint(path).content
    import torch

    packed = io.BytesIO()
    torch.save({**content, "catordog": model.to_dict()}, packed)
    write_bytes(path, packed.getvalue())
