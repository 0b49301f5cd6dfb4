"""The logit contract: raw logits are accepted, and any final activation is refused."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import catordog
from catordog.model.contract import RawLogitsError, check_raw_logits, last_layer
from catordog.model.networks import ResidualNet


class Net(nn.Module):
    """A small network whose forward() ends in whatever it is given."""

    def __init__(self, ending=lambda x: x, *, classes: int = 2, norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.head = nn.Linear(8, classes)
        self.norm = nn.BatchNorm1d(classes) if norm else nn.Identity()
        self.ending = ending

    def forward(self, photos):
        pooled = F.relu(self.stem(photos)).mean(dim=(2, 3))
        return self.ending(self.norm(self.head(pooled)))


class Functional(nn.Module):
    """A network without layers: forward() computes the affine function itself."""

    def __init__(self, ending) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 2))
        self.ending = ending

    def forward(self, photos):
        return self.ending(F.adaptive_avg_pool2d(photos, 2).flatten(1) @ self.weight)


REFUSED = {
    "ReLU": torch.relu,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(dim=1),
    "log-softmax": lambda x: F.log_softmax(x, dim=1),
    "tanh": torch.tanh,
    "clamp": lambda x: x.clamp(-5, 5),
}
ALSO_REFUSED = {
    "wide clamp": lambda x: x.clamp(-1e4, 1e4),
    "one-sided clamp": lambda x: x.clamp(max=30),
    "hardtanh": lambda x: F.hardtanh(x, -10, 10),
    "ReLU6": F.relu6,
    "leaky ReLU": lambda x: F.leaky_relu(x, 0.2),
    "GELU": F.gelu,
    "SiLU": F.silu,
    "softplus": F.softplus,
    "softmin": lambda x: F.softmin(x, dim=1),
    "abs": torch.abs,
    "square": torch.square,
    "softsign": F.softsign,
    "soft cap": lambda x: 30 * torch.tanh(x / 30),
    "normalised": lambda x: F.normalize(x, dim=1),
    "temperature after softmax": lambda x: 10 * x.softmax(dim=1),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("network", [Net, Functional])
def test_a_final_activation_in_forward_is_refused_by_name(kind, network):
    with pytest.raises(RawLogitsError, match=kind) as caught:
        check_raw_logits(network(REFUSED[kind]))
    message = str(caught.value)
    assert "Why it hurts" in message
    assert "The fix" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ALSO_REFUSED)
def test_any_function_that_bends_or_bounds_the_logits_is_refused(kind):
    with pytest.raises(RawLogitsError):
        check_raw_logits(Net(ALSO_REFUSED[kind]))


@pytest.mark.parametrize("kind", ["softplus", "GELU", "SiLU", "leaky ReLU", "square"])
def test_other_activations_are_called_by_their_names(kind):
    activations = {**ALSO_REFUSED, "leaky ReLU": F.leaky_relu}
    for classes in (1, 2, 5):
        with pytest.raises(RawLogitsError, match=f"a {kind} hidden in forward") as caught:
            check_raw_logits(Net(activations[kind], classes=classes))
        assert " ReLU hidden" not in str(caught.value).replace("leaky ReLU", "")


@pytest.mark.parametrize("ending", [lambda x: F.softplus(x, beta=5), lambda x: 10 * x.softmax(1)])
def test_what_has_no_zeros_is_not_called_relu(ending):
    with pytest.raises(RawLogitsError, match="hidden in forward") as caught:
        check_raw_logits(Net(ending))
    assert "ReLU" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
class TestPrecision:
    @pytest.mark.parametrize("kind", ["nothing", "a scale", "centred", "dropout", "other order"])
    def test_raw_logits_of_any_precision_are_accepted(self, dtype, kind):
        for seed in range(3):
            torch.manual_seed(seed)
            network = Net(ACCEPTED[kind]).to(dtype)
            assert check_raw_logits(network) == "head (Linear)"
            assert network.head.weight.dtype == dtype

    @pytest.mark.parametrize("kind", REFUSED)
    def test_a_final_activation_is_refused_by_name_at_any_precision(self, dtype, kind):
        with pytest.raises(RawLogitsError, match=f"{kind} hidden in forward"):
            check_raw_logits(Net(REFUSED[kind]).to(dtype))

    def test_our_network_is_accepted(self, dtype):
        check_raw_logits(ResidualNet(2).to(dtype), size=32)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda x: x, "a function is no network: give a torch.nn.Module"),
        (nn.Linear, "Linear is a class: give a network"),
        (None, "a NoneType is no network"),
        (nn.Linear(2, 2).state_dict(), "an OrderedDict is no network"),
        (torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), "compiled by TorchScript"),
    ],
)
def test_what_is_no_network_is_refused_in_words(value, words):
    with pytest.raises(RawLogitsError, match=words):
        check_raw_logits(value)


@pytest.mark.parametrize(
    "module",
    [nn.ReLU(), nn.Sigmoid(), nn.Softmax(dim=1), nn.LogSoftmax(dim=1), nn.Tanh(), nn.Hardtanh()],
)
def test_a_final_activation_that_is_a_module_is_named_with_the_layer_before_it(module):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5), module)
    with pytest.raises(RawLogitsError) as caught:
        check_raw_logits(network, size=32)
    assert type(module).__name__ in str(caught.value)
    assert "1 (Linear)" in str(caught.value)


ACCEPTED = {
    "nothing": lambda x: x,
    "a scale": lambda x: 3.5 * x,
    "centred": lambda x: x - x.mean(dim=1, keepdim=True),
    "dropout": nn.Dropout(0.5),
    "another shape": lambda x: x.unsqueeze(2).flatten(1),
    "other order": lambda x: x.flip(1),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_raw_logits_are_accepted(kind):
    assert check_raw_logits(Net(ACCEPTED[kind])) == "head (Linear)"
    check_raw_logits(Functional(ACCEPTED[kind]))


def test_our_network_is_accepted_with_any_number_of_classes():
    for classes in (2, 3, 37):
        assert check_raw_logits(ResidualNet(classes), num_classes=classes) == "head (Linear)"


def test_batch_norm_at_the_end_is_accepted_as_affine():
    check_raw_logits(Net(norm=True))


def test_a_convolution_before_pooling_can_be_the_last_layer():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert check_raw_logits(network) == "0 (Conv2d)"


def test_activations_before_the_last_layer_are_accepted():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.Softmax(dim=1), nn.Linear(8, 2))
    assert check_raw_logits(network) == "3 (Linear)"


def test_a_branch_that_the_output_does_not_use_is_ignored():
    class TwoHeads(Net):
        def forward(self, photos):
            logits = super().forward(photos)
            self.unused = torch.sigmoid(self.head(torch.zeros(1, 8)))
            return logits

    check_raw_logits(TwoHeads())
    with pytest.raises(RawLogitsError):
        check_raw_logits(TwoHeads(torch.tanh))


def test_the_check_changes_neither_the_network_nor_the_random_state():
    network = ResidualNet(2).train()
    network.head.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    check_raw_logits(network)
    assert torch.rand(1) == expected
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_zero_weights_hide_no_activation():
    network = Net(torch.relu)
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    with pytest.raises(RawLogitsError, match="ReLU"):
        check_raw_logits(network)


QUICK = ["resnet18", "mobilenet_v3_small", "swin_t"]
SLOW = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "regnet_y_400mf", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "swin_v2_t", "vgg11_bn", "vit_b_16", "wide_resnet50_2",
]  # fmt: skip


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_torchvisions_classifiers_are_accepted(name):
    options = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=3, **options)
    check_raw_logits(network, num_classes=3)


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", pytest.param("squeezenet1_0", marks=pytest.mark.slow)]
)
def test_squeezenet_which_ends_in_relu_is_refused(name):
    network = torchvision.models.get_model(name, weights=None, num_classes=2)
    with pytest.raises(RawLogitsError, match=r"classifier\.2 \(ReLU\)"):
        check_raw_logits(network)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Conv2d(3, 2, 3), "pool and flatten"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "no affine layer"),
        (nn.Linear(7, 2), "can't take photos"),
        (Net(lambda x: (x, x)), "a tuple and not a tensor"),
        (Net(lambda x: {"logits": x}), "a dict and not a tensor"),
        (Net(lambda x: x.argmax(dim=1, keepdim=True)), "int64 numbers and not logits"),
    ],
)
def test_a_network_without_logits_is_refused(network, words):
    with pytest.raises(RawLogitsError, match=words):
        check_raw_logits(network)


def test_the_number_of_logits_must_be_that_of_the_classes():
    with pytest.raises(RawLogitsError, match="2 logits for 3 classes"):
        check_raw_logits(Net(), num_classes=3)


def test_the_check_is_public():
    assert catordog.check_raw_logits is check_raw_logits
    assert issubclass(catordog.RawLogitsError, catordog.CatordogError)


def test_the_last_layer_is_found_as_a_module():
    network = Net()
    assert last_layer(network, 32) is network.head
    squeezed = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert last_layer(squeezed, 32) is squeezed[0]


def test_the_last_layer_is_the_network_itself_where_no_module_computes_the_logits():
    network = Functional(lambda x: x)
    assert last_layer(network, 32) is network


def test_the_last_layer_is_found_at_the_input_size_of_the_network():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 40, 2))
    assert last_layer(network, 40) is network[1]
    with pytest.raises(RawLogitsError, match="of 41 × 41 pixels"):
        last_layer(network, 41)


def test_errors_name_the_network_and_its_own_error():
    with pytest.raises(RawLogitsError, match=r"^Linear can't take photos .* 64 or 224 or .*: mat1"):
        check_raw_logits(nn.Linear(7, 2))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("softmax", "none could pass 73 %"),
        ("log-softmax", "the sizes of the raw logits are lost"),
        ("ReLU", "throws away every negative logit"),
        ("sigmoid", "0.73"),
        ("tanh", "0.88"),
        ("clamp", "no gradient flows"),
    ],
)
def test_the_error_explains_where_the_activation_is_and_why_it_hurts(kind, why):
    with pytest.raises(RawLogitsError) as caught:
        check_raw_logits(Net(REFUSED[kind], classes=3))
    message = str(caught.value)
    assert why in message
    assert (
        f"a {kind} hidden in forward() comes after the last affine layer, head (Linear)" in message
    )
    assert re.search(r"(-1|1000|-1e\+06) times that layer's output does not give \1 times", message)


def test_linear_layers_are_not_blamed():
    network = nn.Sequential(
        *(nn.Flatten(), nn.Linear(3072, 2), nn.Tanh(), nn.Dropout(), nn.Identity(), nn.Flatten())
    )
    with pytest.raises(RawLogitsError, match=r"2 \(Tanh\) comes after the last affine layer"):
        check_raw_logits(network)


def test_one_logit_is_accepted():
    assert check_raw_logits(Net(classes=1)) == "head (Linear)"
    with pytest.raises(RawLogitsError, match="sigmoid"):
        check_raw_logits(Net(torch.sigmoid, classes=1))
