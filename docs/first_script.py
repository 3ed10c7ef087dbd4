import tokgen

codec = tokgen.load_codec("speech-16k")
tokgen.tokenize_corpus("my_audio", codec, "my_tokens")
model = tokgen.train("my_tokens", codec, "my_model", steps=50, batch_size=4, crop_seconds=2.0)

speech, rate = tokgen.read_audio("my_audio/speech.wav", sample_rate=codec.spec.sample_rate)
original, prompt = speech[:, : 3 * rate], speech[:, :rate]
continued = tokgen.generate(model, codec, prompt=prompt, seconds=2.0)
tokgen.write_audio("continued.wav", continued.waveform, rate)

rows = {"original": [original], "continued": [continued.waveform]}
print(tokgen.score_audio(rows, sample_rate=rate, metrics=["mos", "speaker"]))
