"""Features of images and texts: classical ones and those of pretrained encoders."""
