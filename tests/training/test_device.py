"""Where the work is done, with what precision."""

import pytest
import torch

from pneumo.errors import PneumoError
from pneumo.settings import Machine
from pneumo.training import device


def test_a_device_that_is_not_there_is_refused_and_auto_takes_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device.torch_device(Machine()).type == "cpu"
    for accelerator in ("cuda", "gpu", "mps"):
        with pytest.raises(PneumoError, match=f"machine.accelerator={accelerator}: not on this"):
            device.torch_device(Machine(accelerator=accelerator))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.torch_device(Machine(accelerator="gpu")).type == "mps"


def test_more_devices_than_there_are_are_refused(monkeypatch):
    device.check_devices(Machine(accelerator="cpu", devices=9))  # processes
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device.check_devices(Machine(devices=2))
    with pytest.raises(PneumoError, match=r"machine\.devices=3: this machine has 2 of cuda; use"):
        device.check_devices(Machine(devices=3))


def test_a_device_has_a_short_name(monkeypatch):
    assert device.device_name(Machine(accelerator="cpu")) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA T4")
    assert device.device_name(Machine()) == "NVIDIA T4"


def test_half_precision_is_taken_only_where_a_gpu_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has_it, name in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_it=has_it: has_it)
        assert device.precision(Machine()) == name
    assert device.precision(Machine(accelerator="cpu")) == "32-true"
    assert device.precision(Machine(accelerator="cpu", precision="16-mixed")) == "16-mixed"
