"""Token and latent datasets: tokenize a corpus with a codec, and open the result.

- `tokenizing` - make the token dataset of a corpus: `tokenize_corpus`
- `preparing` - what a run checks and opens before it encodes
- `report` - the report of a run
- `settings` - settings of tokenizing
- `dataset` - open, join and push token datasets: `load_tokens`
- `latents` - latent datasets, of continuous codecs: `load_latents`
- `opening` - open datasets of both kinds, and check their rows
- `saved` - open the files of a dataset, and name those that are damaged or lie outside
- `checks` - check rows against their provenance
- `columns` - types, values and statistics of the columns
- `describing` - describe datasets of both kinds, of a folder, URL or hub id: `describe_dataset`
- `facts` - facts about a dataset, as text and JSON
- `places` - tell places of datasets from those of codecs
- `splitting` - hold out a test split of datasets and corpora that have none
- `export` - export datasets for the training of language models, and read them back
- `layouts` - layouts of codes for language models: `flatten`, `add_offsets`, `delay`
- `rates` - the bitrate of tokens whose frames differ in depth
- `packed` - datasets whose codes are stored as packed bytes
- `cache` - token and latent datasets that recipes keep
- `provenance` - the codec, corpus and settings behind a dataset, kept with its rows
- `card` - the dataset card, for the Hugging Face hub
- `shards` - Parquet shards that workers write, and their markers
- `existing` - what is already at the place of a dataset, and how it differs from a new run
- `output` - the finished dataset made from shards
- `conditioning` - MFCC or log-mel features, one vector per codec frame
- `precision` - choose the number format for encoding
- `engines` - run the work on this machine, on a launcher's processes or on a Ray cluster
"""
