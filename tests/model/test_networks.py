"""Building networks by name, by class path, and with pretrained weights."""

from __future__ import annotations

import onnx
import pytest
import torch
import torchvision
from torch import nn

from catordog.errors import CatordogError
from catordog.model.contract import RawLogitsError
from catordog.model.export import eight_bits
from catordog.model.networks import ResidualNet, build_network


class Mine(nn.Module):
    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, photos):
        return self.fc(self.conv(photos).mean(dim=(2, 3)))


class Bounded(Mine):
    def forward(self, photos):
        return super().forward(photos).sigmoid()


@pytest.mark.parametrize("size", [32, 64, 96, 75])
def test_ours_accepts_any_input_size_and_number_of_classes(size):
    assert ResidualNet(5)(torch.randn(2, 3, size, size)).shape == (2, 5)


def test_ours_is_compact():
    parameters = sum(p.numel() for p in ResidualNet(2).parameters())
    assert 1_000_000 < parameters < 1_500_000


def test_ours_can_be_made_wider_and_deeper():
    small = build_network("residual", 2, {"widths": (8, 16), "blocks": (1, 2)})
    assert small(torch.randn(1, 3, 32, 32)).shape == (1, 2)
    with pytest.raises(CatordogError, match="as many widths as blocks"):
        build_network("residual", 2, {"widths": (8, 16), "blocks": (1,)})


def test_ours_has_relu_or_gelu_before_its_last_layer():
    photos = torch.randn(2, 3, 32, 32)
    logits = {}
    for activation in ("relu", "gelu"):
        torch.manual_seed(0)
        network = build_network("residual", 2, {"activation": activation})
        logits[activation] = network(photos)
        features = network.features(photos)
        assert bool((features >= 0).all()) == (activation == "relu")
    assert not torch.equal(logits["relu"], logits["gelu"])
    with pytest.raises(CatordogError, match="unknown activation 'softmax': give relu or gelu"):
        build_network("residual", 2, {"activation": "softmax"})


def test_ours_pools_before_a_stage_where_asked_to_and_its_logits_ignore_no_pixel():
    pooled = build_network("residual", 2, {"downsampling": "pool"}).eval()
    strided = build_network("residual", 2).eval()
    assert sum(p.numel() for p in pooled.parameters()) == sum(
        p.numel() for p in strided.parameters()
    )
    photos = torch.randn(1, 3, 75, 75, requires_grad=True)
    pooled(photos)[0, 0].backward()
    assert bool((photos.grad.abs().sum(1) > 0).all())
    with pytest.raises(CatordogError, match="unknown downsampling 'max': give stride or pool"):
        build_network("residual", 2, {"downsampling": "max"})


def test_a_torchvision_network_has_as_many_logits_as_classes():
    assert build_network("resnet18", 3).fc.out_features == 3
    assert build_network("mobilenet_v3_small", 4)(torch.randn(2, 3, 64, 64)).shape == (2, 4)


def test_a_class_path_names_a_network():
    network = build_network(f"{__name__}.Mine", 3, {"width": 6})
    assert network.fc.in_features == 6


def test_a_class_path_with_a_final_activation_is_refused():
    with pytest.raises(RawLogitsError, match="sigmoid"):
        build_network(f"{__name__}.Bounded", 2)


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("resnet19", {}, "unknown network 'resnet19'"),
        ("nowhere.Net", {}, "can't import the network 'nowhere.Net'"),
        ("torch.nn.Nothing", {}, "can't import"),
        ("pathlib.Path", {}, "not a class of network"),
        ("residual", {"depth": 3}, "can't build the network 'residual'"),
        ("squeezenet1_1", {}, "ReLU"),
    ],
)
def test_a_network_that_cannot_be_built_is_an_error_in_one_line(name, args, words):
    with pytest.raises(CatordogError, match=words) as caught:
        build_network(name, 2, args)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_from_a_file_fill_all_except_a_last_layer_of_another_width(tmp_path):
    torch.manual_seed(1)
    thousand = torchvision.models.resnet18(weights=None)
    torch.save(thousand.state_dict(), tmp_path / "w.pth")
    network = build_network("resnet18", 2, weights=str(tmp_path / "w.pth"))
    assert torch.equal(network.conv1.weight, thousand.conv1.weight)
    assert torch.equal(network.layer4[1].bn2.bias, thousand.layer4[1].bn2.bias)
    assert network.fc.weight.shape == (2, 512)


def test_a_checkpoint_of_ours_can_be_the_pretrained_weights(tmp_path):
    source = ResidualNet(2)
    torch.save({"state_dict": {f"network.{k}": v for k, v in source.state_dict().items()}},
               tmp_path / "w.ckpt")  # fmt: skip
    network = build_network("residual", 2, weights=str(tmp_path / "w.ckpt"))
    assert torch.equal(network.head.weight, source.head.weight)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CatordogError, match="not for this network"):
        build_network("residual", 2, weights=str(tmp_path / "w.pth"))


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a weights file ran')",))


def test_no_code_in_a_file_of_weights_is_executed(tmp_path):
    torch.save({"conv.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CatordogError, match="not a file of weights"):
        build_network("residual", 2, weights=str(tmp_path / "evil.pth"))


@pytest.mark.parametrize(
    ("network", "weights", "words"),
    [
        ("resnet18", "IMAGENET1K_V9", "it has IMAGENET1K_V1"),
        ("residual", "IMAGENET1K_V1", "no such file"),
        ("resnet18", "missing.pth", "no such file"),
    ],
)
def test_missing_weights_are_an_error(network, weights, words):
    with pytest.raises(CatordogError, match=words):
        build_network(network, 2, weights=weights)


def test_each_network_of_an_ensemble_keeps_its_first_and_last_layer_in_32_bits():
    def node(kind: str, inputs: str, output: str) -> onnx.NodeProto:
        return onnx.helper.make_node(kind, inputs.split(), [output])

    nodes = [node("Concat", "photos mirrored", "both")]
    for name in "ab":
        nodes += [
            node("Conv", f"both stem_{name}", f"1{name}"),
            node("Conv", f"1{name} deep_{name}", f"2{name}"),
            node("Gemm", f"2{name} hidden_{name}", f"3{name}"),
            node("Gemm", f"3{name} head_{name}", f"4{name}"),
        ]
    nodes += [node("Concat", "4a 4b", "all"), node("ReduceMean", "all", "logits")]
    kept = [*eight_bits.first_convolutions(nodes), *eight_bits.last_linear(nodes)]
    assert [each.input[1] for each in kept] == ["stem_a", "stem_b", "head_a", "head_b"]
    after = eight_bits.following(nodes, eight_bits.last_linear(nodes))
    assert [each.op_type for each in after] == ["Concat", "ReduceMean"]
