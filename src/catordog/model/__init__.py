"""Networks, the logit contract, model files, backends, the Classifier, calibration, export."""
