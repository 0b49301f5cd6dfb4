"""The LightningModule: a network that gives raw logits, trained by cross-entropy on them."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from catordog.errors import CatordogError
from catordog.model.contract import last_layer
from catordog.model.info import ModelInfo
from catordog.model.networks import OURS, build_network
from catordog.training.muon import Muon
from catordog.training.transfer import Transfer
from catordog.training.whitening import whiten

Optimizer = Literal["sgd", "muon", "adamw"]

_WITHIN = 1  # tells these draws from those of the photos


class ClassifierModule(L.LightningModule):
    """Trains a network to tell classes apart.

    Args:
        classes: their names, in the order of the logits; they come from the data.
        size: side of the input, in pixels; it comes from the data.
        network: `residual` (ours), a torchvision architecture such as `resnet18`, or the class
            path of a network that takes `num_classes`.
        network_args: further arguments for the network.
        weights: pretrained weights: torchvision's by name, or a local file.
        transfer: how pretrained weights learn (see `Transfer`).
        optimizer: `sgd` (with Nesterov momentum), `muon` (learns most in few epochs) or `adamw`.
        lr: the highest learning rate.
        other_lr: the highest learning rate of what is no matrix, and of the last layer, under
            `muon`; five times `lr` if it isn't given.
        momentum: of SGD and Muon.
        weight_decay: on weights; not on biases and norms.
        warmup: the share of all steps in which the learning rate rises; then it falls to 0 along
            a cosine.
        whiten: begin with a first layer that is computed from the training photos, and fixed (see
            `whitening`).
        tta_flip: outside of training, take the mean of the raw logits of a photo and of its mirror
            image: a little more accurate, and half as fast.
        label_smoothing: in 0…1; it makes a network humbler than the data (Müller et al. 2019).
    """

    def __init__(
        self,
        classes: list[str],
        size: int = 64,
        network: str = OURS,
        network_args: dict[str, Any] | None = None,
        weights: str | None = None,
        transfer: Transfer = Transfer(),  # noqa: B008 - frozen
        optimizer: Optimizer = "sgd",
        lr: float = 0.2,
        other_lr: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        warmup: float = 0.15,
        label_smoothing: float = 0.0,
        whiten: bool = False,
        tta_flip: bool = False,
    ) -> None:
        super().__init__()
        if lr <= 0 or not 0 <= warmup <= 1 or not 0 <= label_smoothing < 1 or weight_decay < 0:
            raise CatordogError(
                "model needs lr > 0, warmup in 0…1, label_smoothing in 0…1, weight_decay ≥ 0; got "
                f"{lr}, {warmup}, {label_smoothing}, {weight_decay}"
            )
        if whiten and weights:
            raise CatordogError(
                "model.whiten would replace pretrained filters: set it to false, or give no weights"
            )
        self.save_hyperparameters(ignore=["transfer"])
        self.transfer = transfer
        self.classes = tuple(classes)
        self.network_args = dict(network_args or {})
        self.network: nn.Module = build_network(
            network, len(classes), self.network_args, weights, size=size
        ).to(memory_format=torch.channels_last)
        self._head = [last_layer(self.network, size)]  # in a list: it is no further module
        self.example_input_array = torch.zeros(2, 3, size, size)
        # Lightning's own means go wrong where processes have unlike numbers of photos.
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        metrics = {"num_classes": len(classes), "average": "micro"}
        self.train_accuracy = MulticlassAccuracy(**metrics)  # type: ignore[arg-type]
        self.val_accuracy = MulticlassAccuracy(**metrics)  # type: ignore[arg-type]
        self.confusion = MulticlassConfusionMatrix(num_classes=len(classes))

    def forward(self, photos: Tensor) -> Tensor:
        """Raw logits `float32 [N, C]` of normalised photos `float32 [N, 3, S, S]`."""
        logits: Tensor = self.network(photos)
        return logits.float()  # a loss in half precision would round what it should learn from

    def final_logits(self, photos: Tensor) -> Tensor:
        """Raw logits as the finished model gives them: with the mirror image, if it looks at it."""
        if not self.hparams["tta_flip"]:
            return self(photos)  # type: ignore[no-any-return]
        return (self(photos) + self(photos.flip(3))) / 2  # type: ignore[no-any-return]

    def setup(self, stage: str) -> None:
        """Compute the first layer, where it is not learnt; a checkpoint replaces it."""
        if stage == "fit" and self.hparams["whiten"]:
            whiten(self.network, self._data.sample())

    def on_train_epoch_start(self) -> None:
        """Freeze what doesn't learn in this epoch."""
        self.transfer.apply(self.network, self._head[0], self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what draws at random within a network (dropout …): by the step alone.

        So a run that goes on draws what it would have drawn.
        """
        del batch, batch_idx
        trainer = self.trainer
        step = trainer.fit_loop.epoch_loop.total_batch_idx
        draw = np.random.SeedSequence((self._data.seed, step, trainer.global_rank, _WITHIN))
        torch.manual_seed(int(draw.generate_state(1)[0]))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        """Cross-entropy on raw logits; None if no photo of the batch could be read."""
        del batch_idx
        photos, labels = batch
        if not len(labels):
            return None
        logits = self(photos)
        weights = self._data.class_weights
        loss = F.cross_entropy(
            logits,
            labels,
            weight=None if weights is None else weights.to(logits),
            label_smoothing=self.hparams["label_smoothing"],
        )
        self.train_accuracy(logits, labels)
        self.train_loss(loss.detach(), len(labels))
        self.log("train/loss_step", loss, on_step=True, on_epoch=False)  # this process's own
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Measure the network that is kept: the first process's batch norms, not one's own."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                buffer.copy_(self.trainer.strategy.broadcast(buffer))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss, accuracy and confusion matrix over photos that don't train.

        Without the mirror image, which would take as long again and change the ranking little.
        """
        del batch_idx
        photos, labels = batch
        if not len(labels):
            return
        logits = self(photos)
        loss = F.cross_entropy(logits, labels)
        self.val_accuracy(logits, labels)
        self.confusion(logits, labels)
        shown = {"on_step": False, "on_epoch": True, "prog_bar": True}
        self.val_loss(loss, len(labels))
        self.log("val/loss", self.val_loss, **shown)  # type: ignore[arg-type]
        self.log("val/accuracy", self.val_accuracy, **shown)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        """The optimiser, with a learning rate that rises, then falls to 0 along a cosine.

        Where the last layer learns alone at first, the curve starts anew when the others join it.
        """
        optimizer = self._optimizer()
        total = float(self.trainer.estimated_stepping_batches)
        epochs, head_epochs = self.trainer.max_epochs or 0, self.transfer.head_epochs
        alone = total * min(1, head_epochs / epochs) if epochs > 0 and head_epochs else 0

        def factor(step: int) -> float:
            if step < alone:
                return self._curve(step, alone)
            return self._curve(step - alone, total - alone)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "learning rate"},
        }

    def _curve(self, step: float, total: float) -> float:
        """The share of the learning rate at a step of a rise and a fall."""
        rise = self.hparams["warmup"] * total if math.isfinite(total) else 500
        if step < rise:
            return (step + 1) / (rise + 1)
        if not math.isfinite(total):
            return 1.0
        done = (step - rise) / max(total - rise, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1)))

    def _optimizer(self) -> torch.optim.Optimizer:
        hparams = self.hparams
        lr, momentum, decay = hparams["lr"], hparams["momentum"], hparams["weight_decay"]
        muon = hparams["optimizer"] == "muon"
        other_lr = hparams["other_lr"] or 5 * lr
        head = self._head[0]
        last = {id(p) for p in head.parameters()} if head is not self.network else set()
        groups: list[dict[str, Any]] = []
        for share, parameters in self.transfer.bands(self.network, head):
            matrices = [p for p in parameters if p.ndim > 1]
            others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
            if not muon:
                groups.append({"params": matrices, "weight_decay": decay, "lr": share * lr})
                groups.append({**others, "lr": share * lr})
                continue
            inner = [p for p in matrices if id(p) not in last]
            groups.append(
                {"params": inner, "orthogonal": True, "weight_decay": decay, "lr": share * lr}
            )
            outer = [p for p in matrices if id(p) in last]
            groups.append({"params": outer, "lr": share * other_lr})
            groups.append({**others, "lr": share * other_lr})
        groups = [group for group in groups if group["params"]]
        if muon:
            return Muon(groups, lr=lr, momentum=momentum)
        if hparams["optimizer"] == "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
        return torch.optim.AdamW(groups, lr=lr)

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put everything that a `Classifier` needs into the file."""
        data = self._data
        checkpoint["catordog"] = ModelInfo(
            classes=self.classes,
            network=self.hparams["network"],
            network_args=self.network_args,
            preprocess=data.preprocess,
            split_fractions=data.split_fractions,
            tta_flip=self.hparams["tta_flip"],
        ).to_dict()
