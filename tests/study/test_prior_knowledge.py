"""Runs of other backbones, data or schedules as prior knowledge of where SE pays."""

import pickle
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

import se_nas
from se_nas.errors import ConfigError, RunError
from se_nas.run import MANIFEST, Earlier, RunFolder, read_json, write_json
from se_nas.sites import Site
from se_nas.study import resume, search, session, suggestions
from se_nas.study.plan import resolve
from se_nas.study.site_effects import DEPTHS, LOG_RATIOS, Reading, SiteEffects, site_effects
from se_nas.study.warm_start import priors


def sites(count, channels=256):
    return tuple(
        Site(
            stage=4 * i // count, block=i, path=f"block{i}", channels=channels, reduction_base=channels,
            resolution=(8, 8), rd_divisor=1,
        )
        for i in range(count)
    )  # fmt: skip


def accuracy(places, widths):
    """Blocks pay more the later they are, and the narrower they are the less."""
    last = len(places) - 1
    return 70 + sum(
        (i / last - 0.3) * (1 - 0.1 * np.log2(place.reduction_base / width))
        for i, (place, width) in enumerate(zip(places, widths, strict=True))
        if width
    )


def readings(places, choices, count, noise, seed=0):
    rng = np.random.default_rng(seed)
    drawn = [tuple(int(w) for w in rng.choice(choices, len(places))) for _ in range(count)]
    return [
        Reading(sites=places, widths=w, accuracy=accuracy(places, w) + noise * rng.standard_normal())
        for w in drawn
    ]


def test_effects_of_one_backbone_hold_for_another():
    found = site_effects(readings(sites(8), (0, 16, 64), 60, 0.2))
    other = sites(15, 512)
    widths = np.random.default_rng(1).choice((0, 32, 128), (200, 15))
    truth = [accuracy(other, row) for row in widths]
    assert np.corrcoef(found.of(other, widths), truth)[0, 1] > 0.95
    assert found.explained > 0.7
    # A single block, at its depth and with its γ.
    assert found.of(other, np.eye(15, dtype=int)[[14]] * 32)[0] == pytest.approx(0.7 * 0.6, abs=0.15)
    assert found.of(other, np.zeros((1, 15), dtype=int)).tolist() == [0.0]


def test_noise_is_not_believed():
    rng = np.random.default_rng(0)
    noise = [replace(one, accuracy=70 + rng.standard_normal()) for one in readings(sites(8), (0, 16), 80, 0)]
    found = site_effects(noise)
    assert found.explained < 0.2
    assert np.abs(found.table).max() < 0.2


def test_networks_that_do_not_differ_in_se_say_nothing():
    same = Reading(sites=sites(4), widths=(0, 16, 0, 16), accuracy=70.0)
    assert site_effects([same, replace(same, accuracy=71.0)]) is None


