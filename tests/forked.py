"""The end of a process that was forked from one with tests in it."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def leave(work: Callable[[], object], failed: int) -> NoReturn:
    """Call a function, and end this process without what its parent has still to do at its end.

    Args:
        work: what the process is for; it may exit with a code.
        failed: exit code where it raises something else, which is printed.
    """
    code = failed
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and code is not end.code:
            print(end.code, file=sys.stderr)  # as Python does
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
