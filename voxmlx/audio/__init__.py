"""Sound from files, pipes and microphones, as 16 kHz mono float32."""
