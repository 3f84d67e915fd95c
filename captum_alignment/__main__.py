"""``python -m captum_alignment``: the same as the command ``captum-alignment``."""

import sys

from captum_alignment.study.cli import main

if __name__ == "__main__":
    sys.exit(main())
