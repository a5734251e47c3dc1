"""``se-nas`` in the process of a test."""

import sys

import pytest

from se_nas.cli import main


def exit_code_of(arguments):
    """Run a command; what it prints goes wherever the caller has sent it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["se-nas", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return end.code or 0
    return 0
