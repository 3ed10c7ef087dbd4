"""Drift of codecs under repeated encoding, and their sensitivity to small shifts.

- `clips` - first seconds or random excerpts of a corpus
- `shifts` - where frames meet a clip that is moved between passes
- `chain` - one clip through a codec again and again, plainly, stably or on the grid it finds
- `passes` - repeated encoding of clips
- `depths` - the depth of codecs of variable bitrate over passes
- `summary` - means with intervals, as JSON, CSV and text
- `differences` - paired differences between codecs
- `phase` - match of codes under shifts
- `folder` - the folder of a measurement: new, to continue, or to replace
- `compare` - drift and phase of several codecs, with all files
- `plots` - figures
- `settings` - settings of a measurement
"""
