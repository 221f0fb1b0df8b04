"""One script per DVC stage: read params and inputs, call the package, write outputs."""
