"""One script per DVC stage: read params and inputs, call the package, write outputs."""

from leaf.errors import quiet_tensorflow

quiet_tensorflow()
