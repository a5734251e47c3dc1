"""Whether a Ray cluster answers at an address and takes the token of this process, which Ray asks for a minute."""

from __future__ import annotations

import os
import socket
from types import ModuleType
from urllib.parse import urlsplit

from se_nas.errors import ConfigError
from se_nas.study.config import SearchConfig

CONNECT_SECONDS = 5.0
_PING = b"\x08\x06"
"""``ClusterInfoRequest(type=PING)`` of Ray's client: the one question for which no session is begun."""
WRONG_TOKEN = (
    "the cluster wants a token, and that of this process is missing or another one: set RAY_AUTH_MODE=token,"
    " and RAY_AUTH_TOKEN unless it is in ~/.ray/auth_token."
)


def check_answers(config: SearchConfig) -> ModuleType:
    """Return ``ray``, neither connected nor started.

    Raises:
        ConfigError: it is not installed, nothing answers at the address that is given, or it wants another token.
    """
    # Read when Ray is imported or started. Neither reports of usage nor a remark on devices are wanted.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError(
            f"executor is {config.executor!r}, which is not installed: pip install 'se-nas[ray]'."
        ) from None
    if not ray.is_initialized():
        address = given_address(config) or os.environ.get("RAY_ADDRESS", "")
        where = _host_and_port(address)
        if where is not None:
            _refuse_silence(address, where)
            _refuse_strangers(config, address, where)
    return ray


def given_address(config: SearchConfig) -> str | None:
    """That of the cluster; None for the one of the environment or of this machine."""
    return None if config.executor == "ray" else config.executor


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Those of an address; None for one that names neither, such as ``auto``."""
    found = urlsplit(address if "//" in address else f"//{address}")
    try:
        host, port = found.hostname, found.port
    except ValueError as error:
        raise ConfigError(f"the address {address!r} of Ray is not HOST:PORT: {error}.") from None
    return None if host is None or port is None else (host, port)


def _refuse_silence(address: str, where: tuple[str, int]) -> None:
    """Ray itself tries for a minute to reach an address at which nothing listens."""
    try:
        socket.create_connection(where, timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"nothing answers at {address!r}, where Ray should be: {error}.") from None


def _refuse_strangers(config: SearchConfig, address: str, where: tuple[str, int]) -> None:
    """Ray itself tries for half a minute with a wrong token, and its client then says nothing of it."""
    try:
        import grpc
        from ray._private.grpc_utils import init_grpc_channel
        from ray.exceptions import AuthenticationError
    except ImportError:
        # A Ray that has no tokens, or none like those of Ray 2.60.
        return
    method, question = "NodeInfoGcsService/GetClusterId", b""
    if address.startswith("ray://"):
        method = "RayletDriver/ClusterInfo"
        question = _PING
    try:
        with init_grpc_channel(f"{where[0]}:{where[1]}") as channel:
            channel.unary_unary(f"/ray.rpc.{method}")(question, timeout=CONNECT_SECONDS)
    except grpc.RpcError as error:
        # What else may be wrong Ray says itself.
        refused = error.code() == grpc.StatusCode.UNAUTHENTICATED
    except AuthenticationError:
        refused = True
    else:
        refused = False
    if refused:
        raise ConfigError(f"Ray at {config.executor!r}: {WRONG_TOKEN}")
