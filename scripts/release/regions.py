"""Add regional evidence to an ONNX model file: which classes some region of the photo shows.

The softmax names one class. A photo can show several. A linear layer, applied to every position of
the last feature map, tells for each class how strongly the best regions show it. The graph gets one
more output, `regions` [N, C], after `logits` and `features`: above 0, the photo shows the class.
Logits and features stay as they are.

    evidence = log mean over windows of exp(mean over window of (map · weight) + bias) − limit

`fit` learns weight and bias from photos that are known to show a class or not, such as composites
of two photos (multiple-instance learning with log-sum-exp pooling: Pinheiro and Collobert 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

WINDOW = 3
"""Side of the windows, in positions of the feature map."""

_SHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Gather", "Identity"})
"""What exporters put between the mean and the output; it keeps the values."""

Floats = npt.NDArray[np.float32]


def feature_map(model: onnx.ModelProto) -> str:
    """The name of the tensor [N, D, h, w] whose mean over h and w is the output `features`.

    Raises:
        ValueError: the graph has no such tensor.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    name = "features"
    while name in made:
        node = made[name]
        if node.op_type in {"ReduceMean", "GlobalAveragePool"}:
            return str(node.input[0])
        if node.op_type not in _SHAPES:
            break
        name = node.input[0]
    raise ValueError("the output `features` is not the mean of a feature map")


def add_regions(
    model: onnx.ModelProto, weight: Floats, bias: Floats, *, limit: float, window: int = WINDOW
) -> onnx.ModelProto:
    """Return a copy of a model with the output `regions` [N, C].

    Args:
        model: its first outputs are `logits` and `features`.
        weight: [D, C], of `fit`.
        bias: [C], of `fit`.
        limit: the evidence above which a photo is said to show a class. It is subtracted.
        window: side of the windows, in positions of the feature map.

    Raises:
        ValueError: the outputs are others, or `features` is not the mean of a feature map.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    if [output.name for output in graph.output][:2] != ["logits", "features"]:
        raise ValueError("the first outputs are not `logits` and `features`")
    source = feature_map(model)
    # Windows are averaged before the layer's bias: the mean of sums is the sum of means.
    constants = {
        "regions.weight": np.ascontiguousarray(weight.T[:, :, None, None], np.float32),
        "regions.bias": np.asarray(bias - limit, np.float32),
        "regions.shape": np.array([0, len(bias), -1], np.int64),
        "regions.axis": np.array([2], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    old = next(each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}) < 18
    axes = {"axes": [2]} if old else {}
    over = [] if old else ["regions.axis"]
    graph.node.extend(
        [
            helper.make_node(
                "Conv", [source, "regions.weight", "regions.bias"], ["regions.positions"]
            ),
            helper.make_node(
                "AveragePool", ["regions.positions"], ["regions.windows"],
                kernel_shape=[window, window], strides=[1, 1],
            ),
            helper.make_node("Reshape", ["regions.windows", "regions.shape"], ["regions.flat"]),
            # The largest value first: exp of the rest is at most 1.
            helper.make_node(
                "ReduceMax", ["regions.flat", *over], ["regions.max"], keepdims=1, **axes
            ),
            helper.make_node("Sub", ["regions.flat", "regions.max"], ["regions.below"]),
            helper.make_node("Exp", ["regions.below"], ["regions.exp"]),
            helper.make_node(
                "ReduceMean", ["regions.exp", *over], ["regions.mean"], keepdims=1, **axes
            ),
            helper.make_node("Log", ["regions.mean"], ["regions.log"]),
            helper.make_node("Add", ["regions.log", "regions.max"], ["regions.kept"]),
            helper.make_node("Squeeze", ["regions.kept", "regions.axis"], ["regions"]),
        ]
    )  # fmt: skip
    rows = graph.output[0].type.tensor_type.shape.dim[0]
    number = rows.dim_param or rows.dim_value
    graph.output.append(
        helper.make_tensor_value_info("regions", TensorProto.FLOAT, [number, len(bias)])
    )
    onnx.checker.check_model(changed)
    return changed


def evidence(maps: Floats, weight: Floats, bias: Floats, window: int = WINDOW) -> Floats:
    """The evidence `[N, C]` of feature maps `[N, D, h, w]`, as the graph computes it; limit 0."""
    n, depth, height, width = maps.shape
    values = np.matmul(weight.T, maps.reshape(n, depth, height * width)) + bias[:, None]
    values = values.reshape(n, -1, height, width)
    tiles = np.lib.stride_tricks.sliding_window_view(values, (window, window), axis=(2, 3))
    means = tiles.mean((4, 5)).reshape(n, len(bias), -1)
    most = means.max(2)
    return np.asarray(np.log(np.exp(means - most[..., None]).mean(2)) + most, np.float32)


def fit(
    maps: npt.NDArray[np.floating], present: Floats, *, epochs: int = 8, rate: float = 0.02,
    decay: float = 1e-4, window: int = WINDOW, seed: int = 0,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Learn the layer from photos of which it is known which classes they show.

    Leave out photos that show several classes under one label: they teach the opposite. Add
    composites of two photos of the same class, or the seam becomes evidence of two classes.

    Args:
        maps: feature maps `[N, D, h, w]`; `float16` saves memory.
        present: `[N, C]`, 1 where the photo shows the class and 0 elsewhere.
        epochs: passes over the photos.
        rate: the largest learning rate, of one cycle.
        decay: of the weights, which are scaled to unit variance of the features.
        window: as in `add_regions`.
        seed: of the order of the photos.

    Returns:
        weight `[D, C]` and bias `[C]`.
    """
    import torch
    from torch.nn import functional

    n, depth, height, width = maps.shape
    sample = np.asarray(maps[:: max(1, n // 500)], np.float32)
    scale = torch.from_numpy(1 / (sample.std((0, 2, 3)) + 0.05))[:, None]
    weight = torch.zeros(depth, present.shape[1], requires_grad=True)
    bias = torch.full((present.shape[1],), -1.0, requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=rate, weight_decay=0)
    size = 64
    steps = epochs * -(-n // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    order = np.random.default_rng(seed)
    windows = (height - window + 1) * (width - window + 1)
    for _ in range(epochs):
        for chosen in _batches(order.permutation(n), size):
            batch = np.asarray(maps[np.sort(chosen)], np.float32)
            x = torch.from_numpy(batch.reshape(len(chosen), depth, height * width))
            positions = torch.matmul((weight * scale).T, x) + bias[:, None]
            planes = positions.reshape(len(chosen), -1, height, width)
            means = functional.avg_pool2d(planes, window, 1).flatten(2)
            pooled = torch.logsumexp(means, 2) - float(np.log(windows))
            target = torch.from_numpy(present[np.sort(chosen)])
            loss = functional.binary_cross_entropy_with_logits(pooled, target)
            loss = loss + decay * weight.square().sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return (weight * scale).detach().numpy(), bias.detach().numpy()


def _batches(indices: npt.NDArray[np.int64], size: int) -> Sequence[npt.NDArray[np.int64]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
