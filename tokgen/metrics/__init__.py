"""Metrics of audio and codes, their statistics, and tables of results.

Conventions:

- Waveforms are float tensors [N] or [1, N] in [-1, 1] with a sample rate in Hz. The reference comes
  first, the estimate second, and both have the same length.
- A metric returns one value per clip; only FAD returns one for a row of clips. A failure is NaN,
  never a score.
- What cannot be measured by its nature is no failure: CER without a transcript, SI-SDR of a copy.
- Identical inputs score best: PESQ 4.64, SI-SDR inf, CER 0, F0 error 0, speaker similarity 1,
  STOI 1, distances 0.
- Backends name library and weights in `backend` or `BACKEND`. A fallback warns.

Modules (unit and range; whether higher or lower is better):

- `pesq` - wideband PESQ (MOS-LQO, 1 to 4.65; higher)
- `mos` - predicted mean opinion score (1 to 5; higher)
- `measured` - a value of a metric, or the reason why there is none
- `stoi` - STOI and ESTOI (-1 to 1; higher)
- `spectral` - mel and multi-resolution STFT distance (from 0; lower)
- `frechet` - Fréchet audio distance of sets of clips (from 0; lower)
- `cer` - character and word error rate through a recogniser (from 0; lower)
- `si_sdr` - scale-invariant signal-to-distortion ratio (dB; higher)
- `speaker` - cosine of speaker embeddings (-1 to 1; higher)
- `resemblyzer` - network of one speaker encoder
- `pitch` - F0 error (cents; lower) and voicing error (0 to 1; lower)
- `codebook` - codebook use (percent, 0 to 100), perplexity and token match (0 to 1; higher)
- `ngrams` - entropy of runs of codes (bits)
- `delay` - delay of a codec (samples)
- `text` - text normalisation for CER and WER
- `languages` - names and codes of languages
- `signals` - one channel at 16 kHz, for models of speech
- `backends` - load a model from the cache or the hub
- `intervals` - confidence intervals of means and ratios, studentised and crossed
- `statistics` - estimates with intervals, their format, verdicts and correlation
- `failures` - metrics that failed on clips, and how tables list them
- `tables` - tables of results
- `table_files` - write tables as JSON, CSV, Markdown and LaTeX
- `asr` - recognisers of speech, for character and word error rates
- `opinion` - ViSQOL, DNSMOS, PLCMOS, UTMOS and NISQA
"""
