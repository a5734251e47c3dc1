"""A worker of a shared study that trains nothing: it measures latency on the machine where the network will run."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from se_nas.cost.latency.elsewhere import ERROR, LatencyService
from se_nas.errors import RunError, SeNasError
from se_nas.study.latency_mail import BEGIN, POLL_SECONDS, Mail
from se_nas.study.patience import Patience
from se_nas.study.peers import is_finished


def measure_for(
    storage: str,
    study: str,
    *,
    device: str = "auto",
    wait: float = 0.0,
    say: Callable[[str], object] = lambda text: None,
    measured: Callable[[int, int], object] = lambda done, of: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Measure latency for a shared study on this machine until the study is finished, or ``should_stop``.

    Args:
        storage: the address of its database.
        study: the study's name.
        device: on which latency is measured.
        wait: seconds to wait for the search to ask.
        say, measured: as in `LatencyService`.

    Returns:
        How many networks were measured.

    Raises:
        RunError: nobody asks, or asks for another machine, or the device is not what was measured on before.
        SeNasError: the device is not there.
    """
    mail, here = Mail(storage, study, Patience(say)), socket.gethostname()
    service, count = _service(mail, storage, study, here, device, wait, say, measured), 0
    while not should_stop():
        questions = mail.open_questions()
        for key, question in questions:
            if should_stop():
                break
            if key == BEGIN:
                # A search of that name has begun anew.
                service = LatencyService(question, device, None, say, measured)
                mail.answer(BEGIN, service.answer())
                continue
            mail.answer(key, service.measure(question))
            count += 1
            say(f"{count} measured")
        if not questions:
            if is_finished(storage, study):
                break
            time.sleep(POLL_SECONDS)
    return count


def _service(
    mail: Mail,
    storage: str,
    study: str,
    here: str,
    device: str,
    wait: float,
    say: Callable[[str], object],
    measured: Callable[[int, int], object],
) -> LatencyService:
    """What measures here, once somebody has asked."""
    until = time.monotonic() + wait
    while (found := mail.find(BEGIN)) is None:
        if time.monotonic() >= until:
            raise RunError(
                f"no search asks for latency of study {study!r} on {storage}; start it with se-nas search"
                f" --latency-on {here} and these options."
            )
        time.sleep(POLL_SECONDS)
    machine, question, answer = found
    if machine != here:
        raise RunError(f"study {study!r} asks for the latency of {machine}, but this machine is {here}.")
    try:
        service = LatencyService(question, device, answer, say, measured)
    except SeNasError as error:
        if answer is None:
            # Whoever waits learns why.
            mail.answer(BEGIN, {ERROR: str(error)})
        raise
    if answer is None:
        mail.answer(BEGIN, service.answer())
    return service
