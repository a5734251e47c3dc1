"""A run is killed before each of its writes, and in the middle of each, and goes on to the same table.

The trainer is a function of network and seed, params are the cost and one candidate is trained at a time: so the
table of an undisturbed run is the truth for all others, order included. All of it holds for a database with a
write-ahead log, and for one with the rollback journal of file systems that copy on write.
"""

import itertools
import random
import shutil

import pytest
from rollback_journal import changed_pages, journal, pages_of
from small_cases import table

import se_nas
from se_nas.errors import RunError
from se_nas.report.run import Run
from se_nas.run import files, folder
from se_nas.study import database, resume, search
from se_nas.study.database import Database

SEARCH = {
    "backbone": "test_resnet",
    "device": "cpu",
    "objectives": "accuracy,params",
    "trials": 9,
    "final_seeds": 2,
    "epochs": 3,
    "trainer": "golden_trainer:train",
    "keep": "none",
    "early_stopping": "moasha",
}
OF_THE_CLOCK = ("seconds", "started", "finished", "elapsed")
SAMPLE = 4


def results(path):
    """The table without what the clock says, curves included."""
    return [
        {
            name: [{key: item for key, item in entry.items() if key != "seconds"} for entry in value]
            if name == "curve"
            else value
            for name, value in row.items()
            if name not in OF_THE_CLOCK
        }
        for row in table(path)
    ]


class Snapshots:
    """Copies the run folder before every write, which is what a kill at that moment leaves."""

    def __init__(self, run, kept):
        self.run, self.kept, self.paths = run, kept, []

    def take(self):
        path = self.kept / str(len(self.paths)) / "run"
        if self.run.exists():
            shutil.copytree(self.run, path)
        self.paths.append(path)

    def before(self, write):
        def wrapped(*args, **kwargs):
            self.take()
            return write(*args, **kwargs)

        return wrapped


@pytest.fixture(scope="module", params=[False, True], ids=["write-ahead log", "rollback journal"])
def copies_on_write(request):
    """Whether the file system is said to copy on write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "refuses_mapped_writes", lambda path: request.param)
        yield request.param


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, copies_on_write):
    """The table of a run that nothing stopped, and its folder before each of its writes."""
    base = tmp_path_factory.mktemp("cuts")
    snapshots = Snapshots(base / "runs" / "run", base / "cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "save", snapshots.before(Database.save))
        write = snapshots.before(files.write_bytes)
        patch.setattr(files, "write_bytes", write)
        patch.setattr(folder, "write_bytes", write)
        run = search(se_nas.SearchConfig(**SEARCH, runs=str(base / "runs"), name="run"))
    snapshots.take()
    return results(run.path), snapshots.paths


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """The page and its figures take longer than all the rest, and are derived."""
    monkeypatch.setattr(Run, "write_report", lambda run: run.path)


def indices(number, sample):
    """The first and the last writes, and some between: every run of the tests takes others."""
    middle = random.sample(range(3, number - 2), min(sample, number - 5))
    return [2, *sorted(middle), number - 1]


def goes_on(path, expected):
    resume(path)
    assert results(path) == expected


def test_a_cut_before_some_writes(undisturbed):
    expected, cuts = undisturbed
    assert len(cuts) > 60
    for number in indices(len(cuts), SAMPLE):
        print("cut before write", number)
        goes_on(cuts[number], expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_cut_before_every_write(undisturbed, tmp_path):
    expected, cuts = undisturbed
    for number, cut in enumerate(cuts):
        path = tmp_path / str(number) / "run"
        if cut.exists():
            shutil.copytree(cut, path)
        if not (path / "manifest.json").exists():
            # Nothing had begun.
            with pytest.raises(RunError, match=r"no run folder|not a run folder"):
                resume(path)
        else:
            print("cut before write", number)
            goes_on(path, expected)
    print(f"{len(cuts)} cuts, each ended with the undisturbed table")


def torn(cuts, number, target, share):
    """A run folder as a power cut leaves it in the middle of a write to the database."""
    shutil.copytree(cuts[number], target)
    tear = tear_log if content(cuts[number + 1], "study.db-wal") else tear_database
    tear(cuts[number], cuts[number + 1], target, share)
    return target


def tear_log(one, other, target, share):
    """A part of what is written to the log is there."""
    before, after = content(one, "study.db-wal"), content(other, "study.db-wal")
    kept = len(before) + int(share * (len(after) - len(before)))
    (target / "study.db-wal").write_bytes(after[:kept] + random.randbytes(min(2000, len(after) - kept)))


def tear_database(one, other, target, share):
    """A part of the rollback journal is there, or all of it and a part of the pages, the last one torn."""
    before, after = content(one, "study.db"), content(other, "study.db")
    changed = changed_pages(before, after)
    kept = journal(before, changed)
    if share < 0.5:
        length = int(2 * share * len(kept))
        kept = kept[:length] + random.randbytes(min(2000, len(kept) - length))
    else:
        pages, new = pages_of(before), pages_of(after)
        pages += [bytes(len(page)) for page in new[len(pages) :]]
        written = changed[: int((2 * share - 1) * len(changed)) + 1]
        for index in written:
            pages[index] = new[index]
        pages[written[-1]] = random.randbytes(len(new[0]))
        (target / "study.db").write_bytes(b"".join(pages))
    (target / "study.db-journal").write_bytes(kept)


def content(cut, name):
    return (cut / name).read_bytes() if (cut / name).exists() else b""


def writes_to_the_database(cuts):
    def writes(one, other):
        if content(other, "study.db-wal"):
            return len(content(other, "study.db-wal")) > len(content(one, "study.db-wal"))
        return content(other, "study.db") != content(one, "study.db")

    pairs = enumerate(itertools.pairwise(cuts))
    return [number for number, (one, other) in pairs if (one / "study.db").exists() and writes(one, other)]


def test_a_power_cut_in_the_middle_of_some_writes(undisturbed, tmp_path):
    expected, cuts = undisturbed
    for number in random.sample(writes_to_the_database(cuts), 2):
        share = random.random()
        print(f"power cut after {share:.3f} of write {number}")
        goes_on(torn(cuts, number, tmp_path / str(number), share), expected)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_power_cut_in_the_middle_of_every_write(undisturbed, tmp_path):
    expected, cuts = undisturbed
    found = writes_to_the_database(cuts)
    for number in found:
        share = random.random()
        print(f"power cut after {share:.3f} of write {number}")
        goes_on(torn(cuts, number, tmp_path / str(number), share), expected)
    print(f"{len(found)} power cuts, each ended with the undisturbed table")
