"""What the speed figures of this project come from: ``python -m benchmarks --help``."""
