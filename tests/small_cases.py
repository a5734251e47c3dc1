"""What several tests of the study share: a backbone of two sites, a short search, one in a process of its own."""

import textwrap

from se_nas.run import RunFolder
from se_nas.sites import Site

SITES = tuple(
    Site(
        stage=stage,
        block=0,
        path=f"layer{stage}.0",
        channels=64,
        reduction_base=64,
        resolution=(8, 8),
    )
    for stage in range(2)
)

SEARCH = {
    "backbone": "test_resnet",
    "objectives": "accuracy,macs",
    "recipe": {"preset": "tiny", "batch_size": 128, "precision": "fp32"},
    "epochs": 1,
    "device": "cpu",
}


def search_script(config):
    """A program that searches and prints trial and epoch after every epoch, so that it can be killed in time."""
    return textwrap.dedent(
        f"""
        import torch
        torch.set_num_threads(1)
        from se_nas.study import SearchConfig, search
        from se_nas.study.progress import Progress

        class Tell(Progress):
            def epoch(self, row, metrics):
                print(row["number"], metrics["epoch"], flush=True)

        search(SearchConfig(**{config.model_dump()!r}), Tell())
        """
    )


def table(path):
    """Rows of a run's ``trials.json`` by column."""
    return [row.to_json() for row in RunFolder.open(path).rows()]
