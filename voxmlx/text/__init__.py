"""Text of a stream: ids to bytes, words, utterances, transcripts and file formats."""
