"""Scores of speech: metrics of clips, tables of rows, token accuracy and samples to listen to.

- `metric` - metrics by name
- `settings` - settings of scoring
- `scorer` - scores of clips
- `pool` - scores of clips in several processes
- `reasons` - why metrics fail on clips or do not apply to them
- `anchors` - similarity of the same voice and of other voices
- `rows` - tables of rows of audio
- `codec_scores` - scores of codecs on a corpus
- `accuracy` - token accuracy of a model
- `samples` - audio files and their index
"""
