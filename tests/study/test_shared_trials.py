"""A study on a real PostgreSQL server that several workers write: turns, claims, signs of life, a server that goes."""

import itertools
import threading
import time
from contextlib import ExitStack, contextmanager

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from least_manifest import empty_run
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool
from test_whole_trials import DIRECTIONS, check_against_optuna, facts, trials

from se_nas.errors import RunError
from se_nas.run import Manifest
from se_nas.study import peers
from se_nas.study import server as module
from se_nas.study.attributes import ROW
from se_nas.study.database_errors import NoStudyError, TakenOverError, UnavailableError
from se_nas.study.server import CLOCK, WORKER, SharedDatabase
from se_nas.study.shared_storage import SharedStore
from se_nas.study.shared_trials import SharedTrials

pytestmark = pytest.mark.cluster
STUDY = "one"
CONFIG, MANIFEST = peers._CONFIG, peers._MANIFEST


@pytest.fixture
def join(database_url, tmp_path):
    """Makes one more worker, with its view of the study as rows."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stores = []

    def joined():
        storage = SharedTrials(SharedDatabase.connect(database_url, STUDY, DIRECTIONS))
        store = SharedStore(empty_run(tmp_path / str(len(stores))), storage)
        store.study.sampler = optuna.samplers.RandomSampler(seed=0)
        stores.append(store)
        return store

    first = joined()
    first.turn(lambda: first.set_attributes(**{CLOCK: [0.0, 0.0]}))
    yield joined
    for store in stores:
        store.close()


def claim(store, phase="search"):
    """The number of a new trial that a worker has claimed; a point that nobody has."""

    def choose():
        seen = {trial.params["a"] for trial in store.trials() if "a" in trial.params}
        while True:
            trial = store.ask()
            value = trial.suggest_categorical("a", tuple(range(12)))
            if value not in seen:
                store.describe(trial.number, key=f"k{value}", phase=phase, seed=0, state="running")
                return trial.number
            store.tell(trial.number, None, stopped=True)

    return store.turn(choose)


def age(postgres, url, seconds):
    """Let the signs of life of all trials be older."""
    postgres.sql(
        f"UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '{seconds} seconds'",
        url.rpartition("/")[2],
    )


def states(store):
    store.refresh()
    return [(trial.state, trial.values) for trial in store.trials()]


class Nobodys(SharedTrials):
    """Makes trials in turns, and as Optuna has them: without a worker."""

    def create_new_trial(self, study_id, template_trial=None):
        with self.turn():
            number = super().create_new_trial(study_id, template_trial)
            self._held.discard(number)
            self._set(self.get_trial(number))
        return number

    def release(self, trial_id):
        pass


names = itertools.count()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(trials(), min_size=1, max_size=4))
def test_optuna_reads_what_was_written_and_the_reverse(database_url, made):
    number, optunas = next(names), RDBStorage(database_url, {"poolclass": NullPool})
    with ExitStack() as stack:

        def opened(at):
            found = Nobodys(SharedDatabase.connect(database_url, at["study_name"], DIRECTIONS))
            stack.callback(found.close)
            return found

        studies = ({"study_name": f"{name} {number}", "storage": optunas} for name in ("ours", "theirs"))
        check_against_optuna(made, opened, *studies)


def test_workers_that_ask_at_the_same_instant_claim_different_points(join):
    stores, claimed = [join() for _ in range(4)], []

    def work(store):
        for _ in range(3):
            claimed.append(claim(store))

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [store, *_] = stores
    store.refresh()
    running = [trial for trial in store.trials() if trial.state == TrialState.RUNNING]
    assert sorted(claimed) == [trial.number for trial in running]
    assert {trial.params["a"] for trial in running} == set(range(12))
    assert [trial.number for trial in store.trials()] == list(range(store.num_trials))


def test_a_turn_excludes_every_other_and_is_stored_as_a_whole(join):
    one, other = join(), join()
    entered, order = threading.Event(), []

    def later():
        entered.wait()
        other.turn(lambda: order.append(("other", other.num_trials)))

    thread = threading.Thread(target=later)
    thread.start()

    def choose():
        one.study.enqueue_trial({"a": 1})
        entered.set()
        time.sleep(0.3)
        assert order == []
        one.study.enqueue_trial({"a": 2})
        order.append(("one", one.num_trials))

    one.turn(choose)
    thread.join()
    assert order == [("one", 2), ("other", 2)]


def test_a_trial_belongs_to_one_worker_until_that_is_silent_for_too_long(join, postgres, database_url):
    one, other = join(), join()
    number = claim(one)
    assert other.turn(other.abandoned) is None
    assert other.elsewhere("search") == 1
    assert other.turn(other.others_at_work)
    age(postgres, database_url, module.GRACE - 30)
    assert other.turn(other.abandoned) is None
    # An epoch is a sign of life, and so is a sign.
    one.record(number, epochs=1)
    age(postgres, database_url, module.GRACE - 30)
    one.give_sign()
    age(postgres, database_url, 60)
    assert other.turn(other.abandoned) is None
    age(postgres, database_url, module.GRACE)
    assert not other.turn(other.others_at_work)
    assert other.turn(other.abandoned).number == number
    assert other.turn(other.abandoned) is None
    with pytest.raises(TakenOverError, match=f"trial {number} belongs to another worker now"):
        one.record(number, epochs=2)
    assert one.turn(lambda: one.elsewhere()) == 1
    assert one.turn(one.abandoned) is None
    other.finish(number, [60.0, 1.0], state="complete")
    assert states(one) == states(other) == [(TrialState.COMPLETE, [60.0, 1.0])]


def test_the_first_outcome_of_a_trial_is_kept_even_of_a_worker_that_was_declared_dead(
    join, postgres, database_url
):
    one, other = join(), join()
    number = claim(one)
    age(postgres, database_url, module.GRACE)
    assert other.turn(other.abandoned).number == number
    one.finish(number, [61.0, 1.0], state="complete")
    with pytest.raises(TakenOverError):
        other.record(number, epochs=1)
    with pytest.raises(TakenOverError):
        other.finish(number, [62.0, 1.0], state="complete")
    assert states(other) == states(one) == [(TrialState.COMPLETE, [61.0, 1.0])]
    assert other.rows() == one.rows()
    assert one.trials()[number].system_attrs[WORKER] == one._storage._database.worker
    # Each goes on with another trial.
    assert claim(one) != claim(other)


def test_what_is_left_is_taken_over_at_once(join):
    one, other = join(), join()
    number = claim(one)
    one.leave(number, state="unfinished")
    found = other.turn(other.abandoned)
    assert (found.number, found.user_attrs[ROW]["state"]) == (number, "unfinished")
    with pytest.raises(TakenOverError):
        one.record(number, epochs=1)
    other.leave_all()
    assert one.turn(one.abandoned).number == number


def test_a_turn_reads_what_is_new_and_leaves_epochs_to_a_look(join, monkeypatch):
    one, other = join(), join()
    oldest = claim(other)
    for _ in range(3):
        other.finish(claim(other), [60.0, 1.0], state="complete")
    one.refresh()
    read, database = [], one._storage._database

    def reading(*given):
        found = list(SharedDatabase._read(database, *given))
        read.append([trial.number for trial in found])
        return iter(found)

    monkeypatch.setattr(database, "_read", reading)
    one.refresh()
    assert read == []
    other.record(oldest, epochs=1)
    newest = claim(other)
    one.refresh()
    assert read == [[newest]]
    other.finish(newest, [61.0, 1.0], state="complete")
    one.refresh()
    one.refresh()
    assert read == [[newest], [newest]]
    params = one.trials()[oldest].params
    one.look()
    assert read == [[newest], [newest], [oldest]]
    assert one.trials()[oldest].user_attrs[ROW]["epochs"] == 1
    assert one.trials()[oldest].params is params
    assert one.rows() == other.rows()


def test_a_sign_of_life_is_not_news(join, monkeypatch):
    one, other = join(), join()
    claim(other)
    one.look()
    monkeypatch.setattr(one._storage._database, "_read", lambda *given: pytest.fail("read a trial again"))
    other.give_sign()
    one.look()
    one.refresh()


def test_who_waits_sees_without_a_turn_that_others_begin_end_or_leave(join):
    one, other = join(), join()
    one.refresh()
    assert not one.stirred()
    number = claim(other)
    assert one.stirred()
    one.refresh()
    other.record(number, epochs=1)
    other.give_sign()
    assert not one.stirred()
    other.leave(number, state="unfinished")
    assert one.stirred()
    one.refresh()
    assert not one.stirred()
    assert other.turn(other.abandoned).number == number
    assert one.stirred()
    one.refresh()
    other.finish(number, [60.0, 1.0], state="complete")
    assert one.stirred()
    one.refresh()
    assert not one.stirred()


def test_a_finished_study_is_closed_once_and_opened_again_by_new_limits(join):
    one, late = join(), join()
    begun = one.folder.manifest
    ended = begun.updated(status="finished", stop_reason="all have been evaluated")
    one.turn(lambda: one.set_attributes(**{CONFIG: {"trials": 4}, MANIFEST: begun.to_json()}))
    peers.close_run(one, ended)
    peers.close_run(late, ended.updated(stop_reason="nothing was left"))
    assert late.folder.manifest == ended == Manifest.from_json(late.attributes[MANIFEST])
    peers.change_limits(late, {"trials": 9})
    assert late.attributes[CONFIG] == {"trials": 9}
    assert late.attributes[MANIFEST]["status"] == "running"
    peers.close_run(one, ended.updated(stop_reason="five more have been evaluated"))
    assert one.attributes[MANIFEST]["stop_reason"] == "five more have been evaluated"


def test_the_time_that_a_study_uses_is_counted_once_and_only_while_somebody_works(join, monkeypatch):
    one, other = join(), join()
    assert one.give_sign() == 0.0
    time.sleep(0.2)
    first = other.give_sign()
    second = one.give_sign()
    assert 0.2 <= first <= second < 5.0
    monkeypatch.setattr(module, "GRACE", 0.1)
    time.sleep(0.2)
    assert other.give_sign() == second


def test_workers_wait_for_a_server_that_restarts_and_take_their_turn_again(join, postgres):
    one, other = join(), join()
    said = []
    one._storage._database.patience.say = said.append
    number, tries = claim(one), []

    def choose():
        tries.append(one.num_trials)
        if len(tries) == 1:
            postgres.stop("immediate")
            threading.Timer(1.0, postgres.start).start()
        return claim_in_turn()

    def claim_in_turn():
        trial = one.ask()
        trial.suggest_categorical("a", tuple(range(12)))
        one.describe(trial.number, key=f"n{trial.number}", phase="search", seed=0)
        return trial.number

    claimed = one.turn(choose)
    assert len(tries) >= 2
    assert set(tries) == {1}
    assert claimed == 1
    assert said[0].endswith("Waiting for it.")
    assert said[-1] == "the database is back"
    assert len(said) == 2

    postgres.stop("immediate")
    threading.Timer(1.0, postgres.start).start()
    one.finish(number, [60.0, 1.0], state="complete")
    other.refresh()
    assert [trial.state for trial in other.trials()] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert len(said) == 4


def test_a_turn_whose_answer_was_lost_is_not_taken_twice(join, monkeypatch):
    one, taken, lost = join(), [], [True]
    turn = SharedDatabase.turn

    @contextmanager
    def losing(database):
        with turn(database):
            yield
        if lost:
            lost.clear()
            raise UnavailableError("the connection went after the commit and before the answer")

    def choose():
        found = one.abandoned()
        if found is None:
            trial = one.ask()
            trial.suggest_categorical("a", tuple(range(12)))
            one.describe(trial.number, key="k", phase="search", seed=0)
            return trial.number
        taken.append(found.number)
        return found.number

    monkeypatch.setattr(SharedDatabase, "turn", losing)
    assert one.turn(choose) == 0
    assert taken == [0]
    assert one.num_trials == 1


def test_a_worker_has_one_connection(join, postgres, database_url):
    stores = [join() for _ in range(3)]
    for store in stores:
        claim(store)
        store.give_sign()
    [[count]] = postgres.sql(
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database_url.rpartition('/')[2]}'"
    )
    assert count <= 4 + 1


def test_a_study_that_is_not_there_and_a_server_that_refuses_are_named(postgres, database_url, monkeypatch):
    with pytest.raises(NoStudyError, match=r"has no study 'nowhere'"):
        SharedDatabase.connect(database_url, "nowhere")
    SharedDatabase.connect(database_url, "here", [StudyDirection.MAXIMIZE]).close()
    with pytest.raises(NoStudyError, match=r"has no study 'nowhere'"):
        SharedDatabase.connect(database_url, "nowhere")
    for url, reason in (
        (postgres.url("nothing"), 'database "nothing" does not exist'),
        ("postgresql+psycopg://me@127.0.0.1:9/nas", "Connection refused"),
    ):
        with pytest.raises(RunError, match=f"cannot be used: .*{reason}"):
            SharedDatabase.connect(url, "here")
    monkeypatch.setenv("PGPASSWORD", "battery-staple")
    with pytest.raises(RunError, match="password authentication failed") as caught:
        SharedDatabase.connect(database_url, "here")
    assert "battery" not in str(caught.value)


def test_a_database_without_rights_is_named(postgres, database_url, monkeypatch):
    name = database_url.rpartition("/")[2]
    postgres.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    monkeypatch.setenv("PGPASSWORD", "guest")
    with pytest.raises(RunError, match="cannot be used: permission denied for schema public"):
        SharedDatabase.connect(f"postgresql+psycopg://guest@{postgres.host}/{name}", "one", DIRECTIONS)


def test_both_see_the_same_trials(join):
    one, other = join(), join()
    for store in (one, other, one):
        store.finish(claim(store), [50.0, 1.0], state="complete", num_params=1)
    one.refresh()
    other.refresh()
    assert [facts(trial) for trial in one.trials()] == [facts(trial) for trial in other.trials()]
    assert one.rows() == other.rows()
    assert (one.num_evaluated(), one.front_size) == (other.num_evaluated(), other.front_size) == (3, 3)
