"""The HTML report and the paper's figures."""
