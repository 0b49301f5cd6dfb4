"""EfficientNet-Lite0 from a third-party package, as a class for `--model.network lite0.Lite0`.

Models that were trained with it store this class path: keep the name.
"""

from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import get_model_params


class Lite0(EfficientNet):
    """EfficientNet-Lite0 (Liu 2020).

    Args:
        num_classes: the number of logits.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(*get_model_params("efficientnet-lite0", {"num_classes": num_classes}))
