"""Comparisons of codecs by the generators trained on their tokens.

- `plan` - the whole comparison, from a corpus to a table
- `settings` - settings of a comparison
- `compare` - rows, paired differences and verdicts
- `notes` - notes below the table
- `lines` - audio of the rows and its scores
- `cells` - results of one training
- `entries` - tokens and test utterances of the codecs
- `telephone` - repeated editing
- `telephone_results` - files and plot of repeated editing
"""
