import copy

import pytest
from least_manifest import FACTS


@pytest.fixture
def facts():
    """The least that ``manifest.json`` holds, as JSON."""
    return copy.deepcopy(FACTS)
