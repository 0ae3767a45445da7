"""Prints the architectures of the NVIDIA GPUs that a process sees here, as CMake writes them: ``80-real;90-real``.

The driver is asked, which every machine with such a GPU has: neither PyTorch nor nvidia-smi is needed.
"""

import ctypes

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def architectures():
    """In order, each once; none where there is no driver or no device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    found = {tuple(attribute(driver, device, which) for which in (MAJOR, MINOR)) for device in range(count.value)}
    return [f"{major}{minor}-real" for major, minor in sorted(found)]


def attribute(driver, device, which):
    """A number that the driver knows of a device."""
    value = ctypes.c_int()
    if driver.cuDeviceGetAttribute(ctypes.byref(value), which, device):
        raise SystemExit(f"the CUDA driver does not tell attribute {which} of device {device}")
    return value.value


if __name__ == "__main__":
    print(";".join(architectures()))
