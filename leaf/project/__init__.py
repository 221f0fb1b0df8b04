"""A user's own DVC project: create it with `leaf init`, keep it up to date with `leaf upgrade`."""
