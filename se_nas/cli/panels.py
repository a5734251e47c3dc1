"""The panels into which ``--help`` sorts options; an option has the same panel in every command."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_PANELS = {
    "Data": ("data", "val_data", "test_data", "input_size", "num_classes", "strict"),
    "Search": (
        *("backbone", "space", "position", "objectives", "reduction", "sampler", "early_stopping", "trials"),
        *(
            "budget",
            "stop_when_settled",
            "final_seeds",
            "seed",
            "warm_start",
            "pick",
            "storage",
            "study",
            "wait",
        ),
        *("config", "dry_run", "measure", "force"),
    ),
    "Training": (
        *("recipe", "trainer", "epochs", "batch_size", "compile", "pretrained", "checkpoint", "from_weights"),
        *("candidate_timeout", "device", "per_gpu", "executor", "ray_resources"),
    ),
    "Latency": (
        *("latency_batch", "latency_backend", "latency_precision", "latency_channels_last", "latency_mode"),
        *(
            "latency_threads",
            "latency_optimize",
            "latency_width",
            "latency_on",
            "latency_only",
            "refresh",
            "max_seconds",
        ),
    ),
    "Limits": (),
    "Output": (
        *("name", "runs", "keep", "log", "out", "format", "standalone", "fail_if_worse", "port"),
        *("json", "quiet", "verbose", "log_file", "help"),
    ),
}
_LIMIT = "max_"
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}


def in_panels(parameters: Iterable[Any]) -> list[Any]:
    """The parameters with their panels: arguments first, then the options panel by panel.

    An option that no panel lists, and that has not been given one, is in Limits if it is one and otherwise in Search.
    """
    arguments, options = [], []
    for parameter in parameters:
        if parameter.param_type_name != "option":
            arguments.append(parameter)
            continue
        usual = "Limits" if parameter.name.startswith(_LIMIT) else "Search"
        parameter.rich_help_panel = parameter.rich_help_panel or _PANEL_OF.get(parameter.name, usual)
        options.append(parameter)
    order = list(_PANELS)
    return [*arguments, *sorted(options, key=lambda option: order.index(option.rich_help_panel))]
