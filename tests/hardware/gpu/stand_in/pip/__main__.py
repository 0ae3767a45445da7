"""Builds nothing; says for what it would have."""

import os
import sys

print("pip", *sys.argv[1:])
print("CMAKE_ARGS", os.environ["CMAKE_ARGS"])
