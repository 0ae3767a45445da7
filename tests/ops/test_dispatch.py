"""Which backend serves a call, and what is said where it is not the best one."""

import importlib.machinery
import sys
import sysconfig
import types
import warnings

import pytest
import torch

import geco_ext
from geco_ext import GECOLoss, PatchNCC, ReconstructionError, backends
from geco_ext import functional as gf
from geco_ext.backends import cuda, native, reference
from geco_ext.backends import triton as triton_backend
from geco_ext.cli import main
from geco_ext.ops import dispatch
from geco_ext.ops.dispatch import best_for

has_cpu = pytest.mark.skipif("cpu" not in geco_ext.available_backends(), reason="the C++ kernels are not built")


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.delenv("GECO_EXT_BACKEND", raising=False)
    monkeypatch.setattr(dispatch, "_warned", set())
    monkeypatch.setattr(dispatch, "_PREFERENCE", dict(dispatch._PREFERENCE))
    yield
    best_for.cache_clear()  # what a test has made of this machine is not so for the next


@pytest.fixture
def better(monkeypatch):
    """Two backends before the reference, as on a GPU: why each cannot serve a call is the tests' to say."""
    reasons = {"cuda": "patches of 99x99 pixels are too large", "triton": "no\n  compiler"}
    fakes = {
        name: types.SimpleNamespace(description="fast", refuses=lambda call, name=name: reasons[name])
        for name in reasons
    }
    load = backends.load
    monkeypatch.setitem(dispatch._PREFERENCE, "cpu", ("cuda", "triton", "reference"))
    monkeypatch.setattr(backends.load("cpu"), "image_step", lambda *criterion: None)
    monkeypatch.setattr(dispatch, "unavailable", lambda name: None)
    monkeypatch.setattr(backends, "load", lambda name: fakes.get(name) or load(name))
    monkeypatch.setattr(dispatch, "best_for", lambda device: reference.BACKEND)
    return reasons


def step(criterion=None):
    x_hat, x = torch.rand(2, 1, 8, 8, requires_grad=True), torch.rand(2, 1, 8, 8)
    criterion = GECOLoss([ReconstructionError(0.1)]) if criterion is None else criterion
    criterion(x_hat, x, torch.zeros(2)).backward()


