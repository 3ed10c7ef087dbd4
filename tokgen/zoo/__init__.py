"""The codecs that tokgen can load.

- `lookup` - list and load codecs by name
- `finding` - find the folder of a codec, and the class that loads it
- `names` - what the name of a codec refers to, and what is wrong with a name
- `cards` - descriptions of codecs
- `published` - published codecs: rates, licences, what is installed, and where each was run
- `trials` - run published codecs, and keep the results
- `folders` - folders in which codecs are looked up
- `recorded` - load the codec that a dataset or a model names
- `registry` - table of the kinds of codec
- `loading` - base classes of the codecs that load from a folder
- `transformers_loading` - load models of transformers safely
- `stft` - tokgen's own codec
- `continuous` - load codecs without a quantizer, and tokgen's own
- `offline` - a continuous codec and a quantizer that was fitted to its latents, as a codec
- `offline_fitting` - fit a quantizer to the latents of a continuous codec, once
- `auto` - register the codecs with transformers' Auto classes
- `transformers_config` - the STFT codec's settings as a configuration of transformers
- `transformers_model` - the STFT codec as a model of transformers
- `export/` - codecs as files for other runtimes
- `networks/` - tokgen's own networks
- `rebuilt/` - codecs whose published weights run in networks of tokgen's
- `adapters/` - codecs of other libraries, one module each
"""
