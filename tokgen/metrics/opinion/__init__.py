"""Models of listeners' opinions beside MOS and PESQ. Each needs the extra `quality` or `nisqa`.

- `visqol` - ViSQOL for speech and for audio (MOS-LQO, 1 to 5; higher)
- `dnsmos` - DNSMOS P.835 and P.808 (1 to 5; higher)
- `plcmos` - PLCMOS v2 (1 to 5; higher)
- `utmos` - UTMOS22, by weights of the hub (1 to 5; higher)
- `nisqa` - NISQA v2.0, by a file of weights (1 to 5; higher)
- `onnx` - sessions of ONNX files in the wheel of speechmos
"""