def said(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    assert all(warning.category is RuntimeWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def test_a_backend_that_is_passed_over_is_named_once_for_each_reason(better):
    criterion = GECOLoss([ReconstructionError(0.1)])
    (message,) = said(lambda: [step(criterion) for _ in range(3)])
    assert message == (
        "a GECO loss runs on backend 'reference', backend 'cuda' cannot serve it: patches of 99x99 pixels are too "
        "large; backend 'triton' cannot serve it: no compiler"
    )
    assert said(step) == []
    better["triton"] = "no device"
    assert len(said(step)) == 1
    assert int(criterion.steps) == 3


def test_the_second_best_serves_where_it_can(better, monkeypatch):
    better["triton"] = None
    monkeypatch.setattr(backends.load("triton"), "lagrangian", reference.BACKEND.lagrangian, raising=False)
    (message,) = said(lambda: [step(), step()])
    assert "runs on backend 'triton'" in message
    assert message.count("cannot serve") == 1


def test_a_warning_that_is_an_error_leaves_the_state_as_it_is(better):
    criterion = GECOLoss([ReconstructionError(0.1)])
    before = criterion._block.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(RuntimeWarning, match="'cuda' cannot serve it"):
                step(criterion)
    assert torch.equal(criterion._block.nan_to_num(), before.nan_to_num())


def test_the_ordinary_order_is_silent():
    expected = 0 if "cpu" in geco_ext.available_backends() else 1
    assert len(said(lambda: step(GECOLoss([ReconstructionError(0.1), PatchNCC(0.9, 3)])))) == expected
    with geco_ext.use_backend("reference"):
        assert said(step) == []


def test_a_missing_extension_is_said_on_the_cpu(monkeypatch):
    monkeypatch.setattr(dispatch, "unavailable", lambda name: "it was not compiled" if name == "cpu" else None)
    monkeypatch.setattr(backends.load("cpu"), "image_step", lambda *criterion: None)
    (message,) = said(lambda: [step(), step()])
    assert message == "a GECO loss runs on backend 'reference', backend 'cpu' cannot serve it: it was not compiled"


def test_python_that_runs_beside_the_sources_is_told_so(tmp_path, monkeypatch):
    """It imports them instead of what is installed, which has the kernels and the models."""
    package = tmp_path / "geco_ext"
    assert native.missing_extension(package).startswith("there is no compiled extension for this Python")
    (tmp_path / "setup.py").touch()
    assert native.missing_extension(package).startswith("there is no compiled extension for this Python")
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "contract.h").touch()
    message = native.missing_extension(package)
    assert str(package) in message
    assert "run it elsewhere" in message
    monkeypatch.setattr(geco_ext, "find_spec", lambda name: None)
    with pytest.raises(AttributeError, match="'models'; .* is its source folder: run Python elsewhere"):
        geco_ext.__getattr__("models")
    with pytest.raises(AttributeError, match="no attribute 'model'$"):
        geco_ext.__getattr__("model")


def test_compiled_steps_have_no_graph_break_from_it(better):
    torch._dynamo.reset()
    criterion = GECOLoss([ReconstructionError(0.1)])
    fast = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    messages = said(lambda: [step(fast) for _ in range(3)])
    assert len([message for message in messages if "GECO loss" in message]) == 1
    assert int(criterion.steps) == 3


@has_cpu
def test_a_patch_beyond_the_cuda_kernels(monkeypatch):
    """Too large for the shared memory of a block, as the kernels say: the next backend serves."""
    problem = "patches of 150x150 pixels need more shared memory than the 101376 bytes of a block"
    kernels = types.SimpleNamespace(refuses=lambda *call: problem)
    monkeypatch.setattr(cuda.BACKEND, "refuses_device", lambda device: None)
    monkeypatch.setattr(cuda.BACKEND, "kernels", kernels, raising=False)
    monkeypatch.setattr(cuda.BACKEND, "place", lambda tensor: (0, 0))
    monkeypatch.setattr(dispatch, "unavailable", lambda name: None)
    monkeypatch.setattr(backends.load("cpu"), "image_step", lambda *criterion: None)
    monkeypatch.setitem(dispatch._PREFERENCE, "cpu", ("cuda", "reference"))
    image = torch.rand(1, 1, 200, 200)
    (message,) = said(lambda: gf.patch_ncc(image, image, kappa=0.5, patch_size=150, stride=50))
    assert f"'cuda' cannot serve it: {problem}" in message


FLOAT8 = getattr(torch, "float8_e4m3fn", None)


@has_cpu
@pytest.mark.skipif(FLOAT8 is None, reason="a PyTorch without float8")
def test_a_type_that_kernels_do_not_know():
    image = torch.rand(2, 1, 4, 4).to(FLOAT8)
    (message,) = said(lambda: gf.reconstruction_error(image, image, kappa=0.1))
    assert "'cpu' cannot serve it: it takes float16, bfloat16, float32 and float64, got torch.float8_e4m3fn" in message
    with geco_ext.use_backend("cpu"), pytest.raises(RuntimeError, match=r"'cpu' cannot serve this call: .*float8"):
        gf.reconstruction_error(image, image, kappa=0.1)


# Asking for a backend that cannot run names the reason.


@pytest.fixture
def extension(monkeypatch):
    """What the cuda backend believes of the machine."""

    def believe(architectures="80-real,90", capabilities=((7, 5),), problem=None, devices=1, error=None):
        module = types.SimpleNamespace(
            cuda_architectures=architectures,
            cuda_version="13.0",
            cuda=types.SimpleNamespace(
                driver_version=lambda: 13000,
                capability=lambda index: capabilities[index],
                device_problem=lambda index: asked.append(index) or problem,
            ),
        )
        asked = []
        monkeypatch.setattr(cuda, "extension", lambda: (None if error else module, error))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        monkeypatch.setattr(torch.version, "hip", None)
        forget()
        return asked

    def forget():
        for cached in (dispatch.unavailable, cuda._not_compiled_for, cuda._device_not_served):
            cached.cache_clear()

    yield believe
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"error": "geco_ext._C cannot be imported"}, "geco_ext._C cannot be imported"),
        ({"architectures": None}, "the extension was compiled without CUDA"),
        ({"devices": 0}, "PyTorch finds no CUDA device"),
        ({}, r"CUDA 13\.0 for architectures 80-real,90, do not run on cuda:0 \(its compute capability is 7\.5\)"),
    ],
    ids=["no extension", "no compiler", "no device", "architecture"],
)
def test_asking_for_cuda_where_it_cannot_run(extension, machine, reason):
    extension(**machine)
    with (
        pytest.raises(RuntimeError, match=f"backend 'cuda' cannot run here: .*{reason}"),
        geco_ext.use_backend("cuda"),
    ):
        pass


def test_a_device_is_asked_only_where_tensors_are(extension):
    """A question to it makes a context there, of some hundred megabytes, in every process."""
    asked = extension(devices=3, capabilities=((7, 5), (9, 0), (12, 0)))
    assert dispatch.unavailable("cuda") is None
    assert asked == []
    assert cuda.BACKEND.refuses_device(torch.device("cuda", 1)) is None
    assert cuda.BACKEND.refuses_device(torch.device("cuda", 1)) is None
    assert asked == [1]
    assert "compute capability is 7.5" in cuda.BACKEND.refuses_device(torch.device("cuda", 0))
    assert asked == [1]


def test_a_busy_device_is_passed_over(extension):
    extension(capabilities=((9, 0),), problem="cudaSetDevice(0): all CUDA-capable devices are busy or unavailable")
    assert dispatch.unavailable("cuda") is None
    assert "do not run on cuda:0 (cudaSetDevice(0): all CUDA-cap" in cuda.BACKEND.refuses_device(
        torch.device("cuda", 0)
    )


