"""What a taught model learns on a general backbone: a linear layer, its confidence, its file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catordog.confidence.conformal import thinned
from catordog.errors import CatordogError
from catordog.model.backbone import Backbone
from catordog.model.backends.deferred import DeferredBackend
from catordog.model.classifier import Classifier
from catordog.model.first_stage import Output
from catordog.model.info import ModelInfo
from catordog.model.linear_head import Learned, LinearHead, learn, typical_direction
from catordog.model.onnx_file import KEY, to_json
from catordog.model.onnx_graph import with_metadata
from catordog.model.taught_file import EXAMPLES_KEY, Examples
from catordog.photos.near_copies import Hashes, copy_groups
from catordog.photos.splits import SplitFractions

NETWORK = "taught"
"""`ModelInfo.network` of taught models."""


@dataclass(frozen=True, slots=True, eq=False)
class TaughtLayer:
    """A linear layer on a general backbone, with its calibration.

    Attributes:
        model: the description of the model.
        head: the layer.
        learned: what cross-validation says of it; None for a model of one class.
    """

    model: ModelInfo
    head: LinearHead
    learned: Learned | None

    def outputs(
        self, features: npt.NDArray[np.float32], concepts: npt.NDArray[np.float32]
    ) -> list[Output]:
        """The model's outputs for photos, from the backbone's, `[N, D]` and `[N, K]`."""
        logits = self.head.logits(features, concepts).astype(np.float32)
        detector = self.model.ood
        scores = None if detector is None else detector.scores(features, concepts)
        return [
            Output(row, None if scores is None else float(scores[index]))
            for index, row in enumerate(logits)
        ]

    def to_onnx(self, backbone: Backbone, examples: str | None) -> bytes:
        """The content of the model file.

        Args:
            backbone: that the layer was learnt on.
            examples: the photos that it has learnt from, as text, to learn more later; None: none.
        """
        metadata = {KEY: to_json(self.model), **backbone.knowledge.to_metadata()}
        if examples is not None:
            metadata[EXAMPLES_KEY] = examples
        return with_metadata(backbone.with_head(self.head), metadata)

    def classifier(self, content: bytes) -> Classifier:
        """A classifier of the model file, whose network starts on its first use."""
        return Classifier(DeferredBackend(content), self.model)


def learn_layer(
    examples: Examples, classes: tuple[str, ...], backbone: Backbone, *, bank: bool = True
) -> TaughtLayer:
    """Learn a layer from features of photos.

    Args:
        examples: of each class at least one.
        classes: their names.
        backbone: that has computed the features.
        bank: keep features of photos for the ood detector.

    Raises:
        CatordogError: the only class has fewer than three different photos.
    """
    features = examples.records["features"].astype(np.float32)
    concepts = backbone.concepts(features)
    groups = copy_groups(Hashes(examples.records["hash"], examples.records["mirrored"]))
    detector = backbone.knowledge.fit_ood(features, concepts, groups, examples.labels, bank=bank)
    if len(classes) == 1 and detector is None:
        raise CatordogError(
            f"{classes[0]!r} is the only class, and has fewer than 3 different photos: add photos, "
            "or a second class"
        )
    learned = None
    if len(classes) > 1:
        learned = learn(features, concepts, examples.labels, len(classes), groups)
    model = ModelInfo(
        classes=classes,
        network=NETWORK,
        preprocess=backbone.preprocess,
        split_fractions=SplitFractions(0, 0),  # it has learnt from all photos
        temperature=learned.temperature if learned else 1.0,
        nonconformity=thinned(learned.nonconformity) if learned else (),
        ood=detector,
    )
    head = learned.head if learned else typical_direction(features, concepts)
    return TaughtLayer(model, head, learned)
