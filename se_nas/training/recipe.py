"""How candidates are trained: one frozen set of settings, with timm's names for timm's parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from se_nas.errors import ConfigError, nearest, not_allowed

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SWITCHES = ("auto", "on", "off")
SCHEDULES = ("cosine", "tanh", "poly", "wsd", "rsqrt", "constant")
CROPS = ("auto", "none", "pad", "random_resized")
LOSSES = ("cross_entropy", "bce")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training settings. ``Recipe.preset(name)`` gives a shipped one, ``from_dict`` one from a file.

    Attributes:
        epochs: passes over the training images, at least 1.
        batch_size: images of one optimiser step; also under gradient accumulation.
        optimizer: a name of timm's ``list_optimizers``.
        lr: peak learning rate for this batch size (there is no hidden scaling).
        weight_decay, momentum: as in timm; biases and norms are not decayed.
        schedule: a name of timm's ``create_scheduler_v2``, stepped on every update.
        warmup_epochs: linear warm-up, a part of ``epochs``; a fraction is allowed. If ``with_`` or a preset's
            ``epochs`` change the length of the training, this and ``freeze_epochs`` keep their share of it.
        warmup_lr, min_lr: rates at the start and at the end, as shares of ``lr``.
        se_lr_factor, head_lr_factor, backbone_lr_factor: share of ``lr`` for SE blocks, classifier and the
            rest.
        freeze_epochs: epochs at the start in which only SE blocks and classifier are trained; a fraction is
            allowed.
        norm_eval: batch norms use the statistics that they begin with, those of the weights that a training starts
            from, and keep them; their scale and shift are trained (mmdetection's ``norm_eval``).
        label_smoothing: in [0, 1).
        loss: "cross_entropy", or "bce" (binary cross-entropy of each class, as timm's A3).
        mixup, cutmix: alpha of timm's ``Mixup``; 0 is off. ``mixup_prob``, ``mixup_off_epoch`` as in timm's
            script.
        auto_augment: a configuration string of timm ("rand-m6-mstd0.5-inc1"), or None.
        crop: "pad" (random shifts by an eighth of the side), "random_resized" (``crop_scale`` of the area),
            "none"; "auto" is "pad", or "none" for centred signs (if ``ImageData.mirror`` is False).
        hflip: probability of a mirrored image; None is 0.5 if the data set allows it, else 0.
        random_erasing: probability, timm's ``RandomErasing`` in mode "pixel".
        drop_path: rate given to ``timm.create_model`` by whoever builds the model.
        ema_decay: decay of timm's ``ModelEmaV3`` with its warm-up; None is off. If on, its weights are
            evaluated.
        clip_grad: largest norm of the gradient, or None.
        precision: "auto" decides by device and network (see ``Runtime``).
        channels_last: "auto", "on" or "off".
        compile: whether blocks are compiled: "on", "off", or "auto", which a search measures once, if
            enough training lies ahead for it to pay (``choose_compile``).
    """

    epochs: int = 3
    batch_size: int = 32
    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup_epochs: float = 0.5
    warmup_lr: float = 0.1
    min_lr: float = 0.0
    se_lr_factor: float = 1.0
    head_lr_factor: float = 1.0
    backbone_lr_factor: float = 1.0
    freeze_epochs: float = 0
    norm_eval: bool = False
    label_smoothing: float = 0.1
    loss: str = "cross_entropy"
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_prob: float = 1.0
    mixup_off_epoch: int = 0
    auto_augment: str | None = None
    crop: str = "auto"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    hflip: float | None = None
    random_erasing: float = 0.0
    drop_path: float = 0.0
    ema_decay: float | None = None
    clip_grad: float | None = None
    precision: str = "auto"
    channels_last: str = "auto"
    compile: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop_scale", tuple(self.crop_scale))
        for name, allowed in (
            ("schedule", SCHEDULES),
            ("loss", LOSSES),
            ("crop", CROPS),
            ("precision", PRECISIONS),
            ("channels_last", SWITCHES),
            ("compile", SWITCHES),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(not_allowed(name, getattr(self, name), allowed))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}.")
        if not isinstance(self.norm_eval, bool):
            raise ConfigError(f"norm_eval is {self.norm_eval!r}; it must be true or false.")
        for name in ("epochs", "batch_size", "mixup_off_epoch"):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be a whole number.")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ConfigError(
                f"crop_scale is {self.crop_scale!r}; it must be two shares with 0 < low <= high <= 1."
            )
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ConfigError(f"batch_size is {self.batch_size}; mixup and cutmix need an even one.")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ConfigError(
                f"warmup_epochs is {self.warmup_epochs:g}; it must be below epochs, {self.epochs}."
            )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Recipe:
        """A shipped recipe: "tiny" (32 px, minutes), "finetune" (from trained weights), "imagenet-a3" (timm's short
        recipe)."""
        return cls.from_dict({"preset": name, **changes})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """A recipe from a mapping. ``preset`` names the recipe that the other keys change, "tiny" if it is absent.

        Raises:
            ConfigError: a key or the preset is unknown, or a value is out of its range.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"the recipe is {data!r}; it must be a mapping of settings.")
        values = dict(data)
        base = values.pop("preset", "tiny")
        if base not in list(PRESETS):
            raise ConfigError(not_allowed("recipe", base, PRESETS))
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"the recipe has an unknown key {key!r}.{nearest(key, known)} Known: {', '.join(known)}."
                )
        try:
            return cls(**PRESETS[base]).with_(**values)
        except TypeError as error:
            raise ConfigError(f"this is not a recipe: {error}.") from error

    def with_(self, **changes: Any) -> Recipe:
        """A copy with other values. If the epochs change, warm-up and freezing keep their share of the training."""
        epochs = changes.get("epochs", self.epochs)
        if isinstance(epochs, int):
            for name in ("warmup_epochs", "freeze_epochs"):
                changes.setdefault(name, getattr(self, name) * epochs / self.epochs)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``from_dict`` returns an equal recipe."""
        return {**asdict(self), "crop_scale": list(self.crop_scale)}


