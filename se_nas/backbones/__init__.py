"""Where SE can go in a backbone, found by tracing its forward pass, and how it is inserted there."""

from __future__ import annotations

from se_nas.backbones.discovery import find_sites, positions, usual_position
from se_nas.backbones.insertion import gate_at, insert

__all__ = ["find_sites", "gate_at", "insert", "positions", "usual_position"]
