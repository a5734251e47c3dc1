"""The database of a study against Optuna's own storage, and what is in it after each write."""

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from se_nas.errors import RunError
from se_nas.run.study_file import SEALS
from se_nas.study.database import Database
from se_nas.study.whole_trials import WholeTrials

DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
CHOICES = {"a": ("none", 8, 16), "b": (True, False, 0.5)}


def opened(path):
    return WholeTrials(Database.open(Path(path), DIRECTIONS))


def stored(path):
    """What Optuna itself reads."""
    return optuna.load_study(study_name="se-nas", storage=f"sqlite:///{path}").trials


def facts(trial):
    system_attrs = {key: value for key, value in trial.system_attrs.items() if key != SEALS}
    return (
        *(trial.number, trial.state, trial.params, trial.distributions, trial.values),
        *(trial.user_attrs, system_attrs, trial.datetime_start, trial.datetime_complete),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def study(path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(
        study_name="se-nas", storage=opened(path), sampler=optuna.samplers.RandomSampler(seed=0)
    )


def suggest(trial):
    return {name: trial.suggest_categorical(name, choices) for name, choices in CHOICES.items()}


def test_a_trial_is_stored_when_it_is_described_and_not_before(study, path):
    trial = study.ask()
    suggest(trial)
    trial.set_user_attr("row", {"key": "k"})
    assert stored(path) == []
    study._storage.release(trial.number)
    [found] = stored(path)
    assert (found.state, found.params, found.user_attrs) == (
        TrialState.RUNNING,
        trial.params,
        {"row": {"key": "k"}},
    )
    study.tell(trial, [1.0, math.inf])
    [found] = stored(path)
    assert (found.state, found.values) == (TrialState.COMPLETE, [1.0, math.inf])


def test_a_queued_trial_stays_queued_until_it_is_described(study, path):
    study.enqueue_trial({"a": 8, "b": True})
    assert [trial.state for trial in stored(path)] == [TrialState.WAITING]
    trial = study.ask()
    suggest(trial)
    assert [trial.state for trial in stored(path)] == [TrialState.WAITING]
    again = optuna.load_study(study_name="se-nas", storage=opened(path))
    assert suggest(again.ask()) == {"a": 8, "b": True}
    study._storage.release(trial.number)
    assert [trial.state for trial in stored(path)] == [TrialState.RUNNING]


def test_together_is_one_write_and_nothing_after_an_error(study, path):
    with study._storage.together():
        for number in range(3):
            study.enqueue_trial({"a": 8, "b": True}, user_attrs={"number": number})
        study.set_user_attr("spent", 1.5)
        assert stored(path) == []
    assert len(stored(path)) == 3
    with contextlib.suppress(ValueError), study._storage.together():
        study.set_user_attr("spent", 2.5)
        raise ValueError("stop")
    assert opened(path).get_study_user_attrs(0) == {"spent": 1.5}


def test_a_trial_that_ended_cannot_be_changed(study):
    trial = study.ask()
    study.tell(trial, [1.0, 2.0])
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(trial.number, "key", 1)
    with pytest.raises(KeyError):
        study._storage.get_trial(1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ATTRIBUTES = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(lambda key: "\x00" not in key), JSON, max_size=3
)


@st.composite
def trials(draw):
    state = draw(st.sampled_from(list(TrialState)))
    values = st.floats(allow_nan=False)
    given = {name: draw(st.sampled_from(choices)) for name, choices in CHOICES.items()}
    moment = st.datetimes(datetime(2001, 1, 1), datetime(2100, 1, 1))
    made = create_trial(
        state=state,
        values=[draw(values), draw(values)] if state == TrialState.COMPLETE else None,
        params=given,
        distributions={name: CategoricalDistribution(choices) for name, choices in CHOICES.items()},
        user_attrs=draw(ATTRIBUTES),
        system_attrs=draw(ATTRIBUTES),
    )
    if state != TrialState.WAITING:
        made.datetime_start = draw(moment)
    if state.is_finished():
        made.datetime_complete = draw(moment)
    return made


def check_against_optuna(made, open_ours, ours_at, theirs_at):
    """Optuna reads what we write, and the reverse.

    Args:
        made: trials.
        open_ours: opens our study, which is empty at first, or that of Optuna if it is given ``theirs_at``.
        ours_at, theirs_at: keywords of Optuna's functions that name the two studies.
    """
    ours = open_ours(ours_at)
    for trial in made:
        number = ours.create_new_trial(0, trial)
        if trial.state == TrialState.RUNNING:
            ours.release(number)
    kept = [facts(trial) for trial in ours.get_all_trials(0)]
    assert [facts(trial) for trial in optuna.load_study(**ours_at).trials] == kept
    assert [facts(trial) for trial in open_ours(ours_at).get_all_trials(0)] == kept
    theirs = optuna.create_study(**theirs_at, directions=DIRECTIONS)
    theirs.add_trials(made)
    read = open_ours(theirs_at).get_all_trials(0)
    assert [facts(trial) for trial in read] == [facts(trial) for trial in theirs.trials]


@settings(max_examples=25, deadline=None)
@given(made=st.lists(trials(), min_size=1, max_size=4))
def test_optuna_reads_what_was_written_and_the_reverse(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("study")
    check_against_optuna(
        made,
        lambda at: opened(at["storage"].removeprefix("sqlite:///")),
        *(
            {"study_name": "se-nas", "storage": f"sqlite:///{folder / name}.db"}
            for name in ("ours", "theirs")
        ),
    )


def test_errors_name_the_file(tmp_path):
    with pytest.raises(RunError, match=r"has no study\.db: the search never started"):
        Database.open(tmp_path / "study.db")
    (tmp_path / "study.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(RunError, match=r"study\.db is damaged: file is not a database"):
        opened(tmp_path / "study.db")
    with pytest.raises(RunError, match=r"study\.db cannot be used: unable to open database file"):
        opened(tmp_path / "nowhere" / "study.db")
    reader = tmp_path / "read.db"
    opened(reader)
    storage = WholeTrials(Database.open(reader, read_only=True))
    with pytest.raises(RunError, match=r"read\.db cannot be written: attempt to write a readonly database"):
        storage.set_study_user_attr(0, "spent", 1.0)


def test_what_is_being_proposed_is_forgotten_and_what_was_queued_is_queued_again(study, path):
    study.enqueue_trial({"a": 8, "b": True})
    queued, fresh = study.ask(), study.ask()
    suggest(queued)
    suggest(fresh)
    study._storage.discard()
    assert [trial.state for trial in study.trials] == [TrialState.WAITING]
    assert [facts(trial) for trial in study.trials] == [facts(trial) for trial in stored(path)]
    again = study.ask()
    assert (again.number, suggest(again)) == (0, {"a": 8, "b": True})


def test_a_trial_that_is_queued_and_asked_for_in_one_transaction_is_not_stored(study, path):
    with study._storage.together():
        study.enqueue_trial({"a": 8, "b": True})
        study.ask()
    assert stored(path) == []
    study._storage.discard()
    assert study.trials == []


def test_one_thread_proposes_while_another_writes(study, path):
    """Trials that are told in one thread and described in the other, all of them stored whole and in order."""
    running = [study.ask() for _ in range(3)]
    for trial in running:
        suggest(trial)
        study._storage.release(trial.number)

    def propose():
        for _ in range(40):
            trial = study.ask()
            suggest(trial)
            study.tell(trial, [1.0, 2.0])

    with ThreadPoolExecutor(1) as thread:
        proposing = thread.submit(propose)
        epochs = 0
        while not proposing.done() or epochs < 40:
            for trial in running:
                with study._storage.together():
                    trial.set_user_attr("epochs", epochs)
                    study.set_user_attr("spent", epochs)
            epochs += 1
        proposing.result()
    found = stored(path)
    assert [trial.number for trial in found] == list(range(43))
    assert [facts(trial) for trial in found] == [facts(trial) for trial in study.trials]
    assert all(trial.user_attrs == {"epochs": epochs - 1} for trial in found[:3])
