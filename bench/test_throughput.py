"""pytest-benchmark's view of the scenarios: ``make bench``, or ``pytest bench`` with any of its options."""

import pytest
from scenarios import SCENARIOS

NAMES = ("geco_ext", "eager", "compile", "operator", "floor")


def label(scenario):
    return f"{scenario.name} {'x'.join(map(str, scenario.shape))}"


@pytest.mark.parametrize("candidate", NAMES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=label)
def test_forward_backward_update(benchmark, scenario, candidate):
    step = scenario.candidates()[candidate]
    benchmark.group = label(scenario)
    benchmark.extra_info.update(candidate=candidate, shape=scenario.shape)
    for _ in range(5):
        step()
    benchmark(step)
