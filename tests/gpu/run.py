"""All tests marked gpu, spread over several processes: most of their time is that of compilers on the host.

``python tests/gpu/run.py [options of pytest]``. Needs pytest alone; what else a test needs and misses is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
FILES = [
    TESTS / "gpu",
    *(TESTS / f"test_{name}.py" for name in ("backends", "autograd", "triton_backend", "model_kernels")),
    *sorted(TESTS.glob("test_windows*.py")),
]
SECONDS = 150  # after which no process starts another test; those left out are counted as skipped
LONGEST = 210  # seconds that the last test of a process may take from then on
NO_TESTS = 5  # pytest's exit status where nothing was left to run


def main() -> int:
    """0 where everything passed."""
    count = max(1, min(12, (os.cpu_count() or 1) * 3 // 4))
    end = time.monotonic() + SECONDS + LONGEST
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(part) for part in range(count)]
        running = [_start(part, count, output) for part, output in enumerate(outputs)]
        for process, output in zip(running, outputs, strict=True):
            passed = _passes(process, end)
            text = output.read_text()
            print(text[text.rstrip().rfind("\n") + 1 :] if passed else text, end="", flush=True)
            failed += not passed
    print(f"GPU tests: {count - failed} of {count} parts passed")
    return 1 if failed else 0


def _start(part: int, count: int, output: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, FILES)]
    environment = {**os.environ, "GECO_EXT_TEST_PART": f"{part}/{count}", "GECO_EXT_TEST_SECONDS": str(SECONDS)}
    with output.open("w") as file:
        return subprocess.Popen([*command, *sys.argv[1:]], stdout=file, stderr=subprocess.STDOUT, env=environment)


def _passes(process: subprocess.Popen, end: float) -> bool:
    try:
        return process.wait(max(1.0, end - time.monotonic())) in (0, NO_TESTS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print("GPU tests: a test that does not end was stopped")
        return False


if __name__ == "__main__":
    sys.exit(main())
