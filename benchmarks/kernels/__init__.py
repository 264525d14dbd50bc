"""Every op, loader and training step beside its peers: `make bench`; CUDA kernels by events: cuda_events.py."""
