"""What tests of pictures use."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from matplotlib import rcParams


@pytest.fixture
def settings_stay() -> Any:
    """No picture changes a setting of matplotlib, or makes pyplot come."""
    before, windows = dict(rcParams), "matplotlib.pyplot" in sys.modules
    yield
    assert dict(rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == windows
