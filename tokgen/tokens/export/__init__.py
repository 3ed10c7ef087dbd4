"""Export token datasets for the training of language models, and read them back.

- `settings` - names of layouts and formats
- `sequences` - the codes of an utterance in a layout, and back
- `rows` - one exported utterance
- `outputs` - check the folder of an export
- `formats` - the files of each format: JSON lines, tar shards of WebDataset, cuts of Lhotse
- `writing` - write an export: `export_tokens`
- `reading` - read an export: `import_tokens` and `read_rows`
"""
