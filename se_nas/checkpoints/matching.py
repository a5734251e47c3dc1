"""Which weights of a file are those of a model: by name, after what trainers put before the names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from se_nas.checkpoints.files import EMA
from se_nas.errors import CheckpointError


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Weights in a file that belong to a model.

    Attributes:
        path: of the file, shortened for messages.
        weights: by the model's names.
        taken: keys of the containers in which they were ("state_dict_ema"), joined by dots; "" for none.
        prefix: what stood before the model's names, and was cut off.
        left: names in the file that are not the model's; their weights are not used.
        fresh: names of the model's classifier if its weights are not used, as they are missing or of another
            size.
    """

    path: str
    weights: Mapping[str, Tensor]
    taken: str
    prefix: str
    left: tuple[str, ...]
    fresh: tuple[str, ...]

    def notes(self) -> list[str]:
        """Sentences on what was taken and left, for whoever gave the file; none if everything fits as it is."""
        notes = []
        averaged = self.taken if self.taken.rpartition(".")[2] in EMA else self.prefix
        if averaged and (averaged == self.taken or _is_average(averaged)):
            notes.append(f"{self.path}: the moving average of the weights ({averaged!r}) is used.")
        elif self.prefix and self.left:
            notes.append(f"{self.path}: the weights whose names begin with {self.prefix!r} are used.")
        if self.left:
            notes.append(f"{self.path}: not used are {_listed(self.left)}.")
        if self.fresh:
            notes.append(
                f"{self.path}: the classifier ({_listed(self.fresh)}) does not fit and starts at zero."
            )
        return notes


def fitting(model: nn.Module, weights: Mapping[str, Tensor], source: str, taken: str = "") -> Checkpoint:
    """The weights of a model, strictly but for a classifier of another size, which starts at zero.

    A prefix that all of the model's names share is cut off. Names beside the model (a loss, another head) are
    left; those of a module that the model has must be the model's.

    Raises:
        CheckpointError: keys are missing, left over or of another shape, or weights are not finite; ``source`` names
            the file.
    """
    expected = model.state_dict()
    head = classifier_keys(model)
    body = expected.keys() - head
    prefix = _prefix(weights, body)
    named = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    beside = [name for name in weights if not name.startswith(prefix)]
    modules = {name.partition(".")[0] for name in expected}
    unknown = [name for name in named if name not in expected]
    foreign = [name for name in unknown if name.partition(".")[0] in modules and name not in head]
    odd = [
        f"{key} has shape {tuple(named[key].shape)}, the model {tuple(expected[key].shape)}"
        for key in expected
        if key in body and key in named and named[key].shape != expected[key].shape
    ]
    missing = [key for key in expected if key in body and key not in named and not _is_counter(key)]
    odd += [f"{key} is missing" for key in missing]
    if odd or foreign:
        odd += [f"{key} is unknown to the model" for key in unknown]
        seen = f" (after the prefix {prefix!r})" if prefix else ""
        if len(missing) == sum(not _is_counter(key) for key in body):
            seen = f" (its names are {_listed(list(weights))})"
        more = f", and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__}{seen}: {'; '.join(odd[:5])}{more}."
        )
    fits = {k: v for k, v in named.items() if k in expected and v.shape == expected[k].shape}
    other = {key: value for key, value in fits.items() if not _same_kind(value, expected[key])}
    if other:
        first = next(iter(other.values()))
        raise CheckpointError(
            f"{source} holds {str(first.dtype).removeprefix('torch.')} where the model has floating-point weights, in"
            f" {_listed(other)}; give them as floating-point numbers."
        )
    # Formats of 8 bits have no isfinite.
    broken = [k for k, v in fits.items() if v.is_floating_point() and not v.float().isfinite().all()]
    if broken:
        raise CheckpointError(f"{source} holds NaN or infinite weights, in {_listed(broken)}.")
    # A head that fits in part (the weight, not the bias) would be neither old nor new.
    fresh = () if head <= fits.keys() else tuple(key for key in expected if key in head)
    return Checkpoint(
        path=source,
        weights={key: value for key, value in fits.items() if key not in fresh},
        taken=taken,
        prefix=prefix,
        left=(*(prefix + name for name in unknown), *beside),
        fresh=fresh,
    )


def _prefix(weights: Collection[str], expected: Collection[str]) -> str:
    """What stands before the most of the expected names; a moving average goes before its equals."""
    found: Counter[str] = Counter()
    for name in weights:
        found.update(prefix for prefix, rest in _cuts(name) if rest in expected)
    return max(found, key=lambda each: (found[each], _is_average(each), -len(each)), default="")


def _is_average(prefix: str) -> bool:
    return "ema" in re.split(r"[._]", prefix)


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    yield "", name
    for match in re.finditer(r"\.", name):
        yield name[: match.end()], name[match.end() :]


def classifier_keys(model: nn.Module) -> set[str]:
    config = getattr(model, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    return {key for key in model.state_dict() if key.startswith(tuple(f"{name}." for name in names))}


def _is_counter(key: str) -> bool:
    """Batches that a norm has seen: not in files of PyTorch before 1.0, and without effect."""
    return key.endswith("num_batches_tracked")


def _same_kind(value: Tensor, wanted: Tensor) -> bool:
    """Whether a copy keeps the numbers: integers in place of weights would be levels without their scale."""
    return value.is_floating_point() or not wanted.is_floating_point()


def _listed(names: Collection[str], limit: int = 3) -> str:
    shown = list(names)[:limit]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")
