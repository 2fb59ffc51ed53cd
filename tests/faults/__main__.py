"""`python tests/faults`: see lab.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from faults.lab import main

if __name__ == "__main__":
    sys.exit(main())
