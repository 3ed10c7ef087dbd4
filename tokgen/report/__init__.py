"""What people look at: plots of training and of audio, and the HTML page about runs.

`reader` turns run folders into dataclasses, `clips` their audio into sounds and pictures,
`figures` their numbers into SVG, and `page` all of it into one file.
"""
