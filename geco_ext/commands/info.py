"""`geco info`: what this installation can do."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def info() -> int:
    """Versions, backends and why one is missing, compiled CUDA architectures, threads."""
    import torch

    from geco_ext import backends

    print(f"geco-ext {_version('geco-ext')}, Python {platform.python_version()}, {platform.machine()}")
    print(f"torch {torch.__version__}, {_devices()}, {torch.get_num_threads()} CPU threads")
    for package in ("lightning", "triton"):
        print(f"{package} {_version(package)}")
    print("backends:")
    for name, available, reason in backends.describe():
        print(f"  {name:<10} {'available' if available else 'not available'}: {' '.join(reason.split())}")
    for line in _compiled():
        print(line)
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{'HIP' if torch.version.hip else 'CUDA'} {torch.version.hip or torch.version.cuda}, {', '.join(names)}"


def _compiled() -> list[str]:
    """What the compiled extension was built for."""
    from geco_ext.backends.native import extension

    module, missing = extension()
    if module is None:
        return [f"compiled extension: none, {missing}"]
    threading = "with OpenMP" if module.cpu.has_openmp() else "without OpenMP"
    cuda = (
        f"{module.cuda_architectures}, CUDA {module.cuda_version}"
        if module.cuda_architectures
        else "none, it was built without a CUDA compiler or with GECO_EXT_CUDA=OFF"
    )
    return [
        f"compiled C++ kernels: {module.cpu.capability()} here, {threading}",
        f"compiled CUDA architectures: {cuda}",
    ]
