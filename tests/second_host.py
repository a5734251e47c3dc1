"""A second host on this machine: a network and a name of its own, and a cable to this one that may lose packets."""

import ipaddress
import os
import re
import secrets
import shutil
import subprocess

import pytest

PROGRAMS = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux"}
FOR_TESTS = ipaddress.ip_network("198.18.0.0/15")
"""Addresses of no real network (RFC 2544)."""


class SecondHost:
    """Tests skip with the reason where it cannot be made.

    Args:
        loss: percentage of packets that are lost, each way.

    Attributes:
        name: what it calls itself.
        address: of this machine on the cable.
        under: the command that runs another one there.
    """

    def __init__(self, loss):
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
        self._programs = {name: shutil.which(name, path=path) for name in PROGRAMS}
        missing = [PROGRAMS[name] for name, found in self._programs.items() if found is None]
        if missing:
            pytest.skip(f"needs the Debian package {' and '.join(missing)}")
        if os.geteuid() != 0:
            pytest.skip("needs to be root, who may make networks")
        self.name = f"second-{secrets.token_hex(3)}"
        # Two addresses with the one of the network before and that of everyone after them.
        first = int(FOR_TESTS.network_address) + 4 * secrets.randbelow(FOR_TESTS.num_addresses // 4)
        self.address, theirs = (str(ipaddress.ip_address(first + place)) for place in (1, 2))
        here, there = (f"{letter}{self.name[-6:]}" for letter in "ht")
        self.under = (
            *(self._programs["ip"], "netns", "exec", self.name, self._programs["unshare"], "--uts"),
            *("sh", "-c", f'hostname {self.name} && exec "$@"', "sh"),
        )
        try:
            self._ip("netns", "add", self.name)
            self._ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
            self._ip("address", "add", f"{self.address}/30", "dev", here)
            self._ip("link", "set", here, "up")
            for arguments in (
                ("address", "add", f"{theirs}/30", "dev", there),
                ("link", "set", there, "up"),
                ("link", "set", "lo", "up"),
            ):
                self._ip("-n", self.name, *arguments)
            if loss:
                self._lose(loss)
            assert self._run(*self.under, "hostname") == self.name
        except subprocess.CalledProcessError as error:
            self.remove()
            pytest.skip(f"this machine cannot make a second host: {error.stderr.strip()}")

    @property
    def lost(self):
        """Packets that were lost, both ways."""
        return sum(map(int, re.findall(r"counter packets (\d+)", self._nft("list ruleset"))))

    def remove(self):
        """The cable goes with the network."""
        subprocess.run([self._programs["ip"], "netns", "del", self.name], check=False, capture_output=True)

    def _lose(self, loss):
        self._nft("add table inet lossy")
        for hook, name in (("input", "iifname"), ("output", "oifname")):
            self._nft(f"add chain inet lossy {hook} {{ type filter hook {hook} priority 0; }}")
            self._nft(f"add rule inet lossy {hook} {name} != lo numgen random mod 100 < {loss} counter drop")

    def _nft(self, command):
        return self._run(self._programs["ip"], "netns", "exec", self.name, self._programs["nft"], command)

    def _ip(self, *arguments):
        return self._run(self._programs["ip"], *arguments)

    def _run(self, *command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
