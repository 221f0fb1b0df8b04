"""Split images into train, validation and test, stratified by class and with groups kept together."""
