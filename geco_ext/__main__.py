"""`python -m geco_ext` is `geco`, for what starts modules: `torchrun --nproc-per-node 2 -m geco_ext train ...`."""

import sys

from geco_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
