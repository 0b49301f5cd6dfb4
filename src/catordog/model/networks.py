"""Build networks: ours, torchvision's by name, or any by class path. All end in raw logits."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catordog.errors import CatordogError
from catordog.files import expanded
from catordog.model.contract import check_raw_logits
from catordog.model.info import ENSEMBLE
from catordog.model.lite import Lite2, bundled_weights

OURS, PRETRAINED = "residual", "lite2"
DEFAULT = "DEFAULT"
"""The name of a network's usual pretrained weights, as torchvision has it."""

_Activation = Callable[[Tensor], Tensor]
_ACTIVATIONS: dict[str, _Activation] = {"relu": F.relu_, "gelu": F.gelu}
_DOWNSAMPLING = ("stride", "pool")


_MOST_BLOCKS = 500
"""Each takes time and memory before any weight is read."""


class ResidualNet(nn.Module):
    """A compact residual network (He et al. 2015) for small photos.

    The default has 1.2 million parameters and takes 60 million multiply-adds for a photo of 64 × 64
    pixels.

    Args:
        num_classes: C, the number of logits.
        widths: channels of each stage; every stage except the first halves height and width.
        blocks: residual blocks of each stage.
        activation: `relu`, or `gelu` (Hendrycks and Gimpel 2016), which needs fewer epochs, but a
            tenth more time for each.
        downsampling: how a stage halves height and width: `stride`, with a strided convolution, or
            `pool`, with average pooling before its first block, which aliases less (Zhang 2019),
            learns faster and takes a tenth less time.

    Raises:
        CatordogError: an argument is out of its range.

    Shape:
        `float32 [N, 3, S, S]`, normalised, S ≥ 32, to raw logits `[N, C]`.
    """

    def __init__(
        self,
        num_classes: int,
        widths: tuple[int, ...] = (32, 64, 128, 256),
        blocks: tuple[int, ...] = (1, 1, 1, 1),
        activation: str = "relu",
        downsampling: str = "stride",
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise CatordogError(
                f"unknown activation {activation!r}: give {' or '.join(_ACTIVATIONS)}"
            )
        if downsampling not in _DOWNSAMPLING:
            raise CatordogError(
                f"unknown downsampling {downsampling!r}: give {' or '.join(_DOWNSAMPLING)}"
            )
        if len(widths) != len(blocks) or not widths or min(*widths, *blocks, num_classes) < 1:
            raise CatordogError(
                f"a network needs as many widths as blocks, all above 0; got {widths} and {blocks}"
            )
        if sum(blocks) > _MOST_BLOCKS:
            raise CatordogError(f"a network has {_MOST_BLOCKS} blocks at most; got {sum(blocks)}")
        self.activation = _ACTIVATIONS[activation]
        self.stem = _conv_norm(3, widths[0], stride=2)
        stages: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                if stride > 1 and downsampling == "pool":
                    stages.append(nn.AvgPool2d(stride, ceil_mode=True))
                    stride = 1
                stages.append(_Block(channels, width, stride, self.activation))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, photos: Tensor) -> Tensor:
        """The features before the last layer, `[N, widths[-1]]`."""
        return self.stages(self.activation(self.stem(photos))).mean(dim=(2, 3))  # type: ignore[no-any-return]

    def forward(self, photos: Tensor) -> Tensor:
        """Raw logits `[N, C]`: there is no activation after the last linear layer."""
        return self.head(self.features(photos))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """A residual block: two 3 × 3 convolutions and a shortcut."""

    def __init__(self, channels: int, width: int, stride: int, activation: _Activation) -> None:
        super().__init__()
        self.activation = activation
        self.first = _conv_norm(channels, width, stride)
        self.second = _conv_norm(width, width)
        self.shortcut = nn.Sequential()
        if stride > 1:  # a strided 1 × 1 convolution would ignore most pixels (He et al. 2018)
            self.shortcut.append(nn.AvgPool2d(stride, ceil_mode=True))
        if channels != width:
            self.shortcut.append(nn.Conv2d(channels, width, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.second(self.activation(self.first(x))) + self.shortcut(x))


def _conv_norm(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
    )


class Ensemble(nn.Module):
    """Several networks of the same architecture; its raw logits are the mean of theirs.

    Args:
        num_classes: C, the number of logits.
        network: name of each member, as in `build_network`.
        members: how many.
        args: further arguments of each member.

    Raises:
        CatordogError: there are no members, or too many, or they can't be built.

    Shape:
        As the members take and give it.
    """

    def __init__(
        self,
        num_classes: int,
        network: str = OURS,
        members: int = 5,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if network == ENSEMBLE or not 1 <= members <= MOST_MEMBERS:
            raise CatordogError(
                f"an ensemble has 1 to {MOST_MEMBERS} members, which are no ensembles; got "
                f"{members} of {network!r}"
            )
        self.members = nn.ModuleList(
            _build(network, num_classes, dict(args or {})) for _ in range(members)
        )

    def forward(self, photos: Tensor) -> Tensor:
        """Raw logits `[N, C]`."""
        return torch.stack([member(photos) for member in self.members]).mean(dim=0)


MOST_MEMBERS = 100
"""Of an ensemble."""

_OWN: dict[str, type[nn.Module]] = {OURS: ResidualNet, PRETRAINED: Lite2, ENSEMBLE: Ensemble}


def initial_weights(network: str, weights: str | None) -> str | None:
    """The weights that training starts from; None: random ones.

    Args:
        network: its name.
        weights: that the user asks for; None: the bundled backbone's for `lite2`, which does not
            learn from random ones.
    """
    return DEFAULT if weights is None and network == PRETRAINED else weights


def build_network(
    network: str,
    num_classes: int,
    args: Mapping[str, Any] | None = None,
    weights: str | None = None,
    *,
    size: int | None = None,
) -> nn.Module:
    """Build a network, and check that it returns raw logits.

    Args:
        network: `residual` (ours), `lite2` (that of the bundled backbone), a torchvision
            architecture (`resnet18`), or the class path of an `nn.Module` that takes `num_classes`
            (`my_package.MyNet`).
        num_classes: C.
        args: further arguments of the network.
        weights: pretrained weights: `DEFAULT` of `lite2`, a name of torchvision's
            (`IMAGENET1K_V1`, `DEFAULT`), or a file with a state dict. Weights of the last layer are
            skipped if its width differs.
        size: S, the input size in pixels.

    Raises:
        CatordogError: the network is unknown, it can't be built, or the weights don't fit.
        RawLogitsError: its output is not raw logits.

    >>> build_network("residual", 2).head.out_features
    2
    """
    built = _build(network, num_classes, dict(args or {}))
    last = check_raw_logits(built, size=size, num_classes=num_classes)
    if weights:
        _load_pretrained(built, _state_dict(network, weights), last.partition(" ")[0], weights)
    return built


def check_weights(
    network: str, num_classes: int, args: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    """Compare weights with a network before memory is taken for it: its arguments are untrusted.

    Args:
        network: its name; a class of the user can't be compared.
        num_classes: C.
        args: further arguments of the network.
        state: its state dict.

    Raises:
        RuntimeError: a name or a shape differs.
    """
    if "." in network:
        return
    try:
        with torch.device("meta"):
            shell = _build(network, num_classes, dict(args))
    except CatordogError:  # some compute with tensors when they are built
        return
    shell.load_state_dict(state, assign=True)


def _build(network: str, num_classes: int, args: dict[str, Any]) -> nn.Module:
    if network in _OWN:
        return _construct(_OWN[network], network, {"num_classes": num_classes, **args})
    if "." in network:
        return _construct(_imported(network), network, {"num_classes": num_classes, **args})
    import torchvision

    if network not in torchvision.models.list_models(module=torchvision.models):
        raise CatordogError(
            f"unknown network {network!r}: give {OURS!r} or {PRETRAINED!r}, a torchvision "
            "architecture such as 'resnet18', or a class path such as 'my_package.MyNet'"
        )
    # Auxiliary heads would return a second output in training.
    if network in {"googlenet", "inception_v3"}:
        args.setdefault("aux_logits", False)
        args.setdefault("init_weights", True)
    builder = torchvision.models.get_model_builder(network)
    return _construct(builder, network, {"weights": None, "num_classes": num_classes, **args})


def find_in_working_folder() -> None:
    """Let class paths name modules in the working folder, which the console script leaves out.

    The folder comes last, so that no file in it replaces an installed package.
    """
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)


def _imported(path: str) -> type[nn.Module]:
    module_name, _, class_name = path.rpartition(".")
    if module_name.partition(".")[0] in sys.stdlib_module_names:  # some have side effects at import
        raise CatordogError(f"{path!r} is not a class of network (torch.nn.Module)")
    find_in_working_folder()
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise CatordogError(
            f"can't import the network {path!r} ({error}): check the spelling, and put the folder "
            f"that contains {module_name.partition('.')[0]!r} on PYTHONPATH"
        ) from None
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise CatordogError(f"{path!r} is not a class of network (torch.nn.Module)")
    return found


def _construct(builder: Any, name: str, args: dict[str, Any]) -> nn.Module:
    try:
        built: nn.Module = builder(**args)
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise CatordogError(f"can't build the network {name!r} with {args}: {error}") from None
    return built


def _state_dict(network: str, weights: str) -> Mapping[str, Any]:
    if expanded(weights).is_file():
        return _state_dict_file(expanded(weights))
    if network == PRETRAINED and weights == DEFAULT:
        return bundled_weights()
    if "." in network or network in _OWN or "/" in weights or Path(weights).suffix:
        raise CatordogError(f"no such file of pretrained weights: {weights}")
    import torchvision

    try:
        found = getattr(torchvision.models.get_model_weights(network), weights)
    except AttributeError:
        names = [entry.name for entry in torchvision.models.get_model_weights(network)]
        raise CatordogError(
            f"torchvision has no weights {weights!r} for {network}; it has {', '.join(names)}, "
            "or give a file"
        ) from None
    try:
        state: Mapping[str, Any] = found.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise CatordogError(
            f"can't download {weights} ({error}): get {found.url} in another way, and give the "
            "file as --model.weights"
        ) from None
    return state


def _state_dict_file(path: Path) -> Mapping[str, Any]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CatordogError(
            f"{path} is not a file of weights ({str(error).splitlines()[0]}): save one with "
            "torch.save(network.state_dict(), file)"
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CatordogError(f"{path} has no state dict (tensors by name)")
    # A checkpoint of a LightningModule has its network in the attribute `network`.
    return {key.removeprefix("network."): value for key, value in state.items()}


def _load_pretrained(network: nn.Module, state: Mapping[str, Any], head: str, weights: str) -> None:
    """Load weights into a network. Only its last layer may have another shape."""
    own = network.state_dict()
    last = {key for key in own if key.startswith(f"{head}.")}
    fitting = {
        key: value
        for key, value in state.items()
        if not (key in last and value.shape != own[key].shape)
    }
    misfits = [key for key in own if key not in fitting and key not in last]
    misfits += [key for key in fitting if key in own and fitting[key].shape != own[key].shape]
    # Only weights of auxiliary heads, which are never built here, may be unused.
    misfits += [key for key in fitting if key not in own and not key.lower().startswith("aux")]
    if misfits:
        raise CatordogError(
            f"the weights {weights} are not for this network: {misfits[0]!r} and "
            f"{len(misfits) - 1} more names or shapes differ"
        )
    network.load_state_dict(fitting, strict=False)
