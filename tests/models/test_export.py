"""Programs of encoders and decoders that run without this package, and weights in safetensors."""

import io

import pytest
import safetensors.torch
import torch
from latent_models import batch_of, made

import geco_ext
from geco_ext import functional
from geco_ext.models import Decoder, Encoder
from geco_ext.training.models import MODELS

FORMS = ["flow", "conditional, per step, rectangular"]


@pytest.fixture(scope="module", params=FORMS)
def form(request):
    return request.param


@pytest.fixture(scope="module", params=[Encoder, Decoder])
def part(request):
    return request.param


def arguments_of(model, part, size):
    x, *context = batch_of(model, size)
    noise = torch.randn(size, model.latent_size)
    return (x, noise, *context) if part is Encoder else (noise, *context)


@pytest.fixture(scope="module")
def exported(form, part):
    """A part of a model, and its program with any batch size, saved and loaded."""
    model, _ = made(form)
    module, arguments = part(model), arguments_of(model, part, 2)
    batch = torch.export.Dim("batch")
    file = io.BytesIO()
    program = torch.export.export(module, arguments, dynamic_shapes=tuple({0: batch} for _ in arguments))
    torch.export.save(program, file)
    file.seek(0)
    return module, torch.export.load(file)


def test_a_loaded_program_computes_the_same(exported):
    module, program = exported
    arguments = arguments_of(module.model, type(module), 5)
    torch.testing.assert_close(program.module()(*arguments), module(*arguments))


def test_a_program_holds_operators_of_pytorch_alone(exported):
    called = {str(node.target) for node in exported[1].graph.nodes if node.op == "call_function"}
    assert called
    assert [name for name in called if not name.startswith(("aten.", "<built-in function", "<function sym_"))] == []


@pytest.mark.slow  # the exporter is
@pytest.mark.filterwarnings("ignore")  # its own
def test_onnx_computes_the_same(exported, tmp_path):
    import onnxruntime

    module, program = exported
    torch.onnx.export(program, optimize=False, verbose=False).save(tmp_path / "part.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "part.onnx", providers=["CPUExecutionProvider"])
    arguments = arguments_of(module.model, type(module), 5)
    names = [each.name for each in session.get_inputs()]
    (output,) = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, arguments, strict=True)})
    torch.testing.assert_close(torch.from_numpy(output), module(*arguments).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of checks, which a trace does not repeat
def test_a_saved_trace_computes_the_same(form, part):
    """It has no calls of Python in it, with which it could not be saved."""
    module = part(model := made(form)[0])
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, arguments_of(model, part, 2), check_trace=False), file)
    file.seek(0)
    arguments = arguments_of(model, part, 5)
    torch.testing.assert_close(torch.jit.load(file)(*arguments), module(*arguments))


def test_a_whole_model_is_exported_with_its_random_numbers(form):
    model, inputs = made(form)
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, tuple(inputs)), file)
    file.seek(0)
    program = torch.export.load(file).module()
    torch.manual_seed(3)
    expected = model(*inputs)
    torch.manual_seed(3)
    output = program(*inputs)
    assert type(output) is type(expected)
    torch.testing.assert_close(output, expected)


class Operators(torch.nn.Module):
    """All fused operators of models."""

    def forward(self, a, b, gates):
        z, kl = functional.gaussian_rsample_kl(a, b, b, a, noise=b)
        back, log_det = functional.affine_coupling(z, b, a, inverse=True)
        y, _ = functional.affine_coupling(back, b, a)
        return kl, log_det, back, y, *functional.lstm_gates(gates, a)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_exported_operators_compute_what_the_kernels_do(dtype, strict):
    arguments = [torch.randn(shape, dtype=dtype) for shape in ((3, 2, 4, 4), (3, 2, 4, 4), (3, 8, 4, 4))]
    program = torch.export.export(Operators(), tuple(arguments), strict=strict)
    assert "geco_ext" not in str(program.graph)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    outputs, expected = program.module()(*arguments), Operators()(*arguments)
    for output, each in zip(outputs, expected, strict=True):
        assert output.dtype == each.dtype
        torch.testing.assert_close(output, each, rtol=tolerance, atol=tolerance)


def test_noise_of_another_shape_is_refused(form):
    model, (x, *context) = made(form)
    with pytest.raises(ValueError, match=rf"noise: got shape \(3, 1\), expected \(3, {model.latent_size}\)"):
        Encoder(model)(x, torch.zeros(3, 1), *context)


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_a_model_pass_through_safetensors(name, tmp_path):
    model, other = (MODELS[name].model((1, 8, 8), hidden=4) for _ in range(2))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    for name, parameter in model.named_parameters():
        assert torch.equal(other.get_parameter(name), parameter)


def test_the_state_of_a_criterion_passes_through_safetensors(tmp_path):
    """Its rows share the memory of one block, which is no obstacle: they do not overlap."""

    def criterion():
        return geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1), geco_ext.PatchNCC(0.9, patch_size=4)])

    trained, loaded = criterion(), criterion()
    images = torch.rand(3, 2, 4, 1, 8, 8)
    for x_hat, x in images:
        trained(x_hat, x, torch.ones(4))
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "criterion.safetensors")
    loaded.load_state_dict(safetensors.torch.load_file(tmp_path / "criterion.safetensors"))
    assert int(loaded.steps) == 3
    for name, row in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], row)
    assert torch.equal(*(each(*images[0], torch.ones(4)) for each in (trained, loaded)))
