"""TensorFlow Lite's files, read and written without its interpreter.

``schema``: the flatbuffer as plain records, both ways. ``walk``: records → convolutions in the order in which they run.
``normalisation``: what the picture goes through before the first of them. ``metadata``: what apps ask the file.
``read`` and ``write`` put these together.
"""
