"""Image pipelines and the decoders and encoders they need."""
