"""What a network costs: exact counts before training, and latency measured on the user's device."""

from se_nas.cost.closed_form import COST_NAMES, Cost, CostModel, measure_cost
from se_nas.cost.latency import Latency, LatencyMeter, measure_latency
from se_nas.cost.settings import LatencySettings, conditions_key, device_lock, differences

__all__ = [
    "COST_NAMES",
    "Cost",
    "CostModel",
    "Latency",
    "LatencyMeter",
    "LatencySettings",
    "conditions_key",
    "device_lock",
    "differences",
    "measure_cost",
    "measure_latency",
]
