"""One script per DVC stage: read params and inputs, call the package, write outputs."""

import atexit
import gc

from leaf.errors import quiet_tensorflow

# Imported modules create millions of objects that live until the process exits. Searching them for garbage while they
# are imported, and again on exit, takes a fifth of a short stage.
gc.set_threshold(10_000)
atexit.register(gc.freeze)
quiet_tensorflow()
