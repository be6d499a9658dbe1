"""``python -m effnet``, as ``torchrun -m effnet`` starts it: the same as the command ``effnet``."""

import sys

from effnet.cli.app import main

sys.exit(main())
