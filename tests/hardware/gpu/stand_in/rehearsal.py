"""``python rehearsal.py test|bench|profile FOLDER``: a stage of the harness with the stand-in, in small.

FOLDER is where its report goes, in place of bench/results and the README.
"""

import sys
from pathlib import Path

STAND_IN = Path(__file__).resolve().parent
sys.path.insert(0, str(STAND_IN.parent))

import run  # noqa: E402
from harness import bench, build, tests  # noqa: E402

REPORT = """
import sys
from pathlib import Path
sys.path.insert(0, {bench!r})
import report
report.HERE, report.README = Path({folder!r}), Path({folder!r}) / "README.md"
report.main()
"""

stage, folder = sys.argv[1], sys.argv[2]
tests.FIRST, tests.BESIDE = tests.BESIDE[0], tests.BESIDE[1:2]  # sanitizers, then steps: two of the five
tests._processes = lambda group: 0  # no workers, which take seconds to start
# The stand-in for pip has built nothing: what is here serves, also where it was compiled without CUDA.
build.PROGRAM = build.PROGRAM.replace("{module.cuda_architectures}", "{module.cuda_architectures or '99-real'}")
build.STAMP = Path(folder) / "gpu.built"
script = Path(folder) / "report_elsewhere.py"
script.write_text(REPORT.format(bench=str(bench.REPORT.parent), folder=folder))
bench.REPORT = script
sys.argv = ["run.py", stage]
sys.exit(run.main())
