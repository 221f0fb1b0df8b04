"""Models: backbones, pretrained weights, freezing, inference, feature cache, Grad-CAM, saving and ONNX."""
