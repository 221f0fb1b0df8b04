"""Programs that run on the target. They use only the standard library."""
