"""Data: the built-in world of shapes (shapes.py) and readers for a user's own pictures (readers.py).

This file holds the one exception that means "the input is at fault, not the program", and the wrapper that
turns it into one line and exit status 2. Every command of the project ends in `sys.exit(data.run(main))`.
"""

import sys


class BadInput(ValueError):
    """A file, flag or caption that cannot be used. The message says what, where and what to do, on one line."""


def run(main):
    """Call main(); return its exit status. Bad input gives one line on stderr and status 2, never a traceback.

    OSError is input too: a file that is not there, a folder that may not be written, a disk that is full.
    """
    try:
        return main() or 0
    except (BadInput, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
