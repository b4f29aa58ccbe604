"""The modules of this folder also run outside of pytest, where they are found beside each other."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
