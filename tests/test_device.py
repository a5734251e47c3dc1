import pytest
import torch

from se_nas.device import available_devices, device_name, resolve_device
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
