#!/usr/bin/env python3
"""Print the version of a Python package, or of Python, for the pipeline's list of software: package_version.py NAME"""

import platform
import sys
from importlib import metadata

if __name__ == "__main__":
    name = sys.argv[1]
    print(platform.python_version() if name == "python" else metadata.version(name))
