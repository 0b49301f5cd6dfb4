"""Muon: momentum whose matrices are orthogonalised, so that all directions learn equally fast.

Plain momentum mostly follows the few directions in which gradients are large. Muon (Jordan et al.
2024) replaces each momentum matrix by the nearest orthogonal one: rare directions are learnt as
fast as common ones, and a few epochs do what takes SGD many. A convolution is a matrix
`[out, in · height · width]`. Biases, norms and the last layer take SGD's steps with Nesterov
momentum.

We keep our own because `torch.optim.Muon` takes no 4-D weights, such as those of convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from catordog.training.precision import has_bfloat16

# Newton-Schulz: an odd polynomial that moves singular values in 0…1 towards 1 (Jordan et al. 2024).
# Three iterations suffice for convolutions, whose matrices are wide and well conditioned.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 3


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for groups with `orthogonal=True`, Nesterov momentum for the others.

    Args:
        params: groups; one with `orthogonal=True` holds weights of two dimensions or more.
        lr: the learning rate of groups without one of their own.
        momentum: in 0…1.
        weight_decay: decoupled, as in AdamW: a step subtracts `lr * weight_decay * weight`.
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
        """Take one step; `closure` recomputes the loss and its gradients."""
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
                    update = _orthogonal_update(update)
                weight.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr)
        return loss


def _orthogonal_update(update: Tensor) -> Tensor:
    """The orthogonalised update, scaled up for tall matrices, which else change outputs less."""
    matrix = update.flatten(1)
    rows, columns = matrix.shape
    orthogonalised: Tensor = orthogonal(matrix).view_as(update)
    return orthogonalised.mul(max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximately the nearest matrix whose singular values are all 1.

    Singular values above a fifth of the largest come out within 0.5…1.5.

    Args:
        matrix: `[R, C]`, of any scale. Zeros stay zeros.
    """
    x = matrix.to(torch.bfloat16 if has_bfloat16(matrix.device) else torch.float32)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    # Each iteration multiplies x by a polynomial of x xᵀ, so all of them commute: they are carried
    # out on the small square matrix, and x is multiplied once.
    gram = (x @ x.T).float()
    product = _polynomial(gram)
    for _ in range(_ITERATIONS - 1):
        product = _polynomial(product @ gram @ product) @ product
    x = product.to(x.dtype) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


def _polynomial(gram: Tensor) -> Tensor:
    """What an iteration multiplies x by, from x xᵀ; `float32 [R, R]` both."""
    eye = torch.eye(len(gram), device=gram.device)
    return _A * eye + _B * gram + _C * gram @ gram
