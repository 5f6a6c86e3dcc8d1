"""DAT and DAT++ written the way their published code is written: an oracle and a speed peer.

Feature maps are NCHW, every projection of the deformable attention is a 1x1 convolution, LayerNorm
sits between two permutes and attention is eager. The code is our own; names of parameters and
buffers follow the published checkpoints, so a state dict of theirs loads as it is.

`dat2022` is the model of the CVPR 2022 code (DAT, and the rows of its ablation tables), `datpp2023`
that of the 2023 code (DAT++), `recipe` the weights and the input of the golden files, `goldens`
the check (`python -m benchmarks.published_way`).
"""
