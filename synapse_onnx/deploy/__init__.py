"""Ways to serve a model: a repository of Triton's, a page in a browser; no torch."""
