"""The manifest of a run that begins: what is searched with which decisions, versions and command."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import se_nas
from se_nas.backbones import find_sites
from se_nas.checkpoints import fingerprint
from se_nas.run import SCHEMA, Manifest
from se_nas.study.images import data_facts
from se_nas.study.paths import absolute_paths
from se_nas.study.plan import Plan
from se_nas.study.ray_cluster import actor_needs
from se_nas.study.storage import now

_LIBRARIES = ("torch", "timm", "optuna", "fvcore", "numpy", "scipy", "pandas", "scikit-learn")


def make_manifest(plan: Plan) -> Manifest:
    """The manifest of a run that begins here."""
    config, data, space = plan.config, plan.data, plan.space
    definition = space.to_dict()
    facts = {
        "schema": SCHEMA,
        "name": plan.path.name,
        "created": now(),
        "se_nas_version": se_nas.__version__,
        "command": " ".join(["se-nas", *sys.argv[1:]])
        if Path(sys.argv[0]).name == "se-nas"
        else "se_nas.search",
        "backbone": config.backbone,
        "timm_kwargs": config.timm_kwargs,
        "space": {
            "name": space.name,
            "size": space.size,
            "fingerprint": space.fingerprint,
            "definition": definition,
        },
        "sites": _sites_of_images(plan),
        "data": data_facts(data),
        "input_size": list(data.input_size),
        "objectives": list(config.objectives),
        "device": _device(plan),
        "measured": {
            name: {"conditions": dict(axis.conditions), "baseline": axis.baseline}
            for name, axis in plan.axes.items()
            if not axis.objective.exact
        },
        "start": plan.start,
        "checkpoint_fingerprint": None if config.checkpoint is None else fingerprint(config.checkpoint),
        "recipe": plan.recipe.to_dict(),
        "runtime": plan.runtime.to_dict(),
        "compile": plan.compilation.to_dict(),
        "packing": plan.packing.to_dict(),
        "executor": trains_on(plan),
        "epoch_seconds": plan.epoch_seconds,
        "budget": {"seconds": config.budget_seconds, "trials": config.trials, "spent": 0.0},
        "seed": config.seed,
        "versions": versions(),
        "status": "running",
        "provisional": True,
        "stop_reason": None,
        "warnings": list(plan.notes),
        "earlier": [asdict(one) for one in plan.earlier],
        "paths": absolute_paths(config.model_dump()),
    }
    return Manifest.from_json(facts)


def _sites_of_images(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """The sites of the space by position, with the sizes of their maps for the run's images."""
    return {
        position: [
            asdict(site)
            for site in find_sites(
                plan.config.backbone,
                position=position,
                input_size=plan.data.input_size,
                **plan.config.timm_kwargs,
            )
        ]
        for position in plan.space.sites_by_position
    }


def _device(plan: Plan) -> dict[str, Any]:
    import torch

    from se_nas.device import device_name

    kind = torch.device(plan.runtime.device).type
    return {"type": kind, "name": device_name(plan.runtime.device), "threads": torch.get_num_threads()}


def trains_on(plan: Plan) -> dict[str, Any] | None:
    """Where candidates train if not in processes of this machine."""
    if not plan.config.on_ray:
        return None
    needs = actor_needs(plan.config, plan.runtime.device)
    return {"name": plan.config.executor, "resources": needs, "version": version("ray")}


def versions() -> Mapping[str, str]:
    """Of Python, the platform and the libraries that a run depends on, by name."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
