"""Engines: the ways to run a tokenizing job.

- `run` - choose an engine, and the place of this process among others
- `job` - read, encode and store one unit of a corpus
- `encoding` - what a job asks of a codec, codes or latents
- `local` - processes on this machine
- `ray_data` - actors on a Ray cluster
- `progress` - the progress bar, updated from any process
"""
