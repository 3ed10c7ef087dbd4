"""Support for long runs: folders, settings, checkpoints, interrupts, workers.

- `folder` - JSON files and histories in a run's folder
- `checks` - check settings and files to write, and suggest names
- `locks` - lock a folder, so that two runs do not write to it
- `cells` - share the cells of an experiment among processes
- `settings` - settings from YAML and flags, saved with each run
- `flags` - how flags are written, and how help shows them
- `deep_flags` - flags for settings inside of settings that are dicts
- `checkpoints` - save and resume the state of a training
- `interrupts` - Ctrl-C, SIGTERM, a killed launcher and errors in recipes
- `accelerator` - set up Accelerate; precision and random seeds
- `device` - choose the device
- `progress` - progress bars, short in log files
- `store` - results of single clips, kept across restarts
- `workers` - set up worker processes
"""
