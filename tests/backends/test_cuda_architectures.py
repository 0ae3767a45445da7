"""Which devices compiled code runs on, told without asking them."""

import pytest

from geco_ext.backends.cuda_architectures import refuses_capability


@pytest.mark.parametrize(
    ("architectures", "capability", "driver", "reason"),
    [
        ("80-real,90", (8, 0), (13, 0), None),
        ("80-real,90", (8, 9), (13, 0), None),  # machine code of an earlier minor version
        ("80-real,90", (9, 0), (12, 9), None),  # needs no translation, whatever the driver
        ("80-real,90", (7, 5), (13, 0), "compute capability is 7.5"),
        ("80-real,90", (12, 0), (13, 0), None),  # from the PTX for 9.0
        ("80-real,90", (12, 0), (13, 2), None),
        ("80-real,90", (12, 0), (12, 9), "a driver of CUDA 13.0.88 or newer is needed, found 12.9"),
        ("90", (8, 9), (13, 0), "compute capability is 8.9"),
        ("80-virtual", (9, 0), (13, 0), None),
        ("80-virtual", (9, 0), (12, 8), "a driver of CUDA 13.0.88"),
        ("90-real", (10, 0), (13, 0), "compute capability is 10.0"),
        ("90a", (9, 0), (13, 0), None),
        ("90a", (10, 0), (13, 0), "compute capability is 10.0"),
        ("100f", (10, 3), (13, 0), None),
        ("100f", (12, 0), (13, 0), "compute capability is 12.0"),
        ("native", (7, 5), (13, 0), None),  # the text does not tell: the device is asked where tensors are
        ("all-major", (12, 0), (13, 0), None),
    ],
)
def test_what_runs_where(architectures, capability, driver, reason):
    refused = refuses_capability(architectures, "13.0.88", capability, driver)
    assert refused is None if reason is None else reason in refused
