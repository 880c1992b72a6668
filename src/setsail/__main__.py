"""``python -m setsail`` and the ``setsail`` command."""

import sys

from setsail.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
