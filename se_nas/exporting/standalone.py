"""``model.py`` of an exported folder: the network for people who have torch and timm but not se_nas."""

from __future__ import annotations

import inspect
from pathlib import Path
from string import Template
from typing import Any

import torch

from se_nas.architecture import Architecture
from se_nas.backbones import _fx_rewrite
from se_nas.errors import ConfigError
from se_nas.layers.native_gates import bottleneck_layers
from se_nas.run import write_text
from se_nas.sites import ABSENT, Site

_TEMPLATE = Template('''\
"""$title

Made by se-nas. Needs torch, timm and safetensors, and the model.safetensors beside this file.
Squeeze-and-excitation: Hu et al., https://arxiv.org/abs/1709.01507.
"""
$imports
import timm
from safetensors.torch import load_file
from timm.layers import create_act_layer
from torch import nn

BACKBONE = $backbone
KWARGS = $kwargs

# Module, what of it is gated, channels, hidden width, inner activation, constant factor of the gate.
SE = [$sites]
# Gates of timm that are removed, and those that get another hidden width.
REMOVED = [$removed]
RESIZED = {$resized}


class SqueezeExcite(nn.Module):
    """x times gate(fc2(act(fc1(mean of x over the map))))."""

    def __init__(self, channels, width, act, scale=1.0, channels_last=$channels_last):
        super().__init__()
        self.scale, self.channels_last = scale, channels_last
        self.fc1 = nn.Conv2d(channels, width, 1, bias=$bias)
        self.act = create_act_layer(act, inplace=True)
        self.fc2 = nn.Conv2d(width, channels, 1, bias=$bias)
        self.gate = create_act_layer($gate)

    def forward(self, x):
        if self.channels_last:
            return x * self.factor(x.mean((1, 2), keepdim=True).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x * self.factor(x.mean((2, 3), keepdim=True))

    def factor(self, squeezed):
        gate = self.gate(self.fc2(self.act(self.fc1(squeezed))))
        return gate if self.scale == 1.0 else self.scale * gate


class Gated(nn.Module):
    """A module of the backbone with SE on its output, or on its input."""

    def __init__(self, host, se, gated):
        super().__init__()
        self.gated = gated
        self.name = "se_gate" if hasattr(host, "se") else "se"
        self.host = host
        self.add_module(self.name, se)

    def forward(self, x, *args, **kwargs):
        se = getattr(self, self.name)
        if self.gated == "input":
            return self.host(se(x), *args, **kwargs)
        return se(self.host(x, *args, **kwargs))

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(self.__dict__["_modules"]["host"], name)
            # timm's reparameterize_model replaces the module by what fuse() returns.
            return self.fuse_host if name == "fuse" else found

    def fuse_host(self):
        self.host = self.host.fuse()
        return self


def resize(module, width):
    """Give an SE module of timm another hidden width."""
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for (name, layer), (inputs, outputs) in zip(layers, [(None, width), (width, None)]):
        out, into = layer.weight.shape[:2]
        kernel = (1,) if isinstance(layer, nn.Conv2d) else ()
        new = type(layer)(inputs or into, outputs or out, *kernel, bias=layer.bias is not None)
        module.set_submodule(name, new)
    for name, norm in list(module.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            module.set_submodule(name, type(norm)(width, eps=norm.eps, affine=norm.affine))
$shortcut

def create_model(weights=Path(__file__).with_name("model.safetensors")):
    """The network in eval mode, with its weights unless ``weights`` is None."""
    model = timm.create_model(BACKBONE, **KWARGS)

    def place(path):
        parent, _, name = path.rpartition(".")
        return model.get_submodule(parent), name

    # All places are looked up before anything is wrapped.
    sites = [(place(path), *site) for path, *site in SE]
    removed, resized = [place(path) for path in REMOVED], [(place(path), w) for path, w in RESIZED.items()]
    for parent, name in removed:
        setattr(parent, name, nn.Identity())
        if hasattr(parent, "attn_gain"):
            # timm's NFNets double what a gate returns, because a gate halves it on average.
            parent.attn_gain = 1.0
    for (parent, name), width in resized:
        resize(getattr(parent, name), width)
    for (parent, name), gated, channels, width, act, scale in sites:
        se, host = SqueezeExcite(channels, width, act, scale), getattr(parent, name)
        if gated in ("shortcut", "branch"):
            gate_shortcut(host, se, gated)
            continue
        # An empty place may be held by an attribute that is None or False.
        parent.__dict__.pop(name, None)
        setattr(parent, name, se if gated == "slot" else Gated(host, se, gated))
    if weights is not None:
        tensors = load_file(weights)
        keys = model.state_dict().keys()
        model.load_state_dict({key: tensors[key.replace(".host.", ".")] for key in keys})
    return model.eval()
''')


