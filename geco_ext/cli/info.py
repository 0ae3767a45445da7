"""`geco info`: what a run is, or what this installation can do."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from geco_ext.cli.failure import CommandFailure
from geco_ext.cli.output import AsJson, print_json

if TYPE_CHECKING:
    import torch

    from geco_ext.ops.dispatch import Choice


def info(
    run: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time, on Python 3.10 too
        typer.Argument(metavar="[RUN]", help="Run folder of geco train, or one of its checkpoints."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """What a run is: settings, steps, results. Without one, what this installation can do: versions, backends."""
    if run is not None:
        from geco_ext.cli.run_info import in_words, run_info

        try:
            found = run_info(run)
        except (ValueError, FileNotFoundError) as error:
            raise CommandFailure(str(error)) from error
        print_json(found) if as_json else print("\n".join(in_words(found)))
        return 0
    try:
        found = _installation()
    except ValueError as error:  # an environment variable of ours
        raise CommandFailure(str(error)) from error
    if as_json:
        print_json(found)
        return 0
    print(f"geco-ext {found['geco_ext']}, Python {found['python']}, {found['machine']}")
    print(f"torch {found['torch']}, {found['devices']}, {found['threads']} CPU threads")
    for package in PACKAGES:
        print(f"{package} {found[package]}")
    print("backends:")
    for name, reason in found["backends"].items():
        print(f"  {name:<10} {reason}")
    print("what serves a call:")
    for line in found["serving"]:
        print(f"  {line}")
    print("\n".join(found["extension"]))
    return 0


PACKAGES = ("lightning", "triton")


def _installation() -> dict[str, Any]:
    import torch

    from geco_ext.ops.dispatch import describe

    return {
        "geco_ext": _version("geco-ext"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "devices": _devices(),
        "threads": torch.get_num_threads(),
        **{package: _version(package) for package in PACKAGES},
        "backends": {
            name: f"{'available' if available else 'not available'}: {' '.join(reason.split())}"
            for name, available, reason in describe()
        },
        "serving": list(_serving()),
        "extension": _compiled(),
    }


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


# Images of 16 x 16 pixels compared in the two ways there are.
_WORK = {
    "errors": "squared_error; squared_error",
    "windows": "patch_ncc patch_size=8 eps=1e-05; local_statistics patch_size=8 eps=1e-05",
}


def _serving() -> Iterator[str]:
    """For each device: which backend serves which types and constraints, and why no better one does."""
    import torch

    from geco_ext import backends
    from geco_ext.backends.base import ENVIRONMENT_VARIABLE
    from geco_ext.ops.dispatch import unavailable

    asked = os.environ.get(ENVIRONMENT_VARIABLE)
    if asked and (asked not in backends.NAMES or unavailable(asked)):
        yield f"no call: {ENVIRONMENT_VARIABLE} asks for {asked}, which is not available (without it the following)"
    elif asked:
        yield f"every call: {asked}, as {ENVIRONMENT_VARIABLE} asks (without it the following)"
    for device in ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))):
        cases: dict[Choice, list[tuple[str, str]]] = {}
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            for work in _WORK:
                cases.setdefault(_choice(device, dtype, work), []).append((str(dtype).removeprefix("torch."), work))
        for choice, served in cases.items():
            reasons = "".join(f"; not {name}: {reason}" for name, reason in choice.passed_over)
            yield f"{device}, {_of(served)}: {choice.name}{reasons}"


def _of(served: list[tuple[str, str]]) -> str:
    """Types and constraints, in words."""
    dtypes = list(dict.fromkeys(dtype for dtype, _ in served))
    works = list(dict.fromkeys(work for _, work in served))
    if len(served) < len(dtypes) * len(works):
        return ", ".join(f"{work} in {dtype}" for dtype, work in served)
    return f"{' and '.join(works)} in {' '.join(dtypes)}"


def _choice(device: str, dtype: torch.dtype, work: str) -> Choice:
    import torch

    from geco_ext.contract import IMAGE, LossCall
    from geco_ext.ops.dispatch import choose
    from geco_ext.state import new_block

    image = torch.empty(1, 1, 16, 16, dtype=dtype, device=device)
    block = new_block(2, device=device)
    return choose(LossCall([image], [image], [None], None, block, _WORK[work], (IMAGE,), [None, None], 1, 256, None))


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
        else "none, it was built where there was no GPU or no CUDA compiler (GECO_EXT_CUDA=ON asks for them)"
    )
    here = ", ".join(module.cpu.capabilities())
    return [
        f"compiled C++ kernels: {module.cpu.capability()} (of {here} here), {threading}",
        f"compiled CUDA architectures: {cuda}",
    ]
