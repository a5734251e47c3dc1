"""A wall clock that jumps, for processes that are started with it: the time of day is what a file adds to the real one.

libfaketime (0.9.10) cannot be used: Python's ``time.sleep`` fails under it once its monotonic clock is left alone.
"""

import shutil
import struct
import subprocess

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    static const long *seconds = NULL;
    if (seconds == NULL) {
        int file = open(getenv("WALL_CLOCK"), O_RDONLY);
        seconds = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }
    return *seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed) now->tv_sec += ahead();
    return failed;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result != NULL) *result = now.tv_sec;
    return now.tv_sec;
}
"""
COMPILER = shutil.which("cc")


class WallClock:
    """The clock of processes that are started with ``environment``.

    Args:
        folder: for the file and the library; needs a C compiler.
    """

    def __init__(self, folder):
        self._file = folder / "wall-clock"
        self.set(0)
        library = folder / "wall-clock.so"
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-O", "-x", "c", "-", "-o", library],
            input=SOURCE,
            text=True,
            check=True,
        )
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._file)}

    def set(self, ahead):
        """Seconds that the clock is ahead of the real time; at once, for all that run."""
        with open(self._file, "r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("l", ahead))
