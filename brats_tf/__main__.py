"""`python -m brats_tf` is `brats-tf`."""

import sys

from brats_tf.cli import main

sys.exit(main())
