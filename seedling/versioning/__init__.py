"""Git and DVC: records the inputs of each generation. The only package that imports dvc."""
