"""`python -m cogview` is the `cogview` command."""

import sys

from cogview.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
