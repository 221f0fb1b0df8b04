"""What runs on the target of a job, with the standard library alone: answer requests, run one experiment."""
