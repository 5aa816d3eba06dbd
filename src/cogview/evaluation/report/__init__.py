"""Report of a checkpoint on one page of HTML: figures and samples."""
