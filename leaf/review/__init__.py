"""The web pages of `leaf review`, for reviewing doubtful images and labeling new ones."""
