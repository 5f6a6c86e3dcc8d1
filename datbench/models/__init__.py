"""What is measured: specs (free of torch) and the modules that they build."""
