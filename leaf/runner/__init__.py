"""Run experiments on this machine, over ssh, on a Slurm cluster or in the cloud; fetch the results.

Git transfers code and results; a DVC remote transfers the data. A job is one submission of one or more experiments.
Each job has a folder on the target:

    FOLDER/jobs/ID/job.json task.py         the experiments, and the program that runs them (leaf.runner.agent.task)
    FOLDER/jobs/ID/N/{pid,step,log,exit}    experiment N: its process, current step, log and final state
    FOLDER/{cache,locks,environments,state} shared by all jobs: DVC cache, GPU locks, environments, checkpoints

`leaf.runner.agent` runs on the target and uses only the standard library. Requests are sent to the target on stdin,
never as part of a command line.
"""
