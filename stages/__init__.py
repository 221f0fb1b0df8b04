"""One script per DVC stage: read params and inputs, call the package, write outputs."""

import atexit
import gc

from leaf.errors import quiet_tensorflow

# Imported modules create millions of objects that live until the process exits. Garbage collection during the imports
# and on exit would take a fifth of the run time of a short stage.
gc.set_threshold(10_000)
atexit.register(gc.freeze)
quiet_tensorflow()
