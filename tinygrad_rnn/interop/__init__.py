"""Exchange with other libraries: a trained network as an ONNX file.

`save_onnx` writes the graph and the weights of a network to a file that onnxruntime runs.
"""

from .onnx.save import save_onnx as save_onnx
