import pytest
import torch
from torch import nn

from geco_ext.models import ConvolutionalClassifier, ResNet
from geco_ext.models.resnet import FirstLayers, ResidualBlock

SHAPES = [(1, 8, 8), (3, 9, 14), (2, 15, 17), (1, 16, 16), (3, 32, 48), (3, 64, 64)]
SMALL = {ConvolutionalClassifier: {"channels": 4, "hidden": 8}, ResNet: {"blocks": 2, "width": 4}}


@pytest.mark.parametrize("cls", SMALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_image_and_any_number_of_classes(cls, shape):
    network = cls(shape, classes=7, **SMALL[cls])
    x = torch.rand(3, *shape, requires_grad=True)
    logits = network(x)
    assert logits.shape == (3, 7)
    assert (network.image_shape, network.classes) == (shape, 7)
    logits.logsumexp(1).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    features = network.features()(x)
    assert features.dim() == 4
    assert len(features) == 3


@pytest.mark.parametrize("cls", SMALL)
@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((1, 7, 8), 10, r"image_shape: got \(1, 7, 8\), expected height and width of at least 8"),
        ((8, 8), 10, "image_shape: got .*three positive integers"),
        ((0, 8, 8), 10, "image_shape: got .*three positive integers"),
        ((1, 8, 8), 1, "classes: got 1, expected at least 2"),
    ],
)
def test_what_cannot_be_built_is_named(cls, shape, classes, message):
    with pytest.raises(ValueError, match=message):
        cls(shape, classes)


def test_options_out_of_range_are_named():
    for cls, name in [(ConvolutionalClassifier, "channels"), (ConvolutionalClassifier, "hidden"), (ResNet, "width")]:
        with pytest.raises(ValueError, match=f"{name}: got 0, expected at least 1"):
            cls((1, 8, 8), 10, **{name: 0})
    with pytest.raises(ValueError, match="blocks: got 1, expected at least 2"):
        ResNet((1, 8, 8), 10, blocks=1)


def test_the_logits_of_the_convolutional_classifier_are_smooth_in_every_pixel():
    network = ConvolutionalClassifier((1, 8, 8), 3, channels=2, hidden=4).double()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, x)
    assert torch.autograd.gradgradcheck(network, x, atol=1e-4)
    (slope,) = torch.autograd.grad(network(x)[0, 0], x)
    assert (slope != 0).all()


# The shapes of He et al. 2016, Table in Section 4.2: 6n + 2 weighted layers, 1 + 2n, 2n and 2n of 16, 32, 64 channels.
@pytest.mark.parametrize(("blocks", "parameters"), [(3, 0.27e6), (5, 0.46e6), (7, 0.66e6), (9, 0.85e6)])
def test_depth_widths_and_size_are_those_of_the_paper(blocks, parameters):
    network = ResNet((3, 32, 32), 10, blocks=blocks)
    weighted = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 6 * blocks + 2
    widths = [module.out_channels for module in weighted[:-1]]
    assert widths == [16] * (1 + 2 * blocks) + [32] * 2 * blocks + [64] * 2 * blocks
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(parameters, abs=0.01e6)


def test_a_shortcut_takes_every_second_pixel_and_adds_zero_channels():
    block = ResidualBlock(2, 6, stride=2).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 2, 7, 8)
    y = block(x)
    assert y.shape == (1, 6, 4, 4)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2])
    assert not y[:, 2:].any()


def weighted_layers_run(network, call):
    run = []
    hooks = [
        module.register_forward_hook(lambda module, *_: run.append(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    call()
    for hook in hooks:
        hook.remove()
    return run


@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_the_features_are_what_the_first_eight_weighted_layers_give(blocks):
    network = ResNet((1, 16, 16), 10, blocks=blocks, width=4).eval()
    x = torch.rand(2, 1, 16, 16)
    order = weighted_layers_run(network, lambda: network(x))
    assert weighted_layers_run(network, lambda: network.features()(x)) == order[:8]


def test_first_layers_agree_with_the_network_wherever_they_end():
    network = ResNet((1, 8, 8), 10, blocks=2, width=4).eval()
    x = torch.rand(2, 1, 8, 8)
    outputs = []
    for module in [network.stem, *(part for block in network.blocks for part in (block.first, block))]:
        module.register_forward_hook(lambda module, inputs, output: outputs.append(torch.relu(output)))
    network(x)
    expected = outputs[:]
    for layers, maps in enumerate(expected, start=1):
        torch.testing.assert_close(FirstLayers(network, layers)(x), maps, rtol=0, atol=0)
    with pytest.raises(ValueError, match="layers: got 14, expected 1 to 13"):
        FirstLayers(network, 14)
