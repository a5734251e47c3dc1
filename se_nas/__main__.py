"""``python -m se_nas`` is ``se-nas``."""

from se_nas.cli import main

main()
