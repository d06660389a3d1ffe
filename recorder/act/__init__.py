"""Acts on what the live detector finds: sends word of incidents, and notes the checkpoints that the loop saves."""
