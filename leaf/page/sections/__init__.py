"""One module for each part of the report: a run's tables in, what the template shows of them out."""
