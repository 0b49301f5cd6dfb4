"""The LightningModule: a network that returns raw logits, trained by cross-entropy on them.

It trains with any DataLoader of normalised photos `float32 [N, 3, S, S]` and labels `int64 [N]`:

    module = ClassifierModule(["cat", "dog"], size=64)
    lightning.Trainer(max_epochs=5).fit(module, train_loader, val_loader)

`catordog.load` reads the checkpoints. What else a module may know of its data, `PhotosDataModule`
hands over with `use_data`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from catordog.errors import CatordogError
from catordog.model.contract import last_layer
from catordog.model.info import ModelInfo
from catordog.model.networks import OURS, build_network, initial_weights
from catordog.photos.class_names import check_class_names
from catordog.photos.preprocess import Preprocess
from catordog.photos.splits import SplitFractions
from catordog.training.optim import (
    Decay,
    OptimizerName,
    OptimizerSettings,
    build_optimizer,
    restarting_schedule,
)
from catordog.training.seeding import step_seed
from catordog.training.transfer import Transfer
from catordog.training.whitening import whiten

_NETWORK_DRAWS = 1
"""Stream of `step_seed`: draws within the network, such as dropout, differ from augmentation's."""


def batch_of_one(error: ValueError) -> CatordogError | None:
    """What to do if batch norm has refused a batch of one photo; None: another error."""
    if "more than 1 value per channel" not in str(error):
        return None
    return CatordogError(
        "this network's batch norm needs at least 2 photos per step and process: give a larger "
        "--data.batch_size, or more photos"
    )


