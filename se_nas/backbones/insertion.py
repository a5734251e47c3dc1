"""Inserts SE into a live model: into the block's empty slot, or around the module at the site.

A wrapper replaces the module in its parent and adds no level to the names in state dicts: weights keep the names
that they have in the plain backbone, so its checkpoints load with only the SE keys missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from se_nas.backbones._fx_rewrite import GATE_NAME, REWRITTEN, gate_shortcut
from se_nas.errors import BackboneError
from se_nas.sites import ABSENT, Site

_HOST = "gated_host"


class Gated(nn.Module):
    """A module with SE on its output, or on its input.

    Attributes of the module can be read through it, and it does not show in state dicts: the module's entries keep
    their names, and those of SE are under ``<name>.se.`` (``se_gate`` if the module has an ``se`` already).
    """

    def __init__(self, host: nn.Module, se: nn.Module, anchor: str = "output") -> None:
        super().__init__()
        self.anchor = anchor
        self.add_module(_HOST, host)
        self.gate_name = "se_gate" if hasattr(host, "se") else "se"
        self.add_module(self.gate_name, se)
        self.train(host.training)
        self.register_load_state_dict_post_hook(_name_without_level)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        host, se = self._modules[_HOST], self._modules[self.gate_name]
        assert host is not None
        assert se is not None
        if self.anchor == "input":
            return host(se(x), *args, **kwargs)
        return se(host(x, *args, **kwargs))

    def __prepare_scriptable__(self) -> nn.Module:
        """Called by ``torch.jit.script``; what this returned would replace the module in the caller's network."""
        raise BackboneError(
            "torch.jit.script cannot compile SE around a module of this backbone; use torch.jit.trace(model, images) or"
            " torch.export."
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            modules = self.__dict__.get("_modules", {})
            if _HOST not in modules:
                raise
            found = getattr(modules[_HOST], name)
            # timm replaces a module by what its ``fuse`` returns; here only the host must be replaced.
            return self._fuse_host if name == "fuse" else found

    def _fuse_host(self) -> Gated:
        setattr(self, _HOST, self.get_submodule(_HOST).fuse())  # type: ignore[operator]
        return self

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        if args:
            destination, prefix, keep_vars = (*args, *(None, "", False)[len(args) :])[:3]
        host, se = self.get_submodule(_HOST), self.get_submodule(self.gate_name)
        destination = host.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        return se.state_dict(
            destination=destination, prefix=f"{prefix}{self.gate_name}.", keep_vars=keep_vars
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own = [
            key
            for key in state_dict
            if key.startswith(prefix) and not key.startswith(f"{prefix}{self.gate_name}.")
        ]
        for key in own:
            state_dict[f"{prefix}{_HOST}.{key[len(prefix) :]}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _name_without_level(module: nn.Module, incompatible: Any) -> None:
    for keys in incompatible:
        keys[:] = [state_name(key) for key in keys]


def insert(
    model: nn.Module,
    sites_with_widths: Iterable[tuple[Site, int]],
    make_block: Callable[[Site, int], nn.Module],
) -> nn.Module:
    """Change the gates of a model, in place.

    Args:
        model: the backbone that the sites were found on.
        sites_with_widths: the sites to change, with their hidden widths; 0 removes a native gate.
        make_block: called with the site and width of every new block.

    Raises:
        BackboneError: the model has no module at a site's path.
    """
    from se_nas.layers.gate_resizing import removed, resized

    for site, width in list(sites_with_widths):
        parent, name, module = _locate(model, site.slot or site.path)
        if site.native:
            if module is None:
                raise BackboneError(f"the model has no native gate at {site.path!r}.")
            new = removed(module) if width == ABSENT else resized(module, width)
            if width == ABSENT:
                take_gain(model, site)
        elif width == ABSENT:
            continue
        else:
            se = make_block(site, width)
            reference = next(model.parameters(), None)
            if reference is not None and not reference.is_meta:
                se.to(device=reference.device, dtype=reference.dtype)
            if site.slot:
                if not _is_empty(module):
                    raise BackboneError(f"{site.slot!r} already holds a {type(module).__name__}.")
                new = se.train(model.training)
            elif site.anchor in REWRITTEN:
                assert module is not None
                gate_shortcut(module, se, site.anchor)
                continue
            else:
                assert module is not None
                new = Gated(module, se, site.anchor)
        _replace(parent, name, new)
    return model


def gate_at(model: nn.Module, site: Site) -> nn.Module:
    """The module that gates a site: what ``insert`` put there, or the native gate.

    Raises:
        BackboneError: the site has no gate.
    """
    module = _locate(model, site.slot or site.path)[2]
    if not site.native and not site.slot:
        name = GATE_NAME if site.anchor in REWRITTEN else getattr(module, "gate_name", "")
        module = module._modules.get(name) if module is not None else None
    if module is None or _is_empty(module):
        raise BackboneError(f"the model has no gate at {site.path!r}.")
    return module


def take_gain(model: nn.Module, site: Site) -> float:
    """The factor by which the block multiplies what the gate at a site returns; the block's own becomes 1.

    timm's NFNets double it, since a gate halves its input on average. Without a gate there is no factor.
    """
    parent = _locate(model, site.slot or site.path)[0]
    gain = float(getattr(parent, "attn_gain", 1.0))
    if gain != 1.0:
        vars(parent)["attn_gain"] = 1.0
    return gain


def state_prefix(model: nn.Module, gate: nn.Module) -> str:
    """What the names of a gate's tensors begin with in the model's state dict, with the dot."""
    path = next(path for path, module in model.named_modules() if module is gate)
    return state_name(f"{path}.")


def state_name(path: str) -> str:
    """How state dicts name what is at a path of a model with gates: without the level of a wrapper."""
    return path.replace(f"{_HOST}.", "")


def _is_empty(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)


def _locate(model: nn.Module, path: str) -> tuple[nn.Module, str, nn.Module | None]:
    *above, name = path.split(".")
    parent: nn.Module = model
    for part in above:
        child = parent._modules.get(part)
        if child is None:
            # Paths of the plain backbone do not know of wrappers, so step through them.
            host = parent._modules.get(_HOST)
            child = host._modules.get(part) if host is not None else None
        if child is None:
            raise BackboneError(f"the model has no module {path!r}: it is not the backbone of this site.")
        parent = child
    while name not in parent._modules and _HOST in parent._modules:
        parent = parent.get_submodule(_HOST)
    if name not in parent._modules and getattr(parent, name, _MISSING) is not None:
        raise BackboneError(f"the model has no module {path!r}: it is not the backbone of this site.")
    return parent, name, parent._modules.get(name)


_MISSING = object()


def _replace(parent: nn.Module, name: str, module: nn.Module) -> None:
    parent.__dict__.pop(name, None)
    setattr(parent, name, module)
