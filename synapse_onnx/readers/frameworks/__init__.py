"""Live modules of other frameworks, replaced by layers of ours; one framework a file."""
