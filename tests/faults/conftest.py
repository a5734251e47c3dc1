import os
import random

import pytest


@pytest.fixture(autouse=True)
def _draws(request):
    """What a test draws is the same each time; a slow test draws anew, and says how to draw the same again."""
    seed = request.node.nodeid
    if request.node.get_closest_marker("slow"):
        seed = os.environ.get("SE_NAS_DRAWS") or os.urandom(4).hex()
        print(f"SE_NAS_DRAWS={seed}")
    random.seed(seed)
