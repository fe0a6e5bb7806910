"""Every test draws from generators seeded by its own name; the seed is printed, and shown where a test fails.

``GLYDER_SEED=123 pytest ...`` runs the tests with another one. Nothing is imported that a test has not imported itself,
so that the tests of the C core run without torch.
"""

from __future__ import annotations

import os
import random
import sys
import zlib

import pytest


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test."""
    value = int(os.environ.get("GLYDER_SEED") or zlib.crc32(request.node.nodeid.encode()))
    print(f"GLYDER_SEED={value}")
    random.seed(value)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(value % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(value)
        sys.modules["torch"].set_num_threads(1)  # small tensors: threads cost more than they save
    return value
