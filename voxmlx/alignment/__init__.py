"""Times for the words of a text that is given: the sound says when, not what."""
