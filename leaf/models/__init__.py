"""Networks: backbones, pretrained weights, freezing, prediction, Grad-CAM, saving and ONNX."""
