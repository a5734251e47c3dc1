"""What a network costs: exact counts before training, and latency measured on the user's device."""

from se_nas.cost.backends import Backend, Prepared, backend_names, resolve_backend
from se_nas.cost.closed_form import COST_NAMES, Cost, CostModel, measure_cost
from se_nas.cost.latency.meter import Latency, LatencyMeter, measure_latency
from se_nas.cost.latency.table import LatencyTable, TableCheck, random_sampler
from se_nas.cost.limits import Limit, check_limits, format_cost
from se_nas.cost.profiling import Profile, latency_table, profile
from se_nas.cost.ranges import Range, WidthCost, ranges_over
from se_nas.cost.settings import LatencySettings, conditions_key, device_lock, differences

__all__ = [
    "COST_NAMES",
    "Backend",
    "Cost",
    "CostModel",
    "Latency",
    "LatencyMeter",
    "LatencySettings",
    "LatencyTable",
    "Limit",
    "Prepared",
    "Profile",
    "Range",
    "TableCheck",
    "WidthCost",
    "backend_names",
    "check_limits",
    "conditions_key",
    "device_lock",
    "differences",
    "format_cost",
    "latency_table",
    "measure_cost",
    "measure_latency",
    "profile",
    "random_sampler",
    "ranges_over",
    "resolve_backend",
]