def test_a_driver_that_is_too_old(extension):
    extension()

    def fails(index):
        raise RuntimeError("cudaDeviceGetAttribute: CUDA driver version is insufficient for CUDA runtime version")

    cuda.extension()[0].cuda.capability = fails
    assert "CUDA driver version is insufficient" in dispatch.unavailable("cuda")


@pytest.fixture
def gpu_for_triton(monkeypatch):
    """As if PyTorch had found a GPU, and a Triton that needs a C compiler, gcc, and Python.h had been installed."""
    pretend_triton(monkeypatch, ".".join(map(str, triton_backend.OLDEST)) + ".0")
    monkeypatch.setattr(triton_backend, "is_interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("CC", "CPATH", "C_INCLUDE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(triton_backend.shutil, "which", lambda name: name if name == "gcc" else None)
    monkeypatch.setattr(triton_backend.Path, "is_file", lambda path: path.name == "Python.h")


def test_triton_with_all_that_its_launchers_need(gpu_for_triton):
    assert triton_backend.BACKEND.unavailable() is None


@pytest.mark.parametrize("named", [None, "missing", "gcc -m64"])
def test_triton_where_there_is_no_c_compiler(monkeypatch, gpu_for_triton, named):
    """It would fail at its first launch, too late for another backend to serve the call."""
    if named is None:
        monkeypatch.setattr(triton_backend.shutil, "which", lambda name: None)
    else:
        monkeypatch.setenv("CC", named)  # Triton then looks for no other
    assert "no C compiler" in triton_backend.BACKEND.unavailable()


def test_triton_where_there_is_no_python_header(monkeypatch, gpu_for_triton):
    monkeypatch.setattr(triton_backend.Path, "is_file", lambda path: str(path) == "/elsewhere/Python.h")
    folder = sysconfig.get_paths()["include"]
    assert f"no Python.h in {folder}" in triton_backend.BACKEND.unavailable()
    monkeypatch.setenv("CPATH", "/nowhere:/elsewhere")  # which compilers search too
    assert triton_backend.BACKEND.unavailable() is None


@pytest.mark.parametrize(
    ("version", "numpy_version", "works"),
    [("3.6.0", "2.4.6", False), ("3.6.0", "2.3.5", True), ("3.7.0", "2.4.6", True), ("3.10.0+git1", "3.0.0rc1", True)],
)
def test_the_interpreter_of_triton_and_numpy(monkeypatch, version, numpy_version, works):
    pytest.importorskip("triton")
    monkeypatch.setattr(triton_backend, "is_interpreted", lambda: True)
    monkeypatch.setattr("triton.__version__", version)
    monkeypatch.setattr(triton_backend.importlib.metadata, "version", lambda name: {"numpy": numpy_version}[name])
    reason = triton_backend.BACKEND.unavailable()
    assert reason is None if works else f"found {version} and {numpy_version}" in reason


@pytest.mark.parametrize(("version", "serves"), [("3.5.1", False), ("3.6.0", True), ("3.10.0", True), ("4.0.0", True)])
def test_releases_of_triton(monkeypatch, gpu_for_triton, version, serves):
    pretend_triton(monkeypatch, version)
    reason = triton_backend.BACKEND.unavailable()
    assert reason is None if serves else reason == f"it needs Triton 3.6, found {version}"


def pretend_triton(monkeypatch, version):
    """Whether or not it is installed, and which release: these tests are about what is said of it."""
    module = types.ModuleType("triton")
    module.__version__ = version
    module.__spec__ = importlib.machinery.ModuleSpec("triton", None)
    monkeypatch.setitem(sys.modules, "triton", module)


def test_tensors_on_a_device_that_the_backend_does_not_serve():
    for name, reason in {"cpu": "computes on the CPU", "cuda": "computes on NVIDIA GPUs"}.items():
        assert reason in backends.load(name).refuses_device(torch.device("meta"))


@pytest.mark.parametrize("asked", ["reference", "cpu"])
def test_backward_runs_where_the_environment_asks(monkeypatch, asked):
    if asked not in geco_ext.available_backends():
        pytest.skip(f"{asked} cannot run here")
    monkeypatch.setenv("GECO_EXT_BACKEND", asked)
    assert dispatch.select_for_scaling(torch.device("cpu")) is backends.load(asked)


def test_info_says_what_serves_and_why_not_the_better_ones(better, capsys):
    assert main(["info"]) == 0
    (line,) = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  cpu, ")]
    assert line == (
        "cpu, errors and windows in float32 float64 float16 bfloat16: reference; "
        "not cuda: patches of 99x99 pixels are too large; not triton: no compiler"
    )


def test_info_tells_types_and_constraints_apart(better, monkeypatch, capsys):
    def no_windows_in_double(call):
        double = call.predictions[0].dtype == torch.float64
        return "no windows in float64" if double and "patch_ncc" in call.terms else None

    monkeypatch.setattr(backends.load("cuda"), "refuses", no_windows_in_double)
    better["triton"] = None
    monkeypatch.setenv("GECO_EXT_BACKEND", "reference")
    assert main(["info"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "cpu, windows in float64: triton; not cuda: no windows in float64" in lines
    assert "every call: reference, as GECO_EXT_BACKEND asks (without it the following)" in lines
