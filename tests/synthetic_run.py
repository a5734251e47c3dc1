"""Writes run folders as a search would leave them, from a known truth: a ResNet-50 with per-stage effects."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from se_nas.report import ParetoReport
from se_nas.run import Manifest, rows_from_json

STAGES = ((0, 3, 256, 56), (1, 4, 512, 28), (2, 6, 1024, 14), (3, 3, 2048, 7))
EFFECT = (0.05, 0.15, 0.55, 0.45)  # points of accuracy when a whole stage has SE
LATENCY = (0.030, 0.015, 0.008, 0.005)  # added share of latency a site
BASE_ACCURACY, BASE_MS, BASE_PARAMS, BASE_MACS = 91.0, 6.1, 25_557_032, 4_111_512_576
SEED_SD = 0.2
START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def site_list():
    return [
        {
            "stage": stage,
            "block": block,
            "path": f"layer{stage + 1}.{block}.bn3",
            "channels": channels,
            "reduction_base": channels,
            "resolution": [resolution, resolution],
            "native": None,
            "native_rd_channels": None,
            "position": "standard",
            "rd_divisor": 8,
            "rd_round_limit": 0.0,
            "act": "relu",
        }
        for stage, blocks, channels, resolution in STAGES
        for block in range(blocks)
    ]


SITES = site_list()


def widths_of(reductions):
    """One γ or None a stage, or a mapping from (stage, block)."""
    return [
        0 if not (g := reductions[site["stage"]]) else max(8, site["channels"] // g // 8 * 8)
        for site in SITES
    ]


def true_accuracy(widths):
    gain = 0.0
    for stage, blocks, *_ in STAGES:
        gated = sum(w > 0 for s, w in zip(SITES, widths, strict=True) if s["stage"] == stage)
        gain += EFFECT[stage] * (gated / blocks) ** 0.7
    return BASE_ACCURACY + gain


def true_ratio(widths):
    return 1 + sum(
        LATENCY[s["stage"]] * (0.6 + 0.4 * w / s["channels"] * 8)
        for s, w in zip(SITES, widths, strict=True)
        if w
    )


CONDITIONS = {
    "batch_size": 1,
    "threads": 1,
    "precision": "float32",
    "channels_last": True,
    "repetitions": 60,
}


def manifest(name="synthetic", latency=CONDITIONS, baseline=BASE_MS, **changes):
    """``manifest.json`` of a run that measured latency under these conditions."""
    return {
        "schema": 2,
        "name": name,
        "created": START.isoformat(),
        "se_nas_version": "0.1.0",
        "command": f"se-nas search --backbone resnet50 --name {name}",
        "backbone": "resnet50",
        "timm_kwargs": {},
        "space": {"name": "per_block", "size": 16777216, "fingerprint": "f00d", "definition": {}},
        "sites": {"standard": SITES},
        "data": {
            "name": "fashion-mnist",
            "fingerprint": "abc123",
            "num_classes": 10,
            "class_names": [str(i) for i in range(10)],
            "num_train": 48000,
            "num_val": 12000,
            "num_test": 10000,
            "split_seed": 0,
            "skipped": [],
            "mean": [0.286, 0.286, 0.286],
            "std": [0.353, 0.353, 0.353],
        },
        "input_size": [3, 64, 64],
        "objectives": ["accuracy", "latency"],
        "device": {"type": "cpu", "name": "AMD EPYC 7B13"},
        "measured": {"latency": {"conditions": latency, "baseline": baseline}},
        "recipe": {
            "optimizer": "adamw",
            "lr": 0.002,
            "batch_size": 128,
            "epochs": 12,
            "label_smoothing": 0.1,
        },
        "budget": {"trials": 40, "seconds": None, "spent": 2400.0},
        "seed": 0,
        "versions": {"python": "3.11.9", "torch": "2.15.0", "timm": "1.0.31", "optuna": "5.0.0"},
        "status": "finished",
        "provisional": False,
        "stop_reason": "40 trials done",
        "warnings": [],
        **changes,
    }


def _curve(accuracy, epochs, planned, start):
    return [
        {
            "epoch": epoch + 1,
            "train_loss": round(2.2 * np.exp(-2.5 * (epoch + 1) / planned) + 0.2, 4),
            "val_loss": round(2.2 * np.exp(-2.3 * (epoch + 1) / planned) + 0.3, 4),
            "accuracy": round(accuracy - 25 * np.exp(-5 * (epoch + 1) / planned) + 25 * np.exp(-5), 3),
            "seconds": 4.0,
        }
        for epoch in range(epochs)
    ]


def key_of(widths):
    return hashlib.sha256(str(list(widths)).encode()).hexdigest()[:16]


def _row(number, widths, *, seed, phase, generator, clock, baseline=None, state="complete", measured=True):
    planned = 12
    epochs = {"complete": planned, "stopped": 4, "unfinished": 7, "diverged": 2}.get(state, 0)
    accuracy = float(true_accuracy(widths) + generator.normal(0, SEED_SD))
    ratio = true_ratio(widths)
    noise = float(generator.normal(0, 0.002 if measured else 0.006)) if any(widths) else 0.0
    trained = epochs > 0
    known = state == "complete"
    started = clock + timedelta(seconds=5)
    finished = started + timedelta(seconds=4.0 * epochs + 6)
    se = [(s["channels"], w) for s, w in zip(SITES, widths, strict=True) if w]
    return {
        "number": number,
        "key": key_of(widths),
        "description": "no SE" if not se else f"{len(se)} sites",
        "baseline": baseline,
        "position": "standard",
        "widths": list(widths),
        "params": {f"stage{i}": 16 for i in range(4)},
        "gate": "sigmoid",
        "act": None,
        "bias": True,
        "seed": seed,
        "phase": phase,
        "epochs": epochs,
        "epochs_planned": planned,
        "state": state,
        "accuracy": round(accuracy, 4) if known else None,
        "top5": 99.5 if known else None,
        "loss": round(0.9 - accuracy / 150, 4) if known else None,
        "train_loss": 0.21 if known else None,
        "ece": 0.021 if known else None,
        "test_accuracy": round(accuracy - 0.3 + generator.normal(0, 0.05), 4)
        if known and phase == "final"
        else None,
        "curve": _curve(accuracy, epochs, planned, started) if trained else [],
        "num_params": BASE_PARAMS + sum(2 * c * w + w + c for c, w in se),
        "macs": BASE_MACS + sum(2 * c * w for c, w in se),
        "activations": 11_000_000 + sum(c + w for c, w in se),
        "latency_ms": BASE_MS * (ratio + noise),
        "latency_ratio": ratio + noise,
        "latency_interval": [ratio + noise - 0.003, ratio + noise + 0.003] if measured else None,
        "latency_source": "measured" if measured else "predicted",
        "seconds": 4.0 * epochs + 6,
        "started": started.isoformat(),
        "finished": finished.isoformat(),
        "error": "out of memory" if state == "failed" else None,
    }


def rows_of(trials=40, seeds=3, seed=0, finalists=6):
    """``trials`` search rows (baselines first, one in four stopped), then ``seeds`` for each finalist."""
    generator = np.random.default_rng(seed)
    rows, seen, clock = [], set(), START
    fixed = [
        ("plain", widths_of([None] * 4)),
        ("all_se_16", widths_of([16] * 4)),
        ("last_stage", widths_of([None, None, None, 16])),
    ]
    while len(rows) < trials:
        number = len(rows)
        if number < len(fixed):
            baseline, widths = fixed[number]
        else:
            baseline = None
            reductions = generator.choice([4, 8, 16, 32], 4).tolist()
            present = generator.random(4)
            widths = [
                w if generator.random() < present[s["stage"]] else 0
                for s, w in zip(SITES, widths_of(reductions), strict=True)
            ]
        if tuple(widths) in seen:
            continue
        seen.add(tuple(widths))
        state = "complete"
        if baseline is None and number > 10:
            state = generator.choice(
                ["complete", "stopped", "unfinished", "diverged", "failed", "infeasible"],
                p=[0.70, 0.24, 0.01, 0.02, 0.02, 0.01],
            )
        row = _row(
            number,
            widths,
            seed=seed,
            phase="search",
            generator=generator,
            clock=clock,
            baseline=baseline,
            state=str(state),
            measured=baseline is not None,
        )
        clock = datetime.fromisoformat(row["finished"])
        rows.append(row)
    if seeds:
        complete = [row for row in rows if row["state"] == "complete"]
        ordered = sorted(
            complete, key=lambda row: row["accuracy"] - 8 * (row["latency_ratio"] - 1), reverse=True
        )
        chosen = [row for row in rows if row["baseline"]]
        chosen += [row for row in ordered if not row["baseline"]][:finalists]
        for repeat in range(1, seeds + 1):
            for row in chosen:
                final = _row(
                    len(rows),
                    row["widths"],
                    seed=1000 + repeat,
                    phase="final",
                    generator=generator,
                    clock=clock,
                    baseline=row["baseline"],
                )
                clock = datetime.fromisoformat(final["finished"])
                rows.append(final)
    return rows


def report_of(rows, config=None, **changes):
    """The report of such rows; ``changes`` go into the manifest."""
    return ParetoReport(
        manifest=Manifest.from_json(manifest(**changes)),
        rows=rows_from_json(list(rows), "rows"),
        config=config or {},
    )


def write_run(path, trials=40, seeds=3, seed=0, rows=None, **changes):
    """A run folder at ``path``; ``changes`` go into the manifest."""
    path = Path(path)
    path.mkdir(parents=True)
    content = manifest(**{"name": path.name, "seed": seed, "provisional": not seeds} | changes)
    (path / "manifest.json").write_text(json.dumps(content))
    (path / "config.json").write_text(json.dumps({"backbone": content["backbone"], "seed": seed}))
    (path / "trials.json").write_text(json.dumps(rows_of(trials, seeds, seed) if rows is None else rows))
    return path
