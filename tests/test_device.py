import os
import sys

import pytest
import torch

from se_nas.device import advice_if_busy, available_devices, device_name, resolve_device, resolve_devices
from se_nas.errors import DeviceError


def test_default_is_the_best_there_is(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device().type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device() == torch.device("cuda:0")
    assert resolve_device("cuda:1").index == 1
    with pytest.raises(DeviceError, match=r"'cuda:2' does not exist.*cuda:1, cuda:0"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "", "cuda:99", "cpu:3"])
def test_devices_that_do_not_exist(name):
    with pytest.raises(DeviceError, match=repr(name)):
        resolve_device(name)


def test_name_of_the_processor():
    assert device_name("cpu")
    assert "cpu" in available_devices()


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_several_devices(two_gpus):
    both = [torch.device("cuda:0"), torch.device("cuda:1")]
    assert resolve_devices("cuda:all") == both
    assert resolve_devices("cuda:0, cuda:1") == both
    assert resolve_devices("cuda:1") == [torch.device("cuda:1")]
    assert resolve_devices("auto") == [torch.device("cuda:0")]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("cuda:0,cuda:7", "'cuda:7' does not exist on this machine; it has: cpu, cuda:1, cuda:0"),
        ("cuda:0,cpu", "must all be CUDA devices"),
        ("cuda,cuda:0", "names a device twice"),
        ("cuda:0,", "device is ''"),
    ],
)
def test_lists_of_devices_that_cannot_be(two_gpus, names, words):
    with pytest.raises(DeviceError, match=words):
        resolve_devices(names)


def test_all_devices_of_a_machine_without_any(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device"):
        resolve_devices("cuda:all")


def test_a_busy_processor_is_pointed_out_where_its_threads_would_spin(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (8.4, 1.0, 1.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert "2.1 processes per core" in (advice_if_busy("cpu") or "")
    assert advice_if_busy("cuda:0") is None
    with monkeypatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "passive")
        assert advice_if_busy("cpu") is None
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        assert advice_if_busy("cpu") is None
    monkeypatch.setattr(os, "getloadavg", lambda: (5.9, 9.0, 9.0))
    assert advice_if_busy("cpu") is None
