"""What every stage stands on: params, files, manifests, checkpoints, processes, curves."""
