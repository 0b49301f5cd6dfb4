"""The logit contract: check by behaviour that a network's output is raw logits.

An activation can hide anywhere in `forward`, so the check runs the network instead of reading it.
Whatever follows the last affine layer must be linear in that layer's output: −1 times the output
must give −1 times the logits, and a thousandfold a thousandfold. ReLU and softmax fail the former,
tanh and clamp the latter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from catordog.errors import CatordogError

# Functions that compute weight · x + bias, called by a module or by forward().
_AFFINE: frozenset[Callable[..., Any]] = frozenset(
    {
        F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.batch_norm,
        F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
        torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum,
        Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm, Tensor.addmm,
    }
)  # fmt: skip

# The last two have opposite signs, so that any value but 0 becomes large in both directions.
_FACTORS = (-1.0, 1e3, -1e6)
_HALF_FACTORS = (-1.0, 1e2, -2e3)  # the largest float16 is 65504
_SIZES = (64, 224, 32, 96, 128, 256, 299, 384, 512)


class RawLogitsError(CatordogError):
    """A network's output is not raw logits."""


def check_raw_logits(
    network: nn.Module, *, size: int | None = None, num_classes: int | None = None
) -> str:
    """Check that a network returns raw logits: no activation follows its last affine layer.

    The network runs a few times in evaluation mode, on random input, with the output of its last
    affine layer replaced. Its weights, its mode and the random state do not change.

    Args:
        network: maps `float32 [N, 3, S, S]` to `float32 [N, C]`.
        size: S; None tries common sizes.
        num_classes: C; None accepts any.

    Returns:
        The name of the last affine layer.

    Raises:
        RawLogitsError: the output is not raw logits. The message names the layer, why it hurts, and
            how to fix it.

    >>> check_raw_logits(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)), size=8)
    '1 (Linear)'
    """
    _check_kind(network)
    mode = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network.eval()
            return _check(_widened(network), size, num_classes)
    finally:
        for module, training in mode:
            module.training = training


def last_layer(network: nn.Module, size: int) -> nn.Module:
    """The module that computes the raw logits: the last affine one that they depend on.

    It is the network itself where `forward()` computes them without a module.
    """
    name = check_raw_logits(network, size=size).partition(" (")[0]
    modules: dict[str, nn.Module] = dict(network.named_modules())
    return modules.get(name, network)


def _check_kind(network: Any) -> None:
    if isinstance(network, type):
        raise RawLogitsError(f"{network.__name__} is a class: give a network, {network.__name__}()")
    if not isinstance(network, nn.Module):
        raise RawLogitsError(
            f"{_an(type(network).__name__)} is no network: give a torch.nn.Module, whose layers "
            "can be watched"
        )
    if isinstance(network, torch.jit.ScriptModule):
        raise RawLogitsError(
            f"{_name(network)} is compiled by TorchScript, which hides its layers: check the "
            "module before it is compiled"
        )


def _widened(network: nn.Module) -> nn.Module:
    """A copy in 32 bits of a network in 16, whose rounding could pass for a non-linearity."""
    if any(p.dtype in {torch.float16, torch.bfloat16} for p in network.parameters()):
        return copy.deepcopy(network).float()
    return network


def _check(network: nn.Module, size: int | None, num_classes: int | None) -> str:
    photos, output, tracer = _first_run(network, size)
    _check_shape(output, len(photos), num_classes)
    factors = _HALF_FACTORS if output.dtype == torch.float16 else _FACTORS
    # A forward() that computes in 16 bits rounds more.
    tolerance = max(1e-3, 4 * torch.finfo(output.dtype).eps)
    # The last affine layer that the output depends on: an unused branch may run after it.
    for call in reversed(tracer.calls):
        shape = call.shape
        draw = torch.randn(shape, device=photos.device) * 2
        zero = _tail(network, photos, call.index, torch.zeros(shape, device=photos.device))
        result = _tail(network, photos, call.index, draw)
        if torch.equal(zero, result) and torch.equal(
            zero,
            _tail(network, photos, call.index, -draw),  # a ReLU passes nothing below 0
        ):
            continue
        for factor in factors:
            scaled = _tail(network, photos, call.index, factor * draw)
            if not _proportional(scaled - zero, factor * (result - zero), tolerance):
                huge = _tail(network, photos, call.index, -factors[-1] * draw)
                seen = torch.cat([result, scaled, huge])
                kind = _known(draw, result, tolerance) or _kind(seen, tolerance)
                raise RawLogitsError(_lesson(call, tracer, kind, factor))
        return call.layer
    raise RawLogitsError(
        f"{_name(network)} has no affine layer (Linear or convolution) that its output depends on: "
        "end it in nn.Linear(features, classes)"
    )


