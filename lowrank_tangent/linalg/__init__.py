"""Linear algebra that knows nothing of networks: compiled loops, memory, factorisations, low-rank transforms."""
