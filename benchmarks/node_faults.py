"""Nodes of a Ray cluster that go while eight actors train; in the end nothing may be lost, or done twice.

    python benchmarks/node_faults.py [--removals 5] [--trials 80] [--seconds 5] [--sampler pareto]

The cluster has four nodes with two actors each, and a head without any. Whenever a sixth part of the trials has ended,
a node joins, and another one is killed with all its processes. Trainings are simulated, and everything else is real.
In the end every candidate has to be evaluated exactly once, with the reading of an undisturbed run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import random
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

from scaling import import_tests, print_machine
from worker_faults import NODES, PER_NODE, check

from se_nas import SearchConfig, search
from se_nas.run import RunFolder
from se_nas.study.progress import Progress

MEMORY = 100 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--removals", type=int, default=5)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--sampler", default="pareto")
    parser.add_argument("--seconds", type=float, default=5.0, help="That a training takes.")
    options = parser.parse_args()
    print_machine()
    import_tests()
    os.environ |= {"SECONDS": str(options.seconds), "RAY_USAGE_STATS_ENABLED": "0"}
    break_nodes(options)


class Breaking(Progress):
    """Brings a node after every so many trials, and kills another one.

    Attributes:
        removed: how many were killed.
        lost: trainings that were lost with them.
    """

    def __init__(self, cluster: Any, every: int, removals: int) -> None:
        self.removed, self.lost, self._ended = 0, 0, 0
        self._cluster, self._every, self._removals = cluster, every, removals
        self._rng = random.Random(0)

    def trial_finished(self, row: Mapping[str, Any], store: Any) -> None:
        self._ended += 1
        if self._ended % self._every == 0 and self.removed < self._removals:
            self.removed += 1
            nodes = sorted(self._cluster.worker_nodes, key=lambda node: node.node_id)
            # Only this thread can bring a node. It drives the trainings too, in whose midst one shall go.
            self._cluster.add_node(num_cpus=PER_NODE, object_store_memory=MEMORY)
            away = (self._rng.choice(nodes), False)
            threading.Timer(1.0, self._cluster.remove_node, away).start()

    def message(self, text: str) -> None:
        self.lost += "was lost; trial" in text


def break_nodes(options: argparse.Namespace) -> None:
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(NODES):
        cluster.add_node(num_cpus=PER_NODE, object_store_memory=MEMORY)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
    breaking = Breaking(cluster, max(1, options.trials // (options.removals + 1)), options.removals)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        config = SearchConfig(
            backbone="resnet18",
            objectives="accuracy,params",
            sampler=options.sampler,
            trials=options.trials,
            final_seeds=2,
            epochs=1,
            compile="off",
            trainer="golden_trainer:train_slowly",
            keep="none",
            device="cpu",
            executor="ray",
            runs=scratch,
        )
        run = search(config, breaking)
        print(
            f"Ray {importlib.metadata.version('ray')}: {breaking.removed} nodes of {PER_NODE} actors killed, with"
            f" {breaking.lost} trainings, in {time.monotonic() - began:.0f} s"
        )
        check(RunFolder.open(run.path).rows(), options.trials)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
