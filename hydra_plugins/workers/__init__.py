"""Hydra launchers whose workers stay: over cores (joblib), GPUs (Ray) and a cluster (Slurm).

They know nothing of the application: what belongs together, what a job needs and what is to be done
about a lost one are settings that name keys of its config and functions of its own.
"""
