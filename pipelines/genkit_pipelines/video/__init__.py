"""Video pipelines: clips by actions, all at once or frame by frame as a person plays."""
