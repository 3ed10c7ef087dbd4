"""Corpora: folders of audio, tables and hub datasets, listed or streamed.

- `listed` - list a corpus: `open_corpus` and `Corpus`
- `joined` - several corpora as one
- `published` - list published corpora, such as VCTK, by their layout
- `layouts` - where published corpora keep their audio, texts, speakers and splits
- `excerpts` - draw seeded excerpts of equal length
- `cuts` - pieces of audio files, cut out when they are read
- `settings` - settings that choose the clips of a corpus
- `reading` - decode utterances, whole or in blocks, and divide a corpus into units of work
- `entries` - an utterance without its audio, and the interfaces for listing and fetching audio
- `splits` - names of splits, and the split of an utterance that has none
- `links` - find files below a folder, without links that lead out of it
- `folders` - find a corpus' files and list folders of audio
- `metadata` - read `metadata.csv` and `metadata.jsonl`, also in LJSpeech's format
- `tables` - list tables with an audio column, such as Hugging Face datasets
- `saved` - check the files that a saved dataset names
- `parquet` - list Parquet files
- `remote` - files behind a URL, read whole or by ranges
- `hub` - datasets of the Hugging Face hub
- `streams` - read a corpus without listing it
"""
