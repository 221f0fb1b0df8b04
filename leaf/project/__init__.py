"""Create a user's own DVC project (`leaf init`) and keep it up to date (`leaf upgrade`)."""
