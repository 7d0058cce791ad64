"""The numbers that a neuron's step runs on."""
