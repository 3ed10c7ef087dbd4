"""HTML report about runs: one self-contained file with tables, figures and audio.

- `page` - write the page
- `reader` - read run folders
- `listening` - find the audio files of a run folder
- `json_files` - read JSON files from untrusted sources
- `views` - prepare numbers for the page
- `figures` - draw figures as inline SVG
- `clips` - match the loudness of audio and draw spectrograms
- `depth` - read the levels of each frame of a clip, and draw them
- `encoding` - encode audio as WAV or Opus
"""