def _first_run(network: nn.Module, size: int | None) -> tuple[Tensor, Any, _Tracer]:
    """Run the network on random photos of the first size that it accepts."""
    first = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    problem: Exception | None = None
    for pixels in (size,) if size else _SIZES:
        photos = torch.randn(2, 3, pixels, pixels, device=first.device, dtype=first.dtype)
        tracer = _Tracer()
        try:
            with tracer.watch(network):
                return photos, network(photos), tracer
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:
            problem = problem or error
    sizes = f"{size} × {size}" if size else " or ".join(str(pixels) for pixels in _SIZES)
    reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    raise RawLogitsError(
        f"{_name(network)} can't take photos [N, 3, S, S] of {sizes} pixels: {reason}"
    )


def _check_shape(output: Any, n: int, num_classes: int | None) -> None:
    if not isinstance(output, Tensor):
        raise RawLogitsError(
            f"the network returns {_an(type(output).__name__)} and not a tensor of logits [N, C]: "
            "return the logits alone"
        )
    if not output.is_floating_point():
        raise RawLogitsError(
            f"the network returns {str(output.dtype).removeprefix('torch.')} numbers and not "
            "logits: return the last layer's output, without argmax or rounding"
        )
    if output.ndim != 2 or output.shape[0] != n or output.shape[1] < 1:
        raise RawLogitsError(
            f"the network maps {n} photos to {list(output.shape)} instead of logits "
            f"[{n}, classes]: pool and flatten before the last linear layer"
        )
    if num_classes is not None and output.shape[1] != num_classes:
        raise RawLogitsError(
            f"the network has {output.shape[1]} logits for {num_classes} classes: "
            f"make its last layer {num_classes} wide"
        )


@dataclass(frozen=True, slots=True)
class _Call:
    """An affine computation: its index among them, its layer, and the shape of its output."""

    index: int
    layer: str
    shape: torch.Size


class _Tracer(TorchFunctionMode):
    """Records affine computations, and the leaf modules that ran after each.

    With `replace_at`, the output of the computation with this index is replaced.
    """

    def __init__(self, replace_at: int | None = None, by: Tensor | None = None) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.ran: list[tuple[int, str]] = []  # affine computations before it, leaf module
        self._replace_at, self._by = replace_at, by
        self._inside: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _AFFINE or not isinstance(result, Tensor):
            return result
        index = len(self.calls)
        layer = self._inside[-1] if self._inside else "forward()"
        self.calls.append(_Call(index, layer, result.shape))
        return self._by.to(result) if index == self._replace_at and self._by is not None else result

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[None]:
        handles = []
        for name, module in network.named_modules():
            label = f"{name or 'the network'} ({type(module).__name__})"
            leaf = not any(True for _ in module.children())

            def enter(_module: nn.Module, _args: Any, label: str = label) -> None:
                self._inside.append(label)

            def leave(
                _m: nn.Module, _a: Any, _o: Any, label: str = label, leaf: bool = leaf
            ) -> None:
                self._inside.pop()
                if leaf:
                    self.ran.append((len(self.calls), label))

            handles += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave),
            ]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()


def _tail(network: nn.Module, photos: Tensor, index: int, value: Tensor) -> Tensor:
    """The network's output with `value` as the result of the affine computation `index`.

    Multiplying a layer's weight and bias by k multiplies its output by k. So this has the effect of
    scaling parameters without changing them.
    """
    with _Tracer(index, value):
        output: Tensor = network(photos)
    return output.double()


