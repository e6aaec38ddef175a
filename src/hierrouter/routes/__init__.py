"""Routes: the route tree of recorded replies, how it is filled, priced, scored and embedded."""
