"""pytest-benchmark's view of the scenarios, to compare commits: ``make bench``, or ``pytest bench`` with any option."""

import pytest
import torch
from candidates import floor, operator, own_step
from scenarios import SCENARIOS

CPU = torch.device("cpu")
CANDIDATES = {"geco_ext": own_step, "operator": operator, "floor": floor}


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.label)
def test_forward_backward_update(benchmark, scenario, candidate):
    call = CANDIDATES[candidate](scenario, CPU)
    benchmark.group = scenario.label
    benchmark.extra_info.update(candidate=candidate, shape=scenario.shape)
    for _ in range(3):
        call()
    benchmark(call)