def standalone_source(architecture: Architecture, network: Any, input_size: tuple[int, ...]) -> str:
    """The text of ``model.py``.

    Raises:
        ConfigError: a native gate was resized whose structure the text cannot express.
    """
    inserted = [(site, width) for site, width in architecture.changed() if not site.native]
    native = [(site, width) for site, width in architecture.changed() if site.native]
    for site, width in native:
        layers = bottleneck_layers(network.get_submodule(site.path)) if width != ABSENT else None
        if layers and not all(isinstance(norm, torch.nn.BatchNorm2d) for norm in layers[2]):
            raise ConfigError(f"the norm in the resized gate at {site.path!r} has no standalone form.")
    scales = _scales(network, [site for site, _ in inserted])
    rows = [
        (
            site.slot or site.path,
            "slot" if site.slot else site.anchor,
            site.channels,
            width,
            architecture.act or site.act,
            scales[site.path],
        )
        for site, width in inserted
    ]
    layouts = {site.channel_dim for site, _ in inserted}
    if len(layouts) > 1:
        raise ConfigError(
            "sites with channels first and channels last in one network have no standalone form."
        )
    needs_shortcut = any(row[1] in _fx_rewrite.REWRITTEN for row in rows)
    kwargs = {**dict(architecture.timm_kwargs), "num_classes": network.num_classes}
    if input_size[0] != 3:
        kwargs["in_chans"] = input_size[0]
    imports, helper = _shortcut_source() if needs_shortcut else ("from pathlib import Path\n", "")
    return _TEMPLATE.substitute(
        title=f"{architecture.backbone} with {architecture.describe()}.",
        imports=imports,
        backbone=repr(architecture.backbone),
        kwargs=repr(kwargs),
        sites=_lines(repr(row) for row in rows),
        removed=_lines(repr(site.path) for site, width in native if width == ABSENT),
        resized=_lines(f"{site.path!r}: {width}" for site, width in native if width != ABSENT),
        channels_last=str(layouts == {-1}),
        bias=str(architecture.bias),
        gate=repr(architecture.gate),
        shortcut=helper,
    )


def write_standalone(
    architecture: Architecture, network: Any, folder: Path, input_size: tuple[int, ...]
) -> None:
    """Write ``model.py`` beside the weights in the folder, and compare its outputs bit by bit.

    Raises:
        ConfigError: the network cannot be expressed this way, or its outputs differ.
    """
    path = folder / "model.py"
    text = standalone_source(architecture, network, input_size)
    write_text(path, text)
    # Executed rather than imported: an import would leave its cache in the folder.
    module: dict[str, Any] = {"__name__": "model", "__file__": str(path)}
    exec(compile(text, str(path), "exec", dont_inherit=True), module)
    x = torch.randn(2, *input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        same = torch.equal(module["create_model"]()(x), network(x))
    if not same:
        raise ConfigError(f"{architecture} has no standalone form: its outputs differ from the network's.")


def _scales(network: Any, sites: list[Site]) -> dict[str, float]:
    """Constant factor of each inserted gate, found by name in the state dict."""
    state = network.state_dict()
    scales = {
        key.removesuffix(".gate_scale"): float(v) for key, v in state.items() if key.endswith("gate_scale")
    }
    found = {}
    for site in sites:
        names = (
            [site.slot]
            if site.slot
            else [f"{site.path}.{n}" for n in ("se", "se_gate", _fx_rewrite.GATE_NAME)]
        )
        found[site.path] = next((scales[name] for name in names if name in scales), 1.0)
    return found


def _shortcut_source() -> tuple[str, str]:
    """Imports and the functions that put SE on an identity shortcut, as they are in se_nas."""
    source = inspect.getsource(_fx_rewrite).replace("BackboneError", "ValueError")
    body = source.split("from se_nas.errors import ValueError\n", 1)[1]
    imports = "import operator\nfrom pathlib import Path\nfrom typing import Any\n\nimport torch"
    return imports + "\nfrom torch import fx", "\n\n" + body.strip() + "\n"


def _lines(items: Any) -> str:
    text = "".join(f"\n    {item}," for item in items)
    return f"{text}\n" if text else ""
