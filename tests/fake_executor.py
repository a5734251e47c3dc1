"""An executor without trainings: it plays what a test has written for each trial, one epoch per wait."""

from contextlib import nullcontext

DIES = "dies"


class FakeExecutor:
    """Up to ``capacity`` tasks in flight, served in turn.

    Args:
        play: function of a task; gives the accuracies of its epochs, of which ``DIES`` ends the training as failed.
        clock: what stands for time in the test; a wait turns it by one second.
    """

    def __init__(self, play, capacity=2, clock=None):
        self.play, self.capacity, self.clock = play, capacity, clock
        self.in_flight, self.most, self.closed = {}, 0, None

    @property
    def tasks(self):
        return list(self.in_flight)

    def submit(self, task, listener):
        self.in_flight[task] = []
        self.most = max(self.most, len(self.in_flight))
        return {}

    def wait(self, listener):
        task = next(iter(self.in_flight))
        curve, script = self.in_flight.pop(task), self.play(task)
        if self.clock is not None:
            self.clock.now += 1.0
        state = "unfinished" if listener.should_stop() else "complete"
        if state == "complete" and script[len(curve)] == DIES:
            listener.task_ended(task, {"state": "failed", "error": "it died", "seconds": 1.0})
            return
        if state == "complete":
            curve = [*curve, {"epoch": len(curve) + 1, "accuracy": script[len(curve)]}]
            if not listener.epoch_ended(task, curve, curve[-1]):
                state = "stopped"
            elif len(curve) < len(script):
                self.in_flight[task] = curve
                return
        accuracy = curve[-1]["accuracy"] if curve else None
        listener.task_ended(task, {"state": state, "accuracy": accuracy, "curve": curve, "seconds": 1.0})

    def paused(self):
        return nullcontext()

    def close(self, *, kill=False):
        self.closed = kill
