"""The base of every stage: params, files, manifests, checkpoints, processes, curves and the training loop."""
