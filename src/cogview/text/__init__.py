"""Text tokenizer, known words and word replacing."""
