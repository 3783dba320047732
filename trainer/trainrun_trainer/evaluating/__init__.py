"""What a model folder is worth: measured beside the unmodified model, on the same texts, questions and labels."""
