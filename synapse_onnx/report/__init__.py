"""What a person sees of a network and of a comparison; no torch."""
