"""Run the `tokgen` command as `python -m tokgen`, or by `accelerate launch -m tokgen`."""

import sys

from tokgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
