"""Generation of pictures and captions, and the pipeline that users call."""