_OPTIONAL = ("hflip", "ema_decay", "clip_grad")
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, 100_000),
    ("batch_size", 2, 1_000_000),
    ("lr", 1e-12, 1e3),
    ("weight_decay", 0, 100),
    ("momentum", 0, 1),
    ("warmup_epochs", 0, 100_000),
    ("warmup_lr", 0, 1),
    ("min_lr", 0, 1),
    ("se_lr_factor", 0, 1e3),
    ("head_lr_factor", 0, 1e3),
    ("backbone_lr_factor", 0, 1e3),
    ("freeze_epochs", 0, 100_000),
    ("label_smoothing", 0, 0.999),
    ("mixup", 0, 100),
    ("cutmix", 0, 100),
    ("mixup_prob", 0, 1),
    ("mixup_off_epoch", 0, 100_000),
    ("hflip", 0, 1),
    ("random_erasing", 0, 1),
    ("drop_path", 0, 1),
    ("ema_decay", 0, 1),
    ("clip_grad", 1e-12, 1e12),
)

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    # The measurements are in docs/training.md, Fine-tuning.
    "finetune": {
        "epochs": 6,
        "warmup_epochs": 1,
        "backbone_lr_factor": 0.15,
        "se_lr_factor": 5.0,
        "norm_eval": True,
    },
    # Wightman, Touvron, Jégou, "ResNet strikes back", 2021, table 2, procedure A3.
    "imagenet-a3": {
        "epochs": 100,
        "batch_size": 2048,
        "optimizer": "lamb",
        "lr": 8e-3,
        "weight_decay": 0.02,
        "warmup_epochs": 5,
        "warmup_lr": 1.25e-4,
        "min_lr": 1.25e-4,
        "label_smoothing": 0.0,
        "loss": "bce",
        "mixup": 0.1,
        "cutmix": 1.0,
        "auto_augment": "rand-m6-mstd0.5-inc1",
        "crop": "random_resized",
        "precision": "auto",
        "channels_last": "auto",
    },
}
