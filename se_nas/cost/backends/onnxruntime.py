"""Inference by ONNX Runtime. Needs the extra ``onnx``."""

from __future__ import annotations

import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from se_nas.cost.backends.base import Prepared
from se_nas.cost.settings import LatencySettings
from se_nas.device import resolve_device
from se_nas.errors import ConfigError, DeviceError

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def prepare(model: nn.Module, images: Tensor, settings: LatencySettings) -> Prepared:
    """An ONNX Runtime session with images and outputs bound to the device.

    Raises:
        ConfigError: the extra is not installed, or only torch supports a setting.
        DeviceError: this ONNX Runtime was built without the device.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"backend 'onnxruntime' needs {', '.join(missing)}; install with: pip install 'se-nas[onnx]'."
        )
    for name, value, only in (
        ("mode", settings.mode, "eager"),
        ("channels_last", settings.channels_last, False),
        ("precision", settings.precision, "fp32"),
    ):
        if value != only:
            raise ConfigError(f"{name} is {value!r}; backend 'onnxruntime' allows only {only!r}.")
    import onnxruntime

    device = resolve_device(settings.device)
    provider = _PROVIDERS.get(device.type)
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise DeviceError(f"device is {settings.device!r}; this ONNX Runtime has {', '.join(available)}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _export(model, images, path)
        index = device.index or 0
        providers: list[Any] = [(provider, {"device_id": index})] if device.type == "cuda" else [provider]
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, images.numpy())
    binding.bind_output(session.get_outputs()[0].name, device.type, device.index or 0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return Prepared(run=run, versions={"onnxruntime": onnxruntime.__version__})


def _export(model: nn.Module, images: Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        # The exporter warns about its internals, which no user can change.
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), str(path), dynamo=True, verbose=False, external_data=False)
