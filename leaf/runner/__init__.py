"""Submit the pipeline to a GPU box over ssh, a Slurm cluster or a cloud; bring the results back as DVC experiments.

Git carries the code and the results, a DVC remote the data. A *job* is one submission, with one or more experiments;
on the target it is one folder, the same for every engine:

    FOLDER/jobs/ID/job.json task.py    what to run, and the program that runs it (leaf.runner.agent.task, sent along)
    FOLDER/jobs/ID/N/{pid,step,log,exit}    experiment N: its process, what it does, what it said, how it ended
    FOLDER/{cache,locks,environments,state} shared by all jobs: DVC's cache, one lock per GPU, Python, training states

`leaf.runner.agent` runs on the target, with the standard library alone. A request to the target is data in
 a program's text on standard input, never a part of a command line.
"""
