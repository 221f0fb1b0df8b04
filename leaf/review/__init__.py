"""A person's look at single images: which are worth it, and the one writer of what the person says."""
