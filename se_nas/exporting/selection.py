"""Export of a pick from a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from se_nas.architecture import Architecture, freeze_kwargs
from se_nas.arguments import checked
from se_nas.checkpoints.sealed import load_sealed
from se_nas.errors import RunError
from se_nas.exporting.package import Exported, check_request, export_model
from se_nas.report import ParetoReport, Run
from se_nas.report.candidates import Candidate
from se_nas.report.picks import pick as pick_from
from se_nas.run import CHECKPOINTS, Manifest, TrialRow
from se_nas.training.checkpoint import WEIGHTS, checkpoint_path

if TYPE_CHECKING:
    from se_nas.exporting.hub import Repository


@checked
def export(
    run: Run | str | Path,
    pick: str | int = "best",
    out: str | Path | None = None,
    *,
    format: str | Sequence[str] = "timm",
    standalone: bool = False,
    force: bool = False,
    push_to_hub: str | None = None,
) -> Exported:
    """Write a candidate of a run, with its trained weights, to a folder that other programs load.

    Args:
        run: a run folder, or what ``search`` and ``open_run`` return.
        pick: "best", "knee", "one-se", "under:BUDGET", a trial's number or the beginning of a key.
        out: the folder to write, which must not exist, or be empty; None is ``<run>/export/<key>``.
        format: one of ``se_nas.exporting.package.FORMATS``, or several.
        standalone: also write ``model.py``, which needs only torch and timm.
        force: replace an earlier export.
        push_to_hub: a repository of the Hugging Face hub, ``OWNER/NAME``, that gets the folder as a commit, for
            ``timm.create_model("hf-hub:OWNER/NAME")``; made if there is none. The token is ``HF_TOKEN``, or that of
            ``hf auth login``.

    Raises:
        RunError: there is no run, nothing to pick, or the weights of the pick were not kept.
        ConfigError: the format is unknown, the folder is taken, or there is no token.
        SeNasError: the hub refuses, or does not answer; if that is known beforehand, nothing has been written.
    """
    folder = run.path if isinstance(run, Run) else Path(run)
    report = ParetoReport.from_run(folder)
    chosen = pick_from(report, pick)
    candidate = chosen.candidate
    number, weights = kept_weights(report, candidate)
    manifest = report.manifest
    formats = [format] if isinstance(format, str) else list(format)
    reading = next(row for row in candidate.readings if row.number == number)
    metadata = {
        "num_classes": manifest.data.num_classes,
        "input_size": list(manifest.input_size),
        "mean": list(manifest.data.mean),
        "std": list(manifest.data.std),
        "class_names": list(manifest.data.class_names),
        "name": f"{manifest.backbone} with SE, from {report.name}",
        "reason": chosen.reason,
        "run": report.name,
        "manifest": manifest,
        "row": replace(reading, costs=candidate.costs),
        "accuracy_interval": candidate.accuracy_interval,
        "interval_basis": report.basis,
        "seeds": sorted({r.seed for r in candidate.readings if r.complete and r.seed is not None}),
    }
    out = Path(out) if out is not None else folder / "export" / candidate.key
    formats = [*formats, "standalone"] if standalone and "standalone" not in formats else formats
    check_request(out, formats, force)
    repository = None if push_to_hub is None else _repository(push_to_hub)
    if repository is not None:
        metadata["repo"] = repository.name
    exported = export_model(
        architecture_of(candidate, manifest), weights, out, metadata=metadata, formats=formats, force=force
    )
    return exported if repository is None else replace(exported, url=repository.upload(exported.path))


def _repository(name: str) -> Repository:
    # Its import takes longer than an export that stays here should.
    from se_nas.exporting.hub import Repository

    return Repository(name)


def architecture_of(candidate: Candidate | TrialRow, manifest: Manifest) -> Architecture:
    """The architecture of a candidate, or of a row of ``trials.json``, of the run with this manifest.

    Raises:
        RunError: the manifest lacks the sites of the candidate's position, or does not fit the candidate.
    """
    position = candidate.position or ""
    if position not in manifest.sites:
        raise RunError(f"the run's manifest has no sites at position {candidate.position!r}.")
    architecture = Architecture(
        backbone=manifest.backbone,
        timm_kwargs=freeze_kwargs(manifest.timm_kwargs),
        position=position,
        sites=manifest.sites[position],
        widths=candidate.widths,
        gate=candidate.gate or "sigmoid",
        act=candidate.act,
        bias=True if candidate.bias is None else candidate.bias,
    )
    if architecture.key != candidate.key:
        raise RunError(
            f"candidate {candidate.key} comes out as {architecture.key}: table and manifest disagree."
        )
    return architecture


def kept_weights(report: ParetoReport, candidate: Candidate) -> tuple[int, dict[str, Any]]:
    """Trial number and weights of the candidate's best training that was kept; final trainings first.

    Args:
        report: of a run folder.

    Raises:
        RunError: none were kept (the message says whose were), or they cannot be read.
        CheckpointError: they are damaged.
    """
    folder = Path(report.source or "")
    counted = {reading.number for reading in candidate.counted}
    readings = sorted(
        (reading for reading in candidate.readings if reading.complete),
        key=lambda reading: (reading.number in counted, reading.accuracy or 0.0),
        reverse=True,
    )
    for reading in readings:
        if reading.seed is None:
            continue
        path = checkpoint_path(folder / CHECKPOINTS, candidate.key, reading.seed)
        if path.is_file():
            try:
                return reading.number, load_sealed(path)
            except (OSError, SafetensorError) as error:
                raise RunError(f"the weights {path} cannot be read: {error}.") from error
    stems = {path.name.rpartition("-s")[0] for path in (folder / CHECKPOINTS).glob(f"*{WEIGHTS}")}
    kept = [f"{member.number} ({member.key})" for member in report.candidates if member.key in stems]
    others = f"Kept: trials {', '.join(kept[:8])}." if kept else "Nothing is kept there."
    raise RunError(f"no weights of {candidate.key} were kept in {folder / CHECKPOINTS}. {others}")
