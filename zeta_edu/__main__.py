"""`python -m zeta_edu` and `torchrun -m zeta_edu`: the command `zeta-edu`."""

import sys

from zeta_edu.cli import main

if __name__ == "__main__":
    sys.exit(main())
