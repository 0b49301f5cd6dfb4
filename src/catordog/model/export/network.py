"""What every exported network computes: logits and features, flipped where the model does so."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any

from catordog.model.backends.torch import TorchBackend
from catordog.model.classifier import Classifier
from catordog.model.info import ModelInfo
from catordog.model.onnx_file import to_json


def exported_network(backend: TorchBackend, *, tta_flip: bool) -> Any:
    """The network with both outputs, as torch exports it."""
    import torch
    from torch import Tensor, nn

    copies: dict[int, Any] = {}
    network = copy.deepcopy(backend.network, copies)
    # In channels-last layout, torch exports pooling as strides, which become a loop in ONNX.
    network.to(memory_format=torch.contiguous_format)

    class Exported(nn.Module):
        """Logits and features, averaged over the horizontal flip where the model does so."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.last = copies[id(backend.last)] if backend.has_features else None

        def forward(self, photos: Tensor) -> tuple[Tensor, ...]:
            inputs = torch.cat([photos, photos.flip(3)]) if tta_flip else photos
            seen: list[Tensor] = []
            if self.last is None:
                return (self._mean(self.network(inputs)),)
            hook = self.last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
            try:
                logits = self.network(inputs)
            finally:
                hook.remove()
            return self._mean(logits), self._mean(seen[0].flatten(1))

        def _mean(self, rows: Tensor) -> Tensor:
            return rows.view(2, -1, rows.shape[1]).mean(0) if tta_flip else rows

    return Exported().eval()


def flips_in_graph(model: ModelInfo) -> bool:
    """Whether the network of the file flips every photo, so that any program gets the mean.

    A flip of only some photos is left to the `Classifier`.
    """
    return model.tta_flip and model.tta_flip_below >= 1


def description(classifier: Classifier) -> str:
    """The model's description, without what is part of the file's network already."""
    model = classifier.model
    return to_json(replace(model, tta_flip=model.tta_flip and not flips_in_graph(model)))


def cause_of(error: BaseException) -> str:
    """Why torch can't export a network, in one line: torch says it in forty, the cause last."""
    while error.__cause__ is not None:
        error = error.__cause__
    name, text = type(error).__name__, str(error).strip()
    if "DataDependent" in name or "data-dependent" in text:
        return (
            "its forward() decides by the values of the photos, such as `if x.mean() > 0.3` or "
            "x.max().item(): use torch.where or another function of tensors"
        )
    return f"{name}: {text.splitlines()[0][:200] if text else 'no reason given'}"


@contextmanager
def silence() -> Iterator[None]:
    """Silence the exporters, which print their progress, and pages of graphs at each failure."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
