"""Scores of speech: metrics of clips, tables of rows, token accuracy and samples to listen to.

- `metric` - metrics by name
- `settings` - settings of scoring
- `scorer` - scores of clips
- `clips` - scores of the clips of a row, kept on disk
- `measures` - metrics of clips that one library each computes
- `transcripts` - edits of characters and words, in records of clips
- `pool` - scores of clips in several processes
- `reasons` - why metrics fail on clips or do not apply to them
- `anchors` - similarity of the same voice and of other voices
- `fad` - Fréchet audio distance of rows
- `differences` - paired differences between rows
- `per_clip` - values of single clips as JSON, CSV and Parquet
- `rows` - tables of rows of audio
- `codec_scores` - scores of codecs on a corpus
- `accuracy` - token accuracy of a model
- `generator_settings` - settings that recipes share which train and score a generator
- `generated` - the data of a generator's run, and scores of what it made
- `samples` - audio files and their index
"""
