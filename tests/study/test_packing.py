"""How many candidates train at a time, decided for a simulated GPU."""

import json
from types import SimpleNamespace

import pytest
from small_cases import SEARCH

from se_nas.errors import ConfigError
from se_nas.space import SearchSpace
from se_nas.study import packing as module
from se_nas.study import schedule as scheduling
from se_nas.study.baselines import baselines
from se_nas.study.config import SearchConfig
from se_nas.study.executors import Inline, Packed, ProcessPool, make_executor
from se_nas.study.packing import Packing, capacities, decide_packing
from se_nas.study.plan import resolve
from se_nas.study.schedule import for_device, recipe_of
from se_nas.training import CompileChoice, Context, Recipe, Runtime, StepTime


@pytest.fixture(scope="module")
def space():
    return SearchSpace.load("per_block", backbone="test_resnet")


@pytest.fixture
def decide(space, monkeypatch):
    """Decides for test_resnet with 64 images, batches of 32, 10 epochs, as if on CUDA devices."""

    def make(devices=("cuda:0",), rates=None, built=0.01, graphs=True, recipe=None, **changes):
        asked = []

        def measured(make_place, architecture, context, *, sizes):
            asked.append(tuple(sizes))
            assert context.runtime.graphs
            if not graphs:
                context.runtime.graphs, context.runtime.graphs_error = False, "it waits for the device"
            return {size: rate for size, rate in (rates or {1: 6400.0}).items() if size in sizes}

        monkeypatch.setattr(module, "measure_rates", measured)
        config = SearchConfig(**{**SEARCH, "objectives": "accuracy,params", **changes})
        data = SimpleNamespace(train=range(64), num_classes=10)
        recipe = recipe or Recipe(epochs=10, batch_size=32)
        context = Context(data=data, recipe=recipe, runtime=Runtime(device="cpu"))
        time = StepTime(step=built, validation=0.0, steps=2, preparation=1.0)
        found = decide_packing(
            config, space, baselines(space), None, context, devices, lambda text: None, lambda *_: time
        )
        return found, asked

    return make


def test_as_many_as_pay_on_every_device(decide):
    found, asked = decide(devices=("cuda:0", "cuda:1"), rates={1: 6400.0, 2: 12000.0, 4: 12100.0})
    assert (found.places, found.at_a_time, found.packed, found.masked) == (2, 4, True, True)
    assert asked == [(1, 2, 4, 8, 16)]
    assert "1: 6,400, 2: 12,000, 4: 12,100" in found.reason
    assert Packing.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_number_that_the_user_asks_for(decide):
    found, asked = decide(per_gpu=6)
    assert (found.places, asked) == (6, [(1,)])


def test_large_images_build_each_network_anew(decide):
    """20 steps: 32 images at 6,400 a second take 5 ms, 0.1 s in all; 4.9 ms each and 1 s of capture built."""
    found, _ = decide(built=0.0049)
    assert found.masked
    # Hours of training: 200,000 steps take 1000 s masked and 981 s built.
    found, _ = decide(built=0.0049, recipe=Recipe(epochs=100_000, batch_size=32))
    assert not found.masked
    assert "each rebuilt: a training takes 1000.0 s of steps with masked gates, 981.0 s" in found.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer": "golden_trainer:train"}, "only the built-in training loop"),
        ({"devices": ("cpu",)}, "packed on a GPU"),
    ],
)
def test_what_cannot_be_packed_says_why(decide, changes, words):
    found, asked = decide(per_gpu=3, **changes)
    assert not found.packed
    assert (found.places, asked) == (3, [])
    assert words in found.reason


def test_a_network_that_cannot_be_captured_is_not_packed(decide):
    found, _ = decide(per_gpu=3, graphs=False)
    assert (found.packed, found.places) == (False, 3)
    assert "cannot be CUDA graphs: it waits for the device" in found.reason


def test_an_optimiser_that_padding_would_change_trains_built_networks(decide):
    found, asked = decide(recipe=Recipe(epochs=10, batch_size=32, optimizer="muon"))
    assert (found.packed, found.masked, asked) == (True, False, [])


def test_a_network_for_every_position_and_all_baselines():
    space = SearchSpace.load("per_stage", backbone="test_resnet", position=["standard", "post"])
    found = baselines(space)
    rooms = capacities(space, list(found.values()))
    assert len(rooms) == 2
    assert all(rooms[0].holds(architecture) for architecture in found.values())
    for architecture in space.enumerate():
        assert sum(room.holds(architecture) for room in rooms) >= 1