def _proportional(scaled: Tensor, expected: Tensor, tolerance: float) -> bool:
    most = tolerance * float(expected.abs().max())
    return bool(scaled.isfinite().all()) and float((scaled - expected).abs().max()) <= most


_WHY = {
    "softmax": "cross-entropy applies softmax itself, so the loss would see the softmax of a "
    "softmax: its gradient nearly vanishes, and of two classes none could pass 73 %",
    "log-softmax": "cross-entropy applies log-softmax itself, and the sizes of the raw logits "
    "are lost before anyone can read them",
    "sigmoid": "it squeezes every logit into 0…1, and the softmax of (1, 0) is 0.73: no "
    "confidence could be higher",
    "ReLU": "it throws away every negative logit, and with it the gradient that would correct it",
    "tanh": "it squeezes every logit into −1…1, and the softmax of (1, −1) is 0.88: no confidence "
    "could be higher",
    "clamp": "a bound on the logits is a bound on the confidence, and beyond it no gradient flows",
    "non-linearity": "logits must be free to take any value: a function that bends or bounds them "
    "distorts every confidence that is computed from them",
}

_SMOOTH = "it bends the logits, and hardly lets negative ones pass, nor their gradient"
_WHY |= dict.fromkeys(("softplus", "GELU", "SiLU", "ELU", "leaky ReLU", "mish"), _SMOOTH)
_WHY |= dict.fromkeys(("exponential", "absolute value", "square"), _WHY["non-linearity"])
_WHY["log-sigmoid"] = "it lets no logit pass 0, and the loss applies log-softmax itself"

# Activations whose range would not tell them apart.
_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "softplus": F.softplus,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "mish": F.mish,
    "ELU": F.elu,
    "leaky ReLU": F.leaky_relu,
    "log-sigmoid": F.logsigmoid,
    "exponential": torch.exp,
    "absolute value": torch.abs,
    "square": torch.square,
}

# Layers that are linear in evaluation mode.
_INERT = ("Dropout", "Flatten", "Identity", "AvgPool", "Unflatten")


def _lesson(call: _Call, tracer: _Tracer, kind: str, factor: float) -> str:
    after = [
        label
        for calls, label in tracer.ran
        if calls > call.index and label != call.layer and not any(word in label for word in _INERT)
    ]
    where = after[-1] if after else f"{_an(kind)} hidden in forward()"
    return (
        f"not raw logits: {where} comes after the last affine layer, {call.layer}; "
        f"{factor:g} times that layer's output does not give {factor:g} times the logits. "
        f"Why it hurts: {_WHY[kind]}. The fix: remove it and return that layer's output as it is; "
        "softmax belongs to evaluation"
    )


def _known(given: Tensor, result: Tensor, tolerance: float) -> str | None:
    """The activation that gives this result for an affine layer's output; None if none does."""
    if given.shape != result.shape:
        return None
    for name, activation in _KNOWN.items():
        if torch.allclose(activation(given.double()), result, rtol=4 * tolerance, atol=tolerance):
            return name
    return None


def _kind(outputs: Tensor, tolerance: float) -> str:
    """Guess from the ranges of outputs which activation computed them, for the error message.

    Args:
        outputs: for inputs of moderate size, scaled, and huge, one after the other.
        tolerance: of sums.
    """
    low, high = float(outputs.min()), float(outputs.max())
    sums, logs = outputs.sum(dim=1), outputs.logsumexp(dim=1)
    several = outputs.shape[1] > 1
    if several and low >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=tolerance):
        return "softmax"
    if several and torch.allclose(logs, torch.zeros_like(logs), atol=tolerance):
        return "log-softmax"
    if low >= 0 and high <= 1:
        return "sigmoid"
    if low == 0 and bool((outputs[: len(outputs) // 3] == 0).any()):  # of moderate size
        return "ReLU"
    if max(-low, high) <= 1:
        return "tanh"
    return "clamp" if max(-low, high) < 1e4 else "non-linearity"


def _an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeioAEIO' else 'a'} {noun}"


def _name(network: nn.Module) -> str:
    return type(network).__name__
