"""Git and DVC: which generation was made from what. The only importer of dvc."""
