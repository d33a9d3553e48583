"""`python -m brats_tf` is `brats-tf`."""

import sys

from brats_tf.cli.main import main

sys.exit(main())
