"""What a file is: its graph, metadata, layout, and the bounds on files from elsewhere; no torch."""
