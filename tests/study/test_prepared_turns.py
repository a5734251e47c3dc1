"""What a worker of a shared study does before its turn, while all others go on, and what the turn makes of it."""

from itertools import count

import optuna
import pytest
from least_manifest import empty_run
from optuna.trial import TrialState
from test_suggestions import Constraints, plan_of
from test_whole_trials import DIRECTIONS

from se_nas.samplers.pareto_sampler import DUPLICATE
from se_nas.study import suggestions as module
from se_nas.study.attributes import OVER_LIMIT
from se_nas.study.database_errors import UnavailableError
from se_nas.study.server import CLOCK, SharedDatabase
from se_nas.study.shared_storage import SharedStore
from se_nas.study.shared_trials import SharedTrials
from se_nas.study.suggestions import Again, Suggestions

pytestmark = pytest.mark.cluster


class Worker:
    """One of those that share a study."""

    def __init__(self, folder, url, plan):
        database = SharedDatabase.connect(url, "one", DIRECTIONS)
        self.plan, self.store = plan, SharedStore(empty_run(folder), SharedTrials(database))
        self.suggestions = Suggestions(plan, self.store)

    @property
    def in_turn(self):
        return self.store._storage._database._turn is not None

    def prepare(self):
        self.store.look()
        self.suggestions.prepare()

    def take(self, failures=0):
        """What a turn claims that fails so often before."""
        errors = [UnavailableError("the server is away") for _ in range(failures)]

        def choose():
            found = self.suggestions.next()
            if errors:
                raise errors.pop()
            if isinstance(found, tuple):
                trial, architecture = found
                seed = self.suggestions.seed(architecture)
                self.store.describe(
                    trial.number, key=architecture.key, phase="search", seed=seed, state="running"
                )
            return found

        return self.store.turn(choose)

    def finish(self, trial, architecture):
        self.store.finish(
            trial.number, [float(trial.number), float(sum(architecture.widths))], state="complete"
        )


@pytest.fixture
def join(database_url, tmp_path, monkeypatch):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    workers, seeds, make = [], count(), module.pareto_sampler
    # Different for each worker, as in a search, and the same in every run of the test.
    monkeypatch.setattr(module, "pareto_sampler", lambda plan, *, seed: make(plan, seed=next(seeds)))
    monkeypatch.setattr(
        optuna.samplers.RandomSampler, "reseed_rng", lambda sampler: sampler._rng.rng.seed(next(seeds))
    )

    def joined(plan):
        workers.append(Worker(tmp_path / str(len(workers)), database_url, plan))
        if len(workers) == 1:
            store = workers[0].store
            store.turn(lambda: store.set_attributes(**{CLOCK: [0.0, 0.0]}))
        return workers[-1]

    yield joined
    for worker in workers:
        worker.store.close()


def stored(worker):
    """All trials as another worker reads them."""
    return worker.store._storage._database.trials()


def test_what_is_prepared_is_stored_in_the_turn_and_not_before(join):
    one, other = join(plan_of("pareto")), join(plan_of("pareto"))
    one.prepare()
    assert one.store.num_trials == 0
    assert stored(other) == []
    trial, architecture = one.take()
    [claimed] = stored(other)
    assert (claimed.number, claimed.state) == (trial.number, TrialState.RUNNING)
    assert one.plan.space.architecture(claimed.params).key == architecture.key
    assert claimed.system_attrs["se_nas:model"]["source"] == "initial"


def test_numbers_follow_those_that_others_have_taken_meanwhile(join):
    one, other = join(plan_of("random")), join(plan_of("random"))
    one.prepare()
    for _ in range(3):
        other.prepare()
        other.finish(*other.take())
    trial, _ = one.take()
    # At least: the draws may meet what was evaluated before, which is a trial too.
    assert trial.number >= 3
    assert [found.number for found in stored(other)] == list(range(trial.number + 1))


@pytest.mark.parametrize("quick", [True, False])
def test_of_two_that_have_prepared_the_same_one_looks_for_another(join, monkeypatch, quick):
    monkeypatch.setattr(module, "QUICK_SECONDS", 1e9 if quick else -1.0)
    # The cheapest point comes first, whatever the sampler draws.
    one, other = join(plan_of("pareto")), join(plan_of("pareto"))
    one.prepare()
    other.prepare()
    first, second = one.take(), other.take()
    assert isinstance(second, Again) != quick
    if not quick:
        other.prepare()
        second = other.take()
    assert first[1].key != second[1].key
    assert [trial.number for trial in stored(one)] == [0, 1]


def test_workers_that_take_turns_evaluate_everything_once(join):
    workers = [join(plan_of("random")) for _ in range(3)]
    keys = []
    while True:
        for worker in workers:
            worker.prepare()
        found = [worker.take() for worker in workers]
        for worker, chosen in zip(workers, found, strict=True):
            if isinstance(chosen, tuple):
                keys.append(chosen[1].key)
                worker.finish(*chosen)
        if None in found:
            break
    assert len(keys) == len(set(keys)) == 16
    # What the sampler drew again has the values of the first.
    workers[0].store.refresh()
    told = {}
    for trial in workers[0].store.trials():
        key = trial.user_attrs.get(DUPLICATE) or workers[0].store.row(trial.number)["key"]
        if trial.values is not None:
            assert told.setdefault(key, trial.values) == trial.values


def test_of_two_that_have_prepared_the_same_queued_trial_one_gets_it(join, monkeypatch):
    monkeypatch.setattr(module, "QUICK_SECONDS", -1.0)
    one, other = join(plan_of("random")), join(plan_of("random"))
    architecture = next(iter(one.plan.space.enumerate()))
    one.store.turn(lambda: one.store.enqueue(one.plan.space.params(architecture), architecture))
    one.prepare()
    other.prepare()
    trial, taken = one.take()
    assert (trial.number, taken.key) == (0, architecture.key)
    assert isinstance(other.take(), Again)
    assert [found.state for found in stored(one)] == [TrialState.RUNNING]


class Measured(Constraints):
    """Limits that take the device, which nobody may wait for."""

    measured = True

    def __init__(self, most):
        super().__init__(most)
        self.worker, self.asked = None, 0

    def excess(self, architecture):
        assert not self.worker.in_turn
        self.asked += 1
        return super().excess(architecture)


def test_nothing_is_measured_in_a_turn(join):
    workers = [join(plan_of("random", Measured(40))) for _ in range(2)]
    for worker in workers:
        worker.plan.constraints.worker = worker
    keys, ended = [], False
    while not ended:
        for worker in workers:
            worker.prepare()
        for worker in workers:
            found = worker.take()
            ended |= found is None
            if isinstance(found, tuple):
                keys.append(found[1].key)
                worker.finish(*found)
    allowed = [arch.key for arch in workers[0].plan.space.enumerate() if sum(arch.widths) <= 40]
    assert sorted(keys) == sorted(allowed)
    over = [trial for trial in stored(workers[0]) if trial.user_attrs.get(OVER_LIMIT)]
    assert over
    assert {trial.state for trial in over} == {TrialState.PRUNED}


def test_nothing_is_measured_in_a_turn_that_has_to_be_taken_again(join, monkeypatch):
    worker = join(plan_of("random", Measured(10**9)))
    worker.plan.constraints.worker = worker
    monkeypatch.setattr(worker.store._storage, "wait", lambda error: None)
    worker.prepare()
    trial, architecture = worker.take(failures=2)
    assert worker.plan.constraints.asked == 1
    [claimed] = stored(worker)
    assert claimed.number == trial.number
    assert worker.plan.space.architecture(claimed.params).key == architecture.key
