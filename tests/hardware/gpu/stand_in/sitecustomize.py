"""A stand-in for the driver, so that every line of the harness can be rehearsed where there is no GPU.

With this folder in PYTHONPATH each Python process believes in an H100: ``torch.cuda`` answers, tensors that are asked
for on "cuda" lie in host memory. Functions of ``torch.cuda`` that are Python alone stay as they are, so bad arguments
are found.
"""

import contextlib
import sys
import time
import types


def install():
    import torch

    torch.cuda.is_available = torch.cuda.is_initialized = lambda: True
    torch.cuda._lazy_init = lambda: None
    torch.cuda._is_in_bad_fork = lambda: False
    torch.version.cuda = "13.0"
    _driver(torch)
    _streams_and_graphs(torch)
    _compiler(torch)
    _in_host_memory(torch)


def _driver(torch):
    properties = types.SimpleNamespace(total_memory=80 << 30, multi_processor_count=132, name="NVIDIA H100 80GB HBM3")
    properties.major, properties.minor = 9, 9  # of no GPU there is: what is "built" for it serves no other
    strict = torch.cuda._utils._get_device_index
    answers = {
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: properties.name,
        "get_device_capability": lambda device=None: (9, 9),
        "get_device_properties": lambda device=None: properties,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (1 << 30, 80 << 30),
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "set_sync_debug_mode": lambda mode: None,
        "set_per_process_memory_fraction": lambda fraction, device=None: strict(0 if device is None else device),
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.cuda.profiler.start = torch.cuda.profiler.stop = lambda: None


def _streams_and_graphs(torch):
    class Stream:
        def __init__(self, device=None):
            pass

        def wait_stream(self, other):
            pass

    class Event:
        def __init__(self, enable_timing=False):
            self.at = 0.0

        def record(self):
            self.at = time.perf_counter()

        def elapsed_time(self, other):
            return max((other.at - self.at) * 1e3, 1e-3)

    torch.cuda.Stream, torch.cuda.Event = Stream, Event
    default = Stream()
    torch.cuda.current_stream = torch.cuda.default_stream = lambda device=None: default
    torch.cuda.stream = torch.cuda.device = lambda given: contextlib.nullcontext()


def _compiler(torch):
    torch.compile = lambda call=None, **_: call if call is not None else (lambda function: function)


def _in_host_memory(torch):
    from torch.overrides import TorchFunctionMode

    class HostMemory(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.device:
                return function(*args, **(kwargs or {}))
            kwargs = {name: _on_host(torch, value) for name, value in (kwargs or {}).items()}
            if function is torch.Tensor.cuda:
                return args[0]
            return function(*(_on_host(torch, value) for value in args), **kwargs)

    mode = HostMemory()
    mode.__enter__()
    to = torch.nn.Module.to
    torch.nn.Module.to = lambda self, *args, **kwargs: to(self, *(_on_host(torch, a) for a in args), **kwargs)
    torch.nn.Module.cuda = lambda self, device=None: self


def _on_host(torch, value):
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


if "pip" not in sys.orig_argv:
    install()
