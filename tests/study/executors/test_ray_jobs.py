"""A search that is submitted to a Ray cluster as a job."""

import shlex
import socket
import sys
import time

import pytest

from se_nas.run import RunFolder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SEARCH = (
    "--backbone test_resnet --objectives accuracy,params --trials 2 --epochs 1 --final-seeds 0 --executor ray"
)


@pytest.fixture
def dashboard(ray_settings):
    """Where jobs are submitted to a cluster of one node."""
    pytest.importorskip("aiohttp_cors", reason="jobs need ray[default], which se-nas does not")
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "dashboard_port": port}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": True})
    yield f"http://127.0.0.1:{port}"
    made.shutdown()


def test_a_search_that_is_a_job(dashboard, tmp_path):
    from ray.job_submission import JobStatus, JobSubmissionClient

    client = JobSubmissionClient(dashboard)
    command = [
        sys.executable,
        "-m",
        "se_nas",
        "search",
        *SEARCH.split(),
        "--device",
        "cpu",
        "--runs",
        tmp_path,
    ]
    job = client.submit_job(entrypoint=shlex.join(str(word) for word in command))
    until = time.monotonic() + 500
    while not (status := client.get_job_status(job)).is_terminal():
        assert time.monotonic() < until, client.get_job_logs(job)
        time.sleep(0.5)
    assert status == JobStatus.SUCCEEDED, client.get_job_logs(job)
    [path] = tmp_path.iterdir()
    run = RunFolder.open(path)
    assert run.manifest.status == "finished"
    assert run.manifest.executor["name"] == "ray"
    assert [row.state for row in run.rows()] == ["complete", "complete"]
