"""How good a trained model is: figures that others can compare with theirs."""
