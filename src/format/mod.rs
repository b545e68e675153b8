//! From bytes to record batches, with the position of what is malformed.