class ClassifierModule(L.LightningModule):
    """Trains a network to classify photos.

    Args:
        classes: their names, in the order of the logits; `catordog train` takes them from the data.
        size: width and height of the input, in pixels; `catordog train` takes it from the data.
        network: `residual` (ours), `lite2` (that of the bundled backbone), a torchvision
            architecture such as `resnet18`, or the class path of a network that takes
            `num_classes`.
        network_args: further arguments of the network.
        weights: pretrained weights: `DEFAULT` of the bundled backbone or of torchvision, another
            name of torchvision's, or a local file. `lite2` has them by default.
        transfer: how pretrained weights learn (see `Transfer`).
        optimizer: `sgd` (with Nesterov momentum), `muon` (best for few epochs) or `adamw`.
        lr: peak learning rate.
        other_lr: under `muon`, the peak learning rate of the last layer, biases and norms; five
            times `lr` by default.
        momentum: of SGD and Muon.
        weight_decay: on weights; not on biases and norms.
        warmup: the fraction of steps in which the learning rate rises; then it falls to 0.
        lr_decay: how it falls: along a `cosine`, or evenly (`linear`).
        label_smoothing: in 0…1; it lowers confidence (Müller et al. 2019).
        whiten: compute the first layer from training photos, and freeze it (see `whitening`).
        tta_flip: outside of training, average the raw logits of a photo and of its mirror image:
            slightly more accurate, at twice the cost.
        tta_flip_below: with `tta_flip`, do so only for photos whose confidence without it is lower,
            0…1; 1: for all.
        seed: of draws within the network; `catordog train` takes it from `--seed_everything`.

    Raises:
        CatordogError: a setting is out of range, or the network does not return raw logits.
    """

    def __init__(
        self,
        classes: list[str],
        size: int = 64,
        network: str = OURS,
        network_args: dict[str, Any] | None = None,
        weights: str | None = None,
        transfer: Transfer = Transfer(),  # noqa: B008 - frozen
        optimizer: OptimizerName = "sgd",
        lr: float = 0.2,
        other_lr: float | None = None,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        warmup: float = 0.15,
        lr_decay: Decay = "cosine",
        label_smoothing: float = 0.0,
        whiten: bool = False,
        tta_flip: bool = False,
        tta_flip_below: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if lr <= 0 or not 0 <= warmup <= 1 or not 0 <= label_smoothing < 1 or weight_decay < 0:
            raise CatordogError(
                "model needs lr > 0, warmup in 0…1, label_smoothing in 0…1, weight_decay ≥ 0; got "
                f"{lr}, {warmup}, {label_smoothing}, {weight_decay}"
            )
        weights = initial_weights(network, weights)
        if whiten and weights:
            raise CatordogError(
                "model.whiten would replace pretrained filters: set it to false, or give no weights"
            )
        if not 0 <= tta_flip_below <= 1:
            raise CatordogError(f"model.tta_flip_below {tta_flip_below} is not within 0…1")
        check_class_names("model", classes)
        self.save_hyperparameters(ignore=["transfer"])
        self.transfer = transfer
        self.classes = tuple(classes)
        self.network_args = dict(network_args or {})
        self.seed = seed
        self.preprocess = Preprocess(size)
        self.split_fractions = SplitFractions()
        self.class_weights: Tensor | None = None
        self._whitened = False
        self._fixed: set[nn.Parameter] | None = None
        self.network: nn.Module = build_network(
            network, len(classes), self.network_args, weights, size=size
        ).to(memory_format=torch.channels_last)
        self._head = [last_layer(self.network, size)]  # a list hides it from named_modules()
        self.example_input_array = torch.zeros(2, 3, size, size)
        # Lightning's own means are wrong where processes have different numbers of photos.
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        metrics = {"num_classes": len(classes), "average": "micro"}
        self.train_accuracy = MulticlassAccuracy(**metrics)  # type: ignore[arg-type]
        self.val_accuracy = MulticlassAccuracy(**metrics)  # type: ignore[arg-type]
        self.confusion = MulticlassConfusionMatrix(num_classes=len(classes))

    def use_data(
        self,
        preprocess: Preprocess | None = None,
        split_fractions: SplitFractions | None = None,
        class_weights: Tensor | None = None,
        sample: Callable[[], Tensor] | None = None,
    ) -> None:
        """Tell the module about its data; all of it is optional.

        Args:
            preprocess: how photos became input; the checkpoint stores it.
            split_fractions: how they were split; the checkpoint stores it.
            class_weights: weight of each class in the training loss, `float32 [C]`; None: equal.
            sample: returns training photos for `whiten`, normalised, `float32 [N, 3, S, S]`.

        Raises:
            CatordogError: the network has no first layer that could be whitened.
        """
        self.preprocess = preprocess or self.preprocess
        self.split_fractions = split_fractions or self.split_fractions
        self.class_weights = class_weights
        if sample is not None and self.hparams["whiten"]:
            whiten(self.network, sample())
            self._whitened = True

    def forward(self, photos: Tensor) -> Tensor:
        """Raw logits `float32 [N, C]` of normalised photos `float32 [N, 3, S, S]`."""
        logits: Tensor = self.network(photos.to(self.dtype))  # 16-true, bf16-true or 64-true
        # Half precision would round the loss.
        return logits if logits.dtype == torch.float64 else logits.float()

    def setup(self, stage: str) -> None:
        """Check that whitening has had its photos; a checkpoint is loaded afterwards."""
        if stage == "fit" and self.hparams["whiten"] and not self._whitened:
            raise CatordogError(
                "model.whiten needs training photos: train with PhotosDataModule, or call "
                "use_data(sample=...) before"
            )

    def on_train_epoch_start(self) -> None:
        """Freeze the layers that don't learn in this epoch."""
        if self._fixed is None:
            self._fixed = {p for p in self.network.parameters() if not p.requires_grad}
        self.transfer.apply(self.network, self._head[0], self.current_epoch, self._fixed)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed draws within the network (dropout …) by the step, so that resuming repeats them."""
        del batch, batch_idx
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        torch.manual_seed(step_seed(self.seed, step, self.trainer.global_rank, _NETWORK_DRAWS))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        """Cross-entropy on raw logits; None if the batch is empty because no photo was readable."""
        del batch_idx
        photos, labels = batch
        if not len(labels):
            return None
        try:
            logits = self(photos)
        except ValueError as error:
            raise batch_of_one(error) or error from None
        weights = self.class_weights
        loss = F.cross_entropy(
            logits,
            labels,
            weight=None if weights is None else weights.to(logits),
            label_smoothing=self.hparams["label_smoothing"],
        )
        self.train_accuracy(logits, labels)
        self.train_loss(loss.detach(), len(labels))
        self.log("train/loss_step", loss, on_step=True, on_epoch=False)  # of this process
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Validate the network that is saved: the batch-norm statistics of rank 0."""
        self.confusion.reset()
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                buffer.copy_(self.trainer.strategy.broadcast(buffer))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss, accuracy and confusion matrix on validation photos.

        Without `tta_flip`, which would double the time and hardly change which epoch is best.
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
        """The optimiser and its learning-rate schedule (see `optim`).

        Where the last layer learns alone at first, the schedule restarts when the others join it.
        """
        hparams = self.hparams
        names = ("lr", "other_lr", "momentum", "weight_decay")
        settings = OptimizerSettings(**{name: hparams[name] for name in names})
        optimizer = build_optimizer(
            hparams["optimizer"], self.network, self._head[0], self.transfer, settings
        )
        total = float(self.trainer.estimated_stepping_batches)
        epochs, head_epochs = self.trainer.max_epochs or 0, self.transfer.head_epochs
        head_steps = total * min(1, head_epochs / epochs) if epochs > 0 and head_epochs else 0
        factor = restarting_schedule(total, head_steps, hparams["warmup"], hparams["lr_decay"])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "name": "learning rate"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store everything that a `Classifier` needs in the checkpoint."""
        checkpoint["catordog"] = ModelInfo(
            classes=self.classes,
            network=self.hparams["network"],
            network_args=self.network_args,
            preprocess=self.preprocess,
            split_fractions=self.split_fractions,
            tta_flip=self.hparams["tta_flip"],
            tta_flip_below=self.hparams["tta_flip_below"],
        ).to_dict()
