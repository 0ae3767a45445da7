"""``python tests/hardware/gpu/run.py test|bench|profile``, on an NVIDIA machine; the Makefile says what it needs.

``GPU_RESULTS``: the folder of the results (build/gpu-results). ``GPU_SECONDS``: all that a stage may take, its build
included (450). ``ONLY``: tests, as pytest's ``-k`` takes them; or scenarios, as a regular expression.
"""

from __future__ import annotations

import os
import sys

from harness import bench, build, profile, tests
from harness.session import Session

STAGES = {"test": tests.run, "bench": bench.run, "profile": profile.run}


def main() -> int:
    """0 where all went well."""
    stage = sys.argv[1] if len(sys.argv) == 2 else ""
    if stage not in STAGES:
        sys.exit(f"got {sys.argv[1:]}, expected one of {', '.join(STAGES)}")
    os.environ["PATH"] += f"{os.pathsep}/usr/local/cuda/bin"  # of its tools too, where nvcc alone is offered
    with Session(stage) as session:
        built = build.build(session)
        if not built and stage != "test":  # tests of the kernels that need no build are still worth their time
            session.leave_out(f"all of gpu-{stage}", "the build failed")
            return 1
        passed = STAGES[stage](session)
        verdict = "passed" if built and passed else "FAILED"
        verdict += ", with some left out" if session.left_out_some else ""
        session.say(f"gpu-{stage}: {verdict}; results in {session.folder}")
        return 0 if built and passed else 1


if __name__ == "__main__":
    sys.exit(main())
