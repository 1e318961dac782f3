"""New tasks of the same structural difficulty: executed first, worded after."""
