"""Words to pieces and back."""
