"""`python -m tokgen`, which launchers such as `accelerate launch -m tokgen` can start."""

import sys

from tokgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
