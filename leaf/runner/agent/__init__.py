"""The programs that run on the target; standard library only."""