def test_a_gate_without_a_bottleneck_counts_as_the_widest():
    found = site_effects(readings(sites(8), (0, 16, 256), 60, 0.1))
    place = sites(2)
    kept, widest = found.of(place, np.array([[0, -1], [0, 256]]))
    assert kept == pytest.approx(widest)
    assert kept > 0


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """Trainers by which SE in the last stage, or in the first, brings 2 points and SE elsewhere nothing."""
    folder = tmp_path_factory.mktemp("trainers")
    for name, layer in (("late", 4), ("early", 1)):
        (folder / f"{name}_pays.py").write_text(
            textwrap.dedent(
                f"""
                import zlib
                import numpy as np

                def train(model, context):
                    names = [name for name, _ in model.named_parameters()]
                    rng = np.random.default_rng([context.seed, zlib.crc32(context.name.encode())])
                    pays = any("layer{layer}." in name and ".se." in name for name in names)
                    value = 70 + 2 * pays + 0.05 * rng.standard_normal()
                    for epoch in range(context.recipe.epochs):
                        context.report(epoch + 1, accuracy=float(value))
                    return {{"accuracy": float(value)}}
                """
            )
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    for name in ("late_pays", "early_pays"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def configured(tmp_path_factory, trainers):
    runs = tmp_path_factory.mktemp("runs")

    def make(name, pays="late", **settings):
        return se_nas.SearchConfig(
            **{
                "backbone": "test_resnet", "space": "per_stage", "objectives": "accuracy,params", "epochs": 1,
                "device": "cpu", "trainer": f"{pays}_pays:train", "final_seeds": 0, "name": name,
                "runs": str(runs), **settings,
            }
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def before(configured):
    return search(configured("before", trials=10))


@pytest.fixture(scope="module")
def right(configured, before):
    """A run with another schedule that began with what is right."""
    return search(configured("right", trials=9, epochs=2, warm_start=before.path))


def test_a_right_run_is_trusted(configured, before, right):
    plan = resolve(
        configured("planned", trials=2, backbone="resnet18", warm_start=before.path), measure=False
    )
    assert plan.notes[-1].startswith(
        "before serves as prior knowledge of where SE pays, by depth and width (it differs in: backbone): 10 trainings"
    )
    (earlier,) = RunFolder.open(right.path).manifest.earlier
    assert (earlier.run, earlier.differs, earlier.trainings) == (str(before.path), ("recipe",), 10)
    assert earlier.explained > 0.8
    assert earlier.trust > 0.5
    assert (
        "The sampler began with what 10 trainings of before say" in (right.path / "report.html").read_text()
    )


def test_a_wrong_run_is_not_trusted_and_runs_are_judged_one_by_one(configured, before):
    other = search(configured("other", pays="early", trials=10))
    both = [str(before.path), str(other.path)]
    run = search(configured("wrong", pays="early", trials=10, epochs=2, warm_start=both))
    wrong, fitting = RunFolder.open(run.path).manifest.earlier
    assert (wrong.differs, fitting.differs) == (("trainer", "recipe"), ("recipe",))
    assert wrong.trust < 0.3
    assert fitting.trust > wrong.trust + 0.3


def test_what_an_earlier_run_said_is_kept_in_the_run(configured, before, right, tmp_path):
    begun = search(configured("begun", trials=6, epochs=2, warm_start=before.path))
    # It is not asked for again, so it may be gone.
    before.path.rename(tmp_path / "gone")
    try:
        rest = resume(begun.path, trials=9)
    finally:
        (tmp_path / "gone").rename(before.path)
    columns = ["key", "accuracy"]
    assert rest.to_dataframe()[columns].equals(right.to_dataframe()[columns])
    manifest = read_json(rest.path / MANIFEST)
    assert len(manifest["earlier"][0]["effects"]) == DEPTHS.size
    manifest["earlier"][0]["effects"] = [[1.0, 2.0]]
    write_json(rest.path / MANIFEST, manifest)
    with pytest.raises(RunError, match=r"the effects of an earlier run must be 16 rows of 7 numbers"):
        resume(rest.path, trials=10)


def test_workers_elsewhere_suggest_by_what_an_earlier_run_said(
    configured, before, database_url, tmp_path, monkeypatch
):
    config = configured("shared", trials=9, epochs=2, warm_start=before.path, storage=database_url)
    with monkeypatch.context() as patch:
        # Whoever begins the study is gone before it suggests anything.
        patch.setattr(session, "_carry_out", lambda plan, folder, progress: None)
        search(config)
    sampler, given = suggestions.ParetoSampler, []
    monkeypatch.setattr(
        suggestions,
        "ParetoSampler",
        lambda **options: (given.append(len(options["prior"] or ())), sampler(**options))[1],
    )
    # The earlier run is not on the worker's machine.
    before.path.rename(tmp_path / "elsewhere")
    try:
        run = session.work(database_url, "shared", runs=str(tmp_path / "runs"))
    finally:
        (tmp_path / "elsewhere").rename(before.path)
    assert given
    assert set(given) == {1}
    assert len(run.to_dataframe()) >= 9
    (earlier,) = RunFolder.open(run.path).manifest.earlier
    assert earlier.trust > 0.3


def test_an_earlier_run_that_tells_nothing_is_refused(configured, before):
    changed = {"backbone": "resnet18", "warm_start": str(before.path), "trials": 2}
    manifest = read_json(before.path / MANIFEST)
    sites = manifest["sites"]["standard"]
    try:
        write_json(before.path / MANIFEST, {**manifest, "sites": {"standard": sites[:3]}})
        with pytest.raises(RunError, match="is damaged: trial 0 has 4 widths for 3 sites"):
            resolve(configured("later", **changed), measure=False)
        write_json(before.path / MANIFEST, {**manifest, "earlier": 3})
        with pytest.raises(RunError, match=r"manifest\.json is damaged: .*earlier"):
            resolve(configured("later", **changed), measure=False)
    finally:
        write_json(before.path / MANIFEST, manifest)
    with pytest.raises(ConfigError, match="'x' is named twice"):
        configured("later", warm_start=["x", "x"])
    with pytest.raises(ConfigError, match=r"warm_start.* an empty one is often a shell variable"):
        configured("later", warm_start=["x", " "])


def test_an_estimate_for_every_run_that_serves_as_prior_knowledge():
    space = se_nas.SearchSpace.load("per_stage", backbone="resnet18")
    table = np.outer(DEPTHS, np.ones(LOG_RATIOS.size))
    known = Earlier(run="a", differs=("data",), effects=tuple(map(tuple, table.tolist())), explained=0.5)
    (estimate,) = priors(space, [Earlier(run="b", trainings=3), known])
    architecture = se_nas.Architecture.uniform("resnet18", reduction={3: 16})
    effects = SiteEffects.from_table(table.tolist(), 0.5)
    expected = effects.of(architecture.sites, np.array([architecture.widths]))[0]
    # The last two of eight sites, at depths of 6/7 and 1.
    assert expected == pytest.approx(6 / 7 + 1)
    assert estimate(space.params(architecture)) == pytest.approx(expected)
    # A pack's sampler works in another process.
    assert pickle.loads(pickle.dumps(estimate))(space.params(architecture)) == pytest.approx(expected)
