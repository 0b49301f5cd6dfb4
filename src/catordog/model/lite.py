"""EfficientNet-Lite2, the network of the bundled backbone, for training with its weights."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catordog.errors import CatordogError
from catordog.model import backbone
from catordog.model.backends.onnx import Graph
from catordog.model.bundled import BUNDLED
from catordog.model.onnx_graph import cut, layer_weights
from catordog.photos import preprocess

# Of each stage: kernel size, stride of its first block, channels, and number of blocks (Liu 2020).
_STAGES = (
    (3, 1, 16, 1),
    (3, 2, 24, 3),
    (5, 2, 48, 3),
    (3, 2, 88, 4),
    (5, 1, 120, 4),
    (5, 2, 208, 5),
    (3, 1, 352, 1),
)
_STEM, _EXPANSION = 32, 6

FEATURES = 1280
"""D, the number of features."""


class Lite2(nn.Module):
    """EfficientNet-Lite2 (Tan and Le 2019, Liu 2020), without batch norms.

    The batch norms of the pretrained weights are part of the convolutions, so it has none, and
    batches of any size train it. Without them it does not learn from random weights: start from
    those of the bundled backbone, which are `DEFAULT`.

    Args:
        num_classes: C, the number of logits.

    Raises:
        CatordogError: there is no class.

    Shape:
        `float32 [N, 3, S, S]`, normalised by the default mean and standard deviation of
        `Preprocess`, S ≥ 32, to raw logits `[N, C]`. The backbone has learnt at 260 pixels.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise CatordogError(f"a network needs a class; got num_classes = {num_classes}")
        own_mean, own_std, mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (backbone.MEAN, backbone.STD, preprocess.MEAN, preprocess.STD)
        )
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)
        self.stem = _Convolution(3, _STEM, 3, stride=2, at_end=True)
        blocks: list[nn.Module] = []
        channels = _STEM
        for stage, (kernel, stage_stride, width, count) in enumerate(_STAGES):
            for block in range(count):
                stride = stage_stride if block == 0 else 1
                expansion = 1 if stage == 0 else _EXPANSION
                # So the pretrained weights have it, which come from photos of 260 pixels.
                at_end = stage == 1 and block == 0
                blocks.append(_Block(channels, width, kernel, stride, expansion, at_end=at_end))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.last = _Convolution(channels, FEATURES, 1)
        self.head = nn.Linear(FEATURES, num_classes)

    def features(self, photos: Tensor) -> Tensor:
        """The features before the last layer, `[N, 1280]`: those of the bundled backbone."""
        photos = photos * self.scale + self.shift
        x = F.relu6(self.last(self.blocks(F.relu6(self.stem(photos)))))
        return x.mean(dim=(2, 3))

    def forward(self, photos: Tensor) -> Tensor:
        """Raw logits `[N, C]`: there is no activation after the last linear layer."""
        return self.head(self.features(photos))  # type: ignore[no-any-return]


class _Convolution(nn.Conv2d):
    """A convolution with a bias, and zeros around its input.

    Args:
        at_end: zeros only at the right and the bottom, as TensorFlow places them.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        at_end: bool = False,
    ) -> None:
        padding = 0 if at_end else kernel // 2
        super().__init__(channels, width, kernel, stride, padding, groups=groups)
        self._after = kernel // 2 if at_end else 0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, self._after, 0, self._after)) if self._after else x)


class _Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018): expand, filter each channel, project."""

    def __init__(
        self, channels: int, width: int, kernel: int, stride: int, expansion: int, *, at_end: bool
    ) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = _Convolution(channels, inner, 1) if expansion > 1 else None
        self.filter = _Convolution(inner, inner, kernel, stride=stride, groups=inner, at_end=at_end)
        self.project = _Convolution(inner, width, 1)
        self.has_shortcut = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        result: Tensor = self.project(F.relu6(self.filter(inner)))
        return result + x if self.has_shortcut else result


def bundled_weights() -> dict[str, Tensor]:
    """The weights of the bundled backbone as a state dict of `Lite2`, without a last layer.

    They are stored in 8 and 16 bits, and become float32.

    Raises:
        CatordogError: the bundled backbone is another network.
    """
    state = _trunk_weights(BUNDLED.read_bytes())
    if state is None:
        raise CatordogError("the bundled backbone is not EfficientNet-Lite2: give --model.weights")
    return state


def taught_network(model: bytes, num_classes: int) -> Lite2:
    """The network of a taught model in torch.

    Args:
        model: the bytes of an ONNX file of `catordog teach`.
        num_classes: C, the number of its logits.

    Returns:
        A network for photos that are normalised as the model says. Concepts are linear in the
        features, so its last layer is both of the file's layers in one.

    Raises:
        CatordogError: the model was taught on another backbone.
    """
    state = _trunk_weights(model)
    if state is None:
        raise CatordogError("this model was taught on another backbone than the bundled one")
    head = Graph(cut(model, {"logits": num_classes}, inputs={backbone.FEATURES: FEATURES}))
    (bias,) = head.run(np.zeros((1, FEATURES), np.float32), ["logits"])
    (rows,) = head.run(np.eye(FEATURES, dtype=np.float32), ["logits"])
    state["head.weight"] = torch.from_numpy(np.ascontiguousarray((rows - bias).T))
    state["head.bias"] = torch.from_numpy(bias[0])
    network = Lite2(num_classes)
    network.load_state_dict(state)
    network.scale.fill_(1)
    network.shift.fill_(0)
    return network


def _trunk_weights(model: bytes) -> dict[str, Tensor] | None:
    """The weights of the backbone in an ONNX file as a state dict; None: it is another network."""
    found = layer_weights(cut(model, {backbone.FEATURES: FEATURES}), "Conv")
    with torch.device("meta"):
        layers = [
            (name, layer)
            for name, layer in Lite2(1).named_modules()
            if isinstance(layer, _Convolution)
        ]
    if [tuple(layer.weight.shape) for _, layer in layers] != [w.shape for w, _ in found]:
        return None
    state: dict[str, Tensor] = {}
    for (name, _), (weight, bias) in zip(layers, found, strict=True):
        state[f"{name}.weight"] = torch.from_numpy(weight)
        state[f"{name}.bias"] = torch.from_numpy(bias)
    return state
