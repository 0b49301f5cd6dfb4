"""Muon: steps for matrices in which every direction counts the same.

Plain momentum mostly follows the few directions in which gradients are large. Muon (Jordan et al.
2024) replaces each matrix of momentum by the nearest orthogonal one, so that rare directions are
learnt as fast as common ones: a few epochs teach what takes SGD many. Convolutions are matrices of
`[out, in · height · width]`. Biases, norms and the last layer take SGD's steps with Nesterov's
momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

# An odd polynomial that moves singular values of 0…1 towards 1 (Jordan et al. 2024). Convolutions
# are wider than tall, and their directions not too unlike: three steps do what five do.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 3


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for the groups that ask for it, Nesterov's momentum for the others.

    Args:
        params: groups; one with `orthogonal=True` holds weights of two dimensions or more.
        lr: the learning rate of groups that have none of their own.
        momentum: in 0…1.
        weight_decay: the share of a weight that a step takes away is the learning rate times this,
            as in AdamW; also of groups that are not orthogonal.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "orthogonal": False,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; `closure` computes the loss anew, and its gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                buffer = state["momentum_buffer"].mul_(momentum).add_(weight.grad)
                update = weight.grad.add(buffer, alpha=momentum)
                if group["orthogonal"]:
                    update = _update(update)
                weight.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr)
        return loss


def _update(update: Tensor) -> Tensor:
    """The orthogonal matrix, as large as its shape asks for: tall ones move their outputs less."""
    matrix = update.flatten(1)
    rows, columns = matrix.shape
    straight: Tensor = orthogonal(matrix).view_as(update)
    return straight.mul(max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all 1.

    Those that are above a fifth of the largest come out within 0.5…1.5.

    Args:
        matrix: `[R, C]`, of any scale. Zeros stay zeros.
    """
    x = matrix.to(torch.bfloat16 if has_bfloat16(matrix.device) else torch.float32)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(_STEPS):
        square = x @ x.T
        x = _A * x + (_B * square + _C * square @ square) @ x
    straight: Tensor = (x.T if tall else x).to(matrix.dtype)
    return straight


def has_bfloat16(device: torch.device) -> bool:
    """Whether this hardware multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