def test_a_cpu_trains_one_at_a_time_and_the_executor_follows(tmp_path):
    def planned(**changes):
        given = {**SEARCH, "objectives": "accuracy,params", "runs": str(tmp_path), **changes}
        return resolve(SearchConfig(**given))

    plan = planned()
    assert (plan.packing.places, plan.packing.packed) == (1, False)
    setup = plan.setup(SimpleNamespace(path=tmp_path, checkpoints=tmp_path))
    assert isinstance(make_executor(setup, plan.packing, [], print), Inline)
    assert isinstance(make_executor(setup, planned(per_gpu=2).packing, [], print), ProcessPool)
    packed = Packing(places=2, devices=("cpu",), packed=True, masked=True, reason="")
    made = make_executor(setup, packed, capacities(plan.space, list(plan.baselines.values())), print)
    assert isinstance(made, Packed)
    assert made.capacity == 2
    ended = planned(candidate_timeout="10m")
    setup = ended.setup(SimpleNamespace(path=tmp_path, checkpoints=tmp_path))
    for packing in (ended.packing, packed):
        made = make_executor(setup, packing, [], print)
        assert isinstance(made, ProcessPool)
        assert made.capacity == packing.at_a_time


@pytest.mark.parametrize("masked", [True, False])
def test_actors_have_masked_networks_if_the_packing_has_them(monkeypatch, masked):
    executor = pytest.importorskip("se_nas.study.executors.ray")
    monkeypatch.setattr(executor, "RayExecutor", lambda setup, packing, rooms, say: rooms)
    setup = SimpleNamespace(config=SimpleNamespace(on_ray=True))
    packing = Packing(places=2, devices=("cuda:0",), packed=True, masked=masked, reason="")
    assert list(make_executor(setup, packing, ["a room"], print)) == (["a room"] if masked else [])


def test_actors_train_one_candidate_each_or_a_pack_on_one_device():
    packed = Packing(places=8, devices=("cuda:0", "cuda:1"), packed=True, masked=True, reason="")
    assert (packed.num_devices, packed.at_a_time) == (2, 16)
    on_ray = packed.trained_by(5)
    assert (on_ray.devices, on_ray.num_devices, on_ray.at_a_time) == (("cuda:0",), 5, 40)
    assert Packing.from_dict(json.loads(json.dumps(on_ray.to_dict()))) == on_ray
    processes = Packing(places=4, devices=("cpu",), packed=False, masked=False, reason="")
    assert processes.trained_by(5).at_a_time == 5
    assert processes.trained_by(5).trained_by(None).num_devices == 1
    assert processes.trained_by(None) == processes


def test_the_batch_of_a_gpu_is_larger_where_the_images_last():
    config = SearchConfig(backbone="resnet18")
    recipe = recipe_of(config)
    on_gpu = for_device(recipe, config, "cuda:0", 9000)
    assert (on_gpu.batch_size, on_gpu.lr) == (128, 2 * recipe.lr)
    assert for_device(recipe, config, "cuda:0", 1000) == recipe
    assert for_device(recipe, config, "cpu", 9000) == recipe
    asked = SearchConfig(backbone="resnet18", batch_size=64)
    assert for_device(recipe_of(asked), asked, "cuda:0", 9000).batch_size == 64


@pytest.mark.parametrize("value", [0, -1, 65])
def test_numbers_of_candidates_that_are_not_allowed(value):
    with pytest.raises(ConfigError, match=f"per_gpu is {value}"):
        SearchConfig(backbone="resnet18", per_gpu=value)


@pytest.mark.parametrize("packed", [True, False])
def test_the_built_network_is_timed_once(space, monkeypatch, packed):
    timed = []

    def measure(model, context):
        timed.append(context.runtime.graphs)
        return StepTime(step=0.01, validation=0.0, steps=2, preparation=1.0)

    def decide(config, space, baselines, model, context, devices, say, measure_built):
        if packed:
            measure_built(model, context)
        return Packing(places=2, devices=("cuda:0",), packed=packed, masked=True, reason="")

    monkeypatch.setattr(scheduling, "measure_step_time", measure)
    monkeypatch.setattr(scheduling, "decide_packing", decide)
    monkeypatch.setattr(scheduling, "_compile", lambda *_: CompileChoice(compile=False, reason="off"))
    config = SearchConfig(**{**SEARCH, "objectives": "accuracy,params", "epochs": None, "budget": "10m"})
    data, said = SimpleNamespace(train=range(64), num_classes=10), []
    found = scheduling.schedule(
        config=config,
        recipe=Recipe(epochs=10, batch_size=32),
        runtime=Runtime(device="cpu"),
        model=None,
        data=data,
        space=space,
        baselines=baselines(space),
        devices=["cuda:0"],
        actors=None,
        say=said.append,
        spent=lambda: 0.0,
    )
    assert len(timed) == 1
    assert found.epoch_seconds == pytest.approx(0.02)
    assert bool(said) != packed
