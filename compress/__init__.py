"""Turn one teacher and labelled data into a verified, calibrated and measured family of variants."""
