"""The conformance suites: what a new backbone adapter and a new latency measurement must pass.

``BackboneConformance`` and ``CostConformance`` are subclassed in a test module; ``examine`` runs the checks of a
backbone outside pytest.
"""

from se_nas.testing.backbones import CHECKS, META_CHECKS, BackboneConformance, examine
from se_nas.testing.costs import CostConformance

__all__ = ["CHECKS", "META_CHECKS", "BackboneConformance", "CostConformance", "examine"]
