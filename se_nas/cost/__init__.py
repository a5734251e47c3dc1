"""What a network costs: exact counts before training, and latency measured on the user's device."""

from se_nas.cost.closed_form import Cost, CostModel, measure_cost

__all__ = ["Cost", "CostModel", "measure_cost"]
